"""FlightLLM on our DspChain: published rows, ratios by mechanism, compile time.

python benchmarks/flightllm.py            everything but --encode, about a minute
python benchmarks/flightllm.py --encode   also unroll every program into memory
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mapping.dsp import CompiledModel, compile_model, decoder_of, published
from mapping.dsp.compile import Program
from mapping.dsp.timing import Timeline, busy_cycles
from simulator.arch import Compression, DspChain
from simulator.arch.load import load_arch
from simulator.dsp_isa import Module, encode
from workloads.zoo import build

# Public artefact: milliseconds of a program, then of its modules LD, ST, MM, MV, MISC.
ROWS = {
    ("decode", 144): (9.281941, (6.704711, 0.031453, 0, 8.810382, 0.225422)),
    ("decode", 256): (9.429263, (6.827646, 0.033316, 0, 8.890027, 0.245333)),
    ("decode", 512): (9.809803, (7.108639, 0.037573, 0, 9.072071, 0.290844)),
    ("decode", 1024): (10.615256, (7.670626, 0.046088, 0, 9.527182, 0.381867)),
    ("decode", 1536): (11.420709, (8.232612, 0.054603, 0, 9.982293, 0.472889)),
    ("decode", 2048): (12.226162, (8.794599, 0.063118, 0, 10.437404, 0.563911)),
    ("prefill", 128): (289.882369, (104.406553, 0.932377, 274.240853, 0, 9.318400)),
    ("prefill", 512): (1181.419287, (426.847472, 4.000220, 1109.111324, 0, 49.550222)),
}
RUNS = {
    (128, 512): (289.9, 4946.4),
    (128, 1024): (289.9, 10318.6),
    (128, 1536): (289.9, 16103.1),
    (512, 512): (1181.4, 5269.0),
    (512, 1024): (1181.4, 10950.5),
    (512, 1536): (1181.4, 17044.3),
}
BOARD_CYCLES = 3_937_100
INSTRUCTIONS = 103_765
LONGEST = 2048


def model_on(arch: DspChain, *, compress: bool = True) -> CompiledModel:
    """Return LLaMA-2-7B compiled for `arch`."""
    graph = build("llama2-7b", prefill=128, decode=1)
    percent = 100
    if compress:
        graph, percent, _ = published(arch, graph)
    return compile_model(decoder_of(graph, attention_percent=percent), arch)


class Machine:
    """A machine with the model on it and what has been timed so far."""

    def __init__(self, preset: str, **overrides: Any) -> None:
        """Compile the published run of LLaMA-2-7B for a preset."""
        arch = load_arch(preset, **overrides)
        assert isinstance(arch, DspChain)
        self.arch, self.model, self.timeline = arch, model_on(arch), Timeline(arch)

    def cycles(self, phase: str, length: int) -> int:
        """Return the cycles of the program of a length."""
        return self.timeline.cycles(self.model.program(phase, length))

    def run(self, prefill: int, decode: int) -> tuple[int, int]:
        """Return the cycles of a prompt and of all decode steps after it."""
        lengths = np.arange(prefill + 1, prefill + decode + 1)
        step = self.arch.decode_bucket
        sizes, times = np.unique(-(-lengths // step) * step, return_counts=True)
        pairs = zip(sizes.tolist(), times.tolist(), strict=True)
        return self.cycles("prefill", prefill), sum(n * self.cycles("decode", s) for s, n in pairs)


def line(name: str, published_ms: float, raw_ms: float, sustained: float) -> str:
    """Return a row: published, ours uncorrected, residual, ours with `sustained`, error."""
    ours = raw_ms / sustained
    return (
        f"  {name:22} {published_ms:11.3f} {raw_ms:11.3f} {published_ms - raw_ms:10.3f}"
        f" {ours:11.3f} {ours / published_ms - 1:+8.1%}"
    )


def rows(machine: Machine) -> Iterator[str]:
    """Yield published programs and runs beside ours."""
    arch = machine.arch
    yield f"VHK158, LLaMA-2-7B, ms; sustained = {arch.sustained} (assumed)"
    yield f"  {'':22} {'published':>11} {'ours':>11} {'residual':>10} {'sustained':>11}   error"
    for (phase, length), (whole, modules) in ROWS.items():
        raw = 1e3 * machine.cycles(phase, length) / arch.clock_hz
        yield line(f"{phase} {length}", whole, raw, arch.sustained)
        busy = busy_cycles(arch, machine.model.program(phase, length).code)
        for module, there in zip(Module, modules, strict=False):
            if there:
                ours = 1e3 * busy[module] / arch.clock_hz
                yield line(f"    {module}", there, ours, arch.sustained)
    for (prefill, decode), there in RUNS.items():
        for phase, ms, cycles in zip(
            ("prefill", "decode"), there, machine.run(prefill, decode), strict=True
        ):
            name = f"{prefill}, {decode}: {phase}"
            yield line(name, ms, 1e3 * cycles / arch.clock_hz, arch.sustained)


def ratios(machine: Machine) -> Iterator[str]:
    """Yield the ratios of runs and programs between lengths, without any parameter."""
    steps = {key: (row[0], machine.cycles(*key)) for key, row in ROWS.items()}
    yield "Ratios between lengths (sustained cancels): published, ours, error"
    for phase, first in (("decode", 256), ("prefill", 128)):
        for (other, length), (ms, cycles) in steps.items():
            if other == phase and length != first:
                there = ms / steps[phase, first][0]
                ours = cycles / steps[phase, first][1]
                error = ours / there - 1
                yield f"  {phase} {length}/{first}: {there:.4f} {ours:.4f} {error:+.1%}"


def board() -> Iterator[str]:
    """Yield the U280 board beside ours, and what the assumed matrix unit is worth."""
    machine = Machine("flightllm-u280")
    raw, arch = machine.cycles("decode", 128), machine.arch
    ours = raw / arch.sustained
    yield f"U280, decode at KV 128: board {BOARD_CYCLES:,} cycles, ours {raw:,}"
    yield f"  with sustained {arch.sustained}: {ours:,.0f} ({ours / BOARD_CYCLES - 1:+.1%})"
    for length in (256, 512, 1024):
        yield f"  KV {length}: {machine.cycles('decode', length) / raw:.4f} times as long"
    yield "  matrix unit (assumed): tokens x columns of MV, decode cycles, prompt of 128 in ms"
    for tokens, columns in ((32, 32), (64, 32), (64, 64), (64, 128), (128, 64)):
        other = Machine("flightllm-u280", mm_tokens=tokens, mv_columns=columns)
        prompt = 1e3 * arch.seconds(other.cycles("prefill", 128))
        yield f"    {tokens:3} x {columns:3}: {other.cycles('decode', 128):,} {prompt:.0f}"


def useful_bandwidth() -> Iterator[str]:
    """Yield the useful share of the bandwidth of the channels in use, by mechanism."""
    full = Machine("flightllm-u280")
    rate = full.arch.bytes_per_cycle(full.arch.cores * full.arch.hbm.channels_per_core)
    rate = rate * 100 / full.arch.hbm.same_channel_percent
    useful = full.model.weight_bytes
    wide = {"weight_bits": (8,), "head_bits": 8}
    cases: dict[str, dict[str, Any]] = {
        "neither": {"always_on_chip": False, **wide},
        "always on chip": wide,
        "mixed precision": {"always_on_chip": False},
        "both": {},
    }
    yield "Useful bandwidth of a U280 decode step (published 35.6 to 65.9 %, 1.85x)"
    for name, change in cases.items():
        cycles = Machine("flightllm-u280", **change).cycles("decode", 128)
        yield f"  {name:16} {float(useful / (rate * cycles)):.1%}"


def sparsity() -> Iterator[str]:
    """Yield the speed-up of a prompt from N:M weights and skipped blocks (published 1.6x)."""
    machine = load_arch("flightllm-vhk158")
    assert isinstance(machine, DspChain)
    dense = Timeline(machine).cycles(model_on(machine, compress=False).program("prefill", 1024))
    every = tuple(f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down"))
    yield "Prompt of 1024 against dense (published: 1.6x compute efficiency, densities not known)"
    for names, kept, blocks in (
        (every[:2], 70, 30),
        (every[:2], 100, 30),
        (every, 75, 30),
        (every, 60, 100),
        (every, 60, 30),
        (every, 50, 30),
    ):
        chosen = Compression(
            model="llama2-7b", projections=names, kept_percent=kept, attention_percent=blocks
        )
        arch = replace(machine, compression=chosen)
        cycles = Timeline(arch).cycles(model_on(arch).program("prefill", 1024))
        which = "all" if names == every else "q, k"
        yield f"  {which} weights {kept} %, blocks {blocks} %: {dense / cycles:.2f}x"


def programs(model: CompiledModel) -> Iterator[Program]:
    """Yield the program of every bucket up to LONGEST."""
    for phase, step in (
        ("prefill", model.arch.prefill_bucket),
        ("decode", model.arch.decode_bucket),
    ):
        for length in range(step, LONGEST + 1, step):
            yield model.program(phase, length)


def compile_all(unroll: bool) -> Iterator[str]:
    """Yield compile time, instruction counts and storage."""
    began = time.perf_counter()
    arch = load_arch("flightllm-vhk158")
    assert isinstance(arch, DspChain)
    model = model_on(arch)
    found = model.library(LONGEST)
    spent = time.perf_counter() - began
    yield f"Compile, every bucket to {LONGEST}: {found.programs} programs in {spent:.1f} s"
    step = sum(model.program("decode", 256).instructions.values())
    yield f"  instructions of a step at 256: {step:,} a core, all channels at once;"
    yield f"  published {INSTRUCTIONS:,}, one LD or ST a channel, cores not split"
    yield (
        f"  storage: naive {found.naive_bytes:,} B in {found.naive_programs:,} programs, "
        f"adaptive {found.adaptive_bytes:,} B, {found.reduction:.0f}x (published about 500x)"
    )
    if unroll:
        began = time.perf_counter()
        words = sum(len(encode(program.code)) for program in programs(model))
        yield f"  unrolled: {4 * words:,} B in {time.perf_counter() - began:.1f} s more"


def main() -> None:
    """Print every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", action="store_true", help="unroll every program into memory")
    unroll = parser.parse_args().encode
    machine = Machine("flightllm-vhk158")
    parts = (
        rows(machine),
        ratios(machine),
        board(),
        useful_bandwidth(),
        sparsity(),
        compile_all(unroll),
    )
    for part in parts:
        for text in part:
            print(text, flush=True)
        print()


if __name__ == "__main__":
    main()
