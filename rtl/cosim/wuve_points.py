"""What WUVE does at one point: jobs, beats and stalls, drawn at random, as words, and expected."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.one_stream import (
    lane_words,
    observation,
    one_stream,
    random_stalls,
    setting_word,
)
from rtl.cosim.play import Observation, Stimulus
from rtl.cosim.stimulus import HALF_CORNERS
from rtl.wuve import wuve_job
from simulator.arch.wuve import WuveJob, WuveParams
from simulator.units.wuve import WuveBeats, WuveResults, WuveStalls, run_sequence

__all__ = ["WuvePoint", "random_wuve_point", "wuve_expected", "wuve_stimulus"]

MOST_BEATS = 24
"""Beats of a long random job."""

HALVES = np.array(HALF_CORNERS, np.uint16)
SINGLES = np.array(
    (
        *(0x0000_0000, 0x8000_0000, 0x0000_0001, 0x8000_0001, 0x007F_FFFF, 0x0080_0000),
        *(0x3F80_0000, 0xBF80_0000, 0x7F7F_FFFF, 0xFF7F_FFFF, 0x7F80_0000, 0xFF80_0000),
        *(0x7FC0_0000, 0xFFA0_0001),
    ),
    np.uint32,
)
"""Bits of zeros, subnormals, one, the largest numbers, infinities, quiet and signalling NaN."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuvePoint:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[WuveJob, ...]
    beats: tuple[WuveBeats, ...]
    stalls: WuveStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"lr {job.learning_rate:.3g} momentum {job.momentum:.3g} "
            f"decay {job.weight_decay:.3g} beats {job.beats}"
            for job in self.jobs
        )
        return f"{jobs}; {self.stalls.side.sum() + self.stalls.out.sum()} cycles of delay"


def _job_word(job: WuveJob) -> int:
    names = ("learning_rate", "momentum", "weight_decay")
    singles = {name: np.float32(getattr(job, name)) for name in names}
    settings = {name: int(single.view(np.uint32)) for name, single in singles.items()}
    return setting_word(wuve_job(), settings | {"beats": job.beats})


def _operands(beats: WuveBeats) -> tuple[int, ...]:
    return lane_words([(beats.weight, 32), (beats.velocity, 32), (beats.gradient, 16)])


def _results(results: WuveResults) -> tuple[int, ...]:
    return lane_words([(results.weight, 32), (results.velocity, 32), (results.copy, 16)])


def wuve_stimulus(point: WuvePoint) -> Stimulus:
    """Return the point as port words."""
    side = [word for beats in point.beats for word in _operands(beats)]
    return one_stream(map(_job_word, point.jobs), side, point.stalls)


def wuve_expected(point: WuvePoint) -> Observation:
    """Return what the software model says WUVE does at `point`."""
    lanes = point.jobs[0].params.lanes
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    counters = {
        "in_beats": trace.counts["wuve", "multiply", "full"] // (3 * lanes),
        "out_beats": trace.counts["wuve", "convert", "full"] // lanes,
    }
    return observation(_results(trace.results), trace, counters)


def _random_job(params: WuveParams, rng: np.random.Generator) -> WuveJob:
    return WuveJob(
        params=params,
        learning_rate=float(rng.choice([0.0, 0.1, 1.0, rng.normal()])),
        momentum=float(rng.choice([0.0, 0.9, rng.random()])),
        weight_decay=float(rng.choice([0.0, 1e-4, rng.random()])),
        beats=int(rng.choice([1, 2, int(rng.integers(1, MOST_BEATS, endpoint=True))])),
    )


def _numbers(
    rng: np.random.Generator, kind: str, corners: NDArray[Any], values: NDArray[Any]
) -> NDArray[Any]:
    """Return `values`, random bits, or values and corners mixed, all of the values' type."""
    if kind == "any":
        dtype = corners.dtype
        most = int(np.iinfo(dtype).max)
        return rng.integers(0, most, values.shape, dtype, endpoint=True).view(values.dtype)
    share = 0.3 if kind == "corners" else 0.0
    drawn = rng.choice(corners, values.shape).view(values.dtype)
    return np.where(rng.random(values.shape) < share, drawn, values)


def _random_beats(job: WuveJob, rng: np.random.Generator) -> WuveBeats:
    """Draw numbers as in training, any bits, or many zeros, subnormals, infinities and NaNs."""
    kind = str(rng.choice(["moderate", "any", "corners"]))
    shape = (job.beats, job.params.lanes)
    weight, velocity = (
        _numbers(rng, kind, SINGLES, rng.normal(0, 0.1, shape).astype(np.float32)) for _ in range(2)
    )
    gradient = _numbers(rng, kind, HALVES, rng.normal(0, 0.01, shape).astype(np.float16))
    return WuveBeats(weight=weight, velocity=velocity, gradient=gradient)


def random_wuve_point(params: WuveParams, rng: np.random.Generator) -> WuvePoint:
    """Draw one to three jobs of random settings and length, their operands and their stalls."""
    jobs = tuple(_random_job(params, rng) for _ in range(int(rng.integers(1, 4))))
    return WuvePoint(
        jobs=jobs,
        beats=tuple(_random_beats(job, rng) for job in jobs),
        stalls=random_stalls(rng, WuveStalls.none(jobs)),
    )
