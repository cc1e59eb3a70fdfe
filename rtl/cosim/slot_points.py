"""What points of units that move in slots share: words, stalls, stimulus and observation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.play import Observation, Stimulus, feed
from simulator.units.slot_streams import SlotPassage, SlotStalls

__all__ = [
    "delay_cycles",
    "packed_words",
    "random_slot_stalls",
    "slot_counters",
    "slot_observation",
    "slot_stimulus",
]

SLACK_CYCLES = 100
"""Cycles a job may take beyond its own and its delays before a silent unit counts as hung."""


def packed_words(fields: Sequence[tuple[NDArray[Any], int]]) -> tuple[int, ...]:
    """Return one word a beat from items side by side, each of some fields, lowest first.

    A field is its values [beats, items ...], of which the low bits count, and its width.
    """
    beats = len(fields[0][0])
    if not beats:
        return ()
    bits = [
        (values.reshape(beats, -1, 1).astype(np.int64) >> np.arange(width)) & 1
        for values, width in fields
    ]
    rows = np.concatenate(bits, axis=2).astype(np.uint8).reshape(beats, -1)
    packed = np.packbits(rows, axis=1, bitorder="little")
    return tuple(int.from_bytes(row.tobytes(), "little") for row in packed)


def delay_cycles(stalls: SlotStalls) -> int:
    """Return the sum of all delays."""
    return sum(int(delays.sum()) for delays in (stalls.side, stalls.top, stalls.out))


def slot_stimulus(
    jobs: Sequence[int], side: Iterable[int], top: Iterable[int], stalls: SlotStalls, cycles: int
) -> Stimulus:
    """Return a stimulus from port words; jobs are offered at once and take `cycles` unstalled."""
    return Stimulus(
        feeds={
            "job": feed(jobs),
            "side": feed(tuple(side), stalls.side.tolist()),
            "top": feed(tuple(top), stalls.top.tolist()),
        },
        out_delays=tuple(stalls.out.tolist()),
        limit_cycles=cycles + SLACK_CYCLES * len(jobs) + delay_cycles(stalls),
    )


def slot_counters(
    passage: SlotPassage, counts: Mapping[tuple[str, str, str], int]
) -> dict[str, int]:
    """Return the counters of cycles, stalls and beats of a unit that runs jobs."""
    return {
        "cycles": passage.cycles,
        "stall_side": passage.stall_side,
        "stall_top": passage.stall_top,
        "stall_out": passage.stall_out,
        "side_beats": counts["side", "beat", "full"],
        "top_beats": counts["top", "beat", "full"],
        "out_beats": counts["out", "beat", "full"],
        "out_lanes": counts["out", "lane", "full"],
    }


def slot_observation(
    outputs: tuple[int, ...], passage: SlotPassage, counters: Mapping[str, int]
) -> Observation:
    """Return what the software model says a unit does."""
    return Observation(
        outputs=outputs,
        accept={
            "job": tuple(passage.accept_job.tolist()),
            "side": tuple(passage.accept_side.tolist()),
            "top": tuple(passage.accept_top.tolist()),
        },
        emit=tuple(passage.emit.tolist()),
        counters=counters,
    )


def random_slot_stalls(rng: np.random.Generator, quiet: SlotStalls) -> SlotStalls:
    """Draw no stalls, a steady back-pressure, or random stalls of all three streams."""
    kind = int(rng.integers(5))
    if kind == 0:
        return quiet
    if kind == 1:
        return SlotStalls(side=quiet.side, top=quiet.top, out=quiet.out + int(rng.integers(1, 4)))
    rate, longest = float(rng.choice([0.05, 0.3, 0.9])), int(rng.integers(1, 7))
    side, top, out = (
        np.where(rng.random(beats) < rate, rng.integers(1, longest, beats, endpoint=True), 0)
        for beats in (quiet.side.size, quiet.top.size, quiet.out.size)
    )
    return SlotStalls(side=side, top=top, out=out)
