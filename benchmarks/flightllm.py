"""FlightLLM on our DspChain: compile time, a run's time, and what the assumed matrix unit is worth.

Run as `python benchmarks/flightllm.py`; published rows are `sparseloom reproduce flightllm`. Times
are wall-clock seconds after imports, one thread; --encode also unrolls every program into memory.
"""

import argparse
import time

from first_light import best_seconds
from rich.console import Console

from simulator.dsp_isa import encode
from sparseloom import studies
from sparseloom.runs import run
from sparseloom.studies.flightllm import BOARD_CYCLES, BOARD_LENGTH, LONGEST
from sparseloom.tables import plain_table

SIZES = ((32, 32), (64, 32), (64, 64), (64, 128), (128, 64))
"""(tokens of MM, columns of MV) of a U280 core."""


def time_compiler(*, unroll: bool) -> None:
    """Print how long the programs of every bucket take to compile."""
    began = time.perf_counter()
    model = studies.infer("flightllm-vhk158").model
    found = model.library(LONGEST)
    spent = time.perf_counter() - began
    print(f"every bucket to {LONGEST}: {found.programs} programs compiled in {spent:.2f} s")
    if unroll:
        began = time.perf_counter()
        steps = {"prefill": model.arch.prefill_bucket, "decode": model.arch.decode_bucket}
        words = sum(
            len(encode(model.program(phase, length).code))
            for phase, step in steps.items()
            for length in range(step, LONGEST + 1, step)
        )
        print(f"unrolled: {4 * words:,} B in {time.perf_counter() - began:.2f} s more")


def time_run() -> None:
    """Print how long a published run takes from source to price."""

    def once() -> None:
        run("llama2-7b", arch="flightllm-vhk158", prefill=128, decode=512)

    print(f"llama2-7b, 128 + 512 tokens on flightllm-vhk158: run in {best_seconds(once):.2f} s")


def matrix_unit() -> None:
    """Print the board's step and a prompt for other sizes of the U280's matrix unit."""
    rows = []
    for tokens, columns in SIZES:
        study = studies.infer("flightllm-u280", mm_tokens=tokens, mv_columns=columns)
        step = study.cycles("decode", BOARD_LENGTH) / study.arch.sustained
        prompt = study.ms(study.cycles("prefill", BOARD_LENGTH))
        error = f"{step / BOARD_CYCLES[BOARD_LENGTH] - 1:+.1%}"
        rows.append((f"{tokens} x {columns}", f"{step:,.0f}", error, f"{prompt:.0f}"))
    names = ("MM tokens x MV columns", "step, cycles", "over the board's", "prompt of 128, ms")
    title = "U280: the size of the matrix unit is assumed"
    Console(width=110, highlight=False).print(plain_table(title, names, rows))


def main() -> None:
    """Print every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", action="store_true", help="unroll every program into memory")
    time_compiler(unroll=parser.parse_args().encode)
    time_run()
    matrix_unit()


if __name__ == "__main__":
    main()
