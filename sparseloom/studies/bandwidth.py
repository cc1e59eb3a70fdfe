"""The share of the memory's bandwidth that a decode step uses, under every way to count it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mapping.dsp.events import code_events
from simulator.arch import DspChain
from simulator.dsp_isa import Module
from sparseloom.studies.flightllm import BOARD_CYCLES, BOARD_LENGTH, BOARD_WEIGHT_BYTES
from sparseloom.studies.inference import InferenceStudy, infer
from sparseloom.studies.tables import Cell, Table

__all__ = ["MECHANISMS", "USEFUL", "bandwidth", "board_bandwidth", "by_accounting", "carried"]

_WIDE: Final = {"weight_bits": (8,), "head_bits": 8}
_OFF_CHIP: Final = {"always_on_chip": False}
MECHANISMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "neither": {**_OFF_CHIP, **_WIDE},
    "always on chip": _WIDE,
    "mixed precision": _OFF_CHIP,
    "both": {},
}
"""What raises the useful share of the bandwidth, as parameters of the machine."""

IN_USE: Final = "its channels"
USEFUL: Final = f"weights over {IN_USE}"
"""The accounting of the ratio: wider weights are more bytes, not more use."""


def carried(arch: DspChain, cycles: int) -> dict[str, float]:
    """Return the bytes that memory could move in `cycles`, by what counts as memory."""
    hbm, used = arch.hbm, arch.cores * arch.hbm.channels_per_core
    whole = hbm.bandwidth_bytes_per_s * cycles / arch.clock_hz
    return {
        IN_USE: whole * used / hbm.channels,
        "what these reach": float(cycles * arch.bytes_per_cycle(used)),
        "the whole memory": whole,
    }


def bandwidth(
    arch: str | DspChain = "flightllm-u280", length: int = BOARD_LENGTH
) -> dict[str, dict[str, float]]:
    """Return shares of a decode step, uncorrected: {accounting: {mechanism: share}}.

    Weights count once, at the width they have with mixed precision; all bytes are what memory
    reads and writes: wider weights, indices, tables, the cache and activations. `sustained`
    multiplies every share.
    """
    full = infer(arch)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name, change in MECHANISMS.items():
        study = infer(full.arch, **change)
        for accounting, share in _shares(study, length, full.model.weight_bytes):
            found[accounting][name] = share
    return dict(found)


def _shares(study: InferenceStudy, length: int, weights: int) -> Iterator[tuple[str, float]]:
    """Yield one step's share by accounting."""
    cycles = study.cycles("decode", length)
    events = code_events(study.arch, study.model.program("decode", length).code)
    moved = sum(bits for (part, *_), bits in events.items() if part == "dram") // 8
    for over, most in carried(study.arch, cycles).items():
        yield f"weights over {over}", weights / most
        yield f"all bytes over {over}", moved / most
    yield "LD at work", study.busy("decode", length)[Module.LD] / cycles


def board_bandwidth() -> dict[str, float]:
    """Return the shares of the step measured on the U280, of those that its weights tell."""
    arch = infer("flightllm-u280").arch
    most = carried(arch, BOARD_CYCLES[BOARD_LENGTH])
    return {f"weights over {over}": BOARD_WEIGHT_BYTES / size for over, size in most.items()}


def by_accounting(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Return a row for every accounting: the board's share, and ours without and with both.

    `found` is what `bandwidth` gave, at `BOARD_LENGTH`, by name of machine.
    """
    board = board_bandwidth()
    machines = tuple(found.values())
    rows: list[tuple[Cell, ...]] = []
    for accounting in machines[0]:
        ends = [(one[accounting]["neither"], one[accounting]["both"]) for one in machines]
        ours = [f"{100 * a:.1f} to {100 * b:.1f} %, {b / a:.2f}x" for a, b in ends]
        measured = f"{board[accounting]:.1%}" if accounting in board else ""
        rows.append((accounting, measured, *ours))
    return Table(
        title=f"Bandwidth of a decode step at KV {BOARD_LENGTH}, uncorrected, by what counts",
        columns=("accounting", "U280 measured", *found),
        rows=tuple(rows),
    )
