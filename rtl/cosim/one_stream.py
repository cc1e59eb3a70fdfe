"""What points of SORE and WUVE share: one operand stream, lanes of fields, and stalls."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from amaranth.hdl import Const
from amaranth.lib import data
from numpy.typing import NDArray

from rtl.cosim.play import Observation, Stimulus, feed
from simulator.units.sore import SoreStalls, SoreTrace
from simulator.units.wuve import WuveStalls, WuveTrace

__all__ = [
    "lane_words",
    "observation",
    "one_stream",
    "random_stalls",
    "setting_word",
]

SLACK_CYCLES = 80
"""Cycles a job may take beyond its beats and delays before a silent unit counts as hung."""

AnyStalls = TypeVar("AnyStalls", SoreStalls, WuveStalls)


def setting_word(layout: data.StructLayout, settings: Mapping[str, int]) -> int:
    """Return a job's settings as the word of its port."""
    fields: dict[int | str, Any] = dict(settings.items())
    return int(Const.cast(layout.const(fields)).value)


def lane_words(fields: Sequence[tuple[NDArray[Any], int]]) -> tuple[int, ...]:
    """Return one word a beat from the fields of a lane, lowest first, lane 0 lowest.

    A field is its values [beats, lanes], of which the bits count, and its width in bits.
    """
    stride = sum(width for _, width in fields)
    words = [0] * len(fields[0][0])
    offset = 0
    for values, width in fields:
        bits = np.ascontiguousarray(values).view(f"u{values.itemsize}")
        for beat, row in enumerate(bits.tolist()):
            words[beat] |= sum(value << (lane * stride + offset) for lane, value in enumerate(row))
        offset += width
    return tuple(words)


def one_stream(
    jobs: Iterable[int], side: Iterable[int], stalls: SoreStalls | WuveStalls
) -> Stimulus:
    """Return a stimulus from port words; jobs are offered at once."""
    words = tuple(jobs)
    beats = stalls.side.size + stalls.out.size
    waits = int(stalls.side.sum() + stalls.out.sum())
    return Stimulus(
        feeds={"job": feed(words), "side": feed(tuple(side), stalls.side.tolist())},
        out_delays=tuple(stalls.out.tolist()),
        limit_cycles=SLACK_CYCLES * len(words) + beats + waits,
    )


def observation(
    outputs: tuple[int, ...], trace: SoreTrace | WuveTrace, counters: Mapping[str, int]
) -> Observation:
    """Return what the software model says a unit does."""
    return Observation(
        outputs=outputs,
        accept={"job": tuple(trace.accept_job.tolist()), "side": tuple(trace.accept.tolist())},
        emit=tuple(trace.emit.tolist()),
        counters=counters,
    )


def random_stalls(rng: np.random.Generator, quiet: AnyStalls) -> AnyStalls:
    """Draw no stalls, a steady back-pressure, a starving source, or random stalls of both."""
    kind = int(rng.integers(5))
    if kind == 0:
        return quiet
    every = int(rng.integers(1, 4))
    if kind == 1:
        return replace(quiet, out=quiet.out + every)
    if kind == 2:
        # Results are taken at once, then late, while the unit waits for a beat.
        return replace(quiet, side=quiet.side + every, out=np.arange(quiet.out.size) % 7)
    rate, longest = float(rng.choice([0.05, 0.3, 0.9])), int(rng.integers(1, 7))
    side, out = (
        np.where(rng.random(beats) < rate, rng.integers(1, longest, beats, endpoint=True), 0)
        for beats in (quiet.side.size, quiet.out.size)
    )
    return replace(quiet, side=side, out=out)
