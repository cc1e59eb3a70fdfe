"""What an array must do at a point, from the software model, and the first difference."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.play import Observation
from rtl.cosim.stimulus import Point
from simulator.arch import NMArray
from simulator.units.nm_array import Trace, run_sequence

__all__ = ["difference", "expected"]


def _words(arch: NMArray, outputs: NDArray[Any]) -> tuple[int, ...]:
    # A beat's word is its columns' int32 or fp32 words, column 0 lowest.
    rows = np.ascontiguousarray(outputs).view(f"<u{arch.acc_bits // 8}")
    return tuple(int.from_bytes(row.tobytes(), "little") for row in rows)


def _counters(trace: Trace) -> dict[str, int]:
    return {
        "cycles": trace.cycles,
        "array_busy": trace.array_busy,
        "stall_side": trace.stall_side,
        "stall_top": trace.stall_top,
        "stall_out": trace.stall_out,
        "mac_full": trace.counts["pe", "mac", "full"],
        "mac_gated": trace.counts["pe", "mac", "gated"],
        "side_lanes": trace.counts["side", "lane", "full"],
        "top_lanes": trace.counts["top", "lane", "full"],
        "out_beats": trace.counts["out", "beat", "full"],
    }


def expected(point: Point) -> Observation:
    """Return what the software model says the array does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    return Observation(
        outputs=_words(point.jobs[0].arch, trace.outputs),
        accept={
            "job": tuple(trace.accept_job.tolist()),
            "side": tuple(trace.accept_side.tolist()),
            "top": tuple(trace.accept_top.tolist()),
        },
        emit=tuple(trace.emit.tolist()),
        counters=_counters(trace),
    )


def _first(name: str, model: tuple[int, ...], rtl: tuple[int, ...]) -> str | None:
    for position, (ours, theirs) in enumerate(zip(model, rtl, strict=False)):
        if ours != theirs:
            shown = (f"{ours:#x}", f"{theirs:#x}") if name == "outputs" else (ours, theirs)
            return f"{name}[{position}]: model {shown[0]}, RTL {shown[1]}"
    if len(model) != len(rtl):
        return f"{name}: model has {len(model)}, RTL {len(rtl)}"
    return None


def difference(model: Observation, rtl: Observation) -> str | None:
    """Return the first difference as one sentence, None when both agree.

    Compared are the cycles of every acceptance and emission, the result words, and every counter.
    """
    sequences = [(f"accept_{name}", model.accept[name], rtl.accept[name]) for name in model.accept]
    sequences += [("emit", model.emit, rtl.emit), ("outputs", model.outputs, rtl.outputs)]
    for name, ours, theirs in sequences:
        found = _first(name, ours, theirs)
        if found:
            return found
    for name, count in model.counters.items():
        if rtl.counters.get(name) != count:
            return f"counter {name}: model {count}, RTL {rtl.counters.get(name)}"
    return None
