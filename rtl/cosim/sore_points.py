"""What SORE does at one point: jobs, values and stalls, drawn at random, as words, and expected."""

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
from rtl.sore import sore_job
from simulator.arch.sore import SoreFormat, SoreJob, SoreParams
from simulator.units.sore import DTYPES, SoreStalls, run_sequence

__all__ = ["SorePoint", "random_sore_point", "sore_expected", "sore_stimulus"]

Values = NDArray[Any]

FEW = {SoreFormat.FP16: (0, 1, 2, 0x7C00, 0x7C01, 0x7E00), SoreFormat.INT8: (0, 1, 2, 0x7F)}
"""Magnitudes that tie often, with infinity and NaN."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SorePoint:
    """Jobs run back to back, the values of each [in beats, lanes], and the stalls of all."""

    jobs: tuple[SoreJob, ...]
    beats: tuple[Values, ...]
    stalls: SoreStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.kept}:{job.group} length {job.length} passes {job.passes}" for job in self.jobs
        )
        return f"{jobs}; {self.stalls.side.sum() + self.stalls.out.sum()} cycles of delay"


def sore_stimulus(point: SorePoint) -> Stimulus:
    """Return the point as port words."""
    layout = sore_job(point.jobs[0].params)
    names = ("kept", "group", "length", "passes")
    jobs = [
        setting_word(layout, {name: getattr(job, name) for name in names}) for job in point.jobs
    ]
    values = np.concatenate(point.beats)
    return one_stream(jobs, lane_words([(values, 8 * values.itemsize)]), point.stalls)


def sore_expected(point: SorePoint) -> Observation:
    """Return what the software model says SORE does at `point`."""
    params = point.jobs[0].params
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    fields = [(trace.value, params.value.value_bits), (trace.index, params.index_bits)]
    counters = {
        "in_beats": trace.counts["sore", "compare", "full"] // params.lanes,
        "out_beats": trace.counts["sore", "hand_over", "full"] // params.lanes,
    }
    return observation(lane_words(fields), trace, counters)


def _size(rng: np.random.Generator, most: int, *likely: int) -> int:
    """Draw one of the `likely` sizes, or anything from 1 to `most`."""
    choices = (*likely, int(rng.integers(1, most, endpoint=True)))
    return choices[int(rng.integers(len(choices)))]


def _random_job(params: SoreParams, rng: np.random.Generator) -> SoreJob:
    group = _size(rng, params.max_m, params.max_m)
    most = min(group, params.max_n)
    return SoreJob(
        params=params,
        kept=_size(rng, most, 1, most),
        group=group,
        length=_size(rng, 3 * group),
        passes=int(rng.integers(1, 4)),
    )


def _random_values(job: SoreJob, rng: np.random.Generator) -> Values:
    """Draw random bits, or few magnitudes: ties, zeros, infinity, NaN."""
    bits = job.params.value.value_bits
    shape = (job.in_beats, job.params.lanes)
    values = rng.integers(0, 1 << bits, shape)
    if rng.random() < 0.5:
        values = rng.choice(FEW[job.params.value], shape) | rng.integers(0, 2, shape) << (bits - 1)
    unsigned: Values = values.astype(f"u{bits // 8}")
    return unsigned.view(DTYPES[job.params.value])


def random_sore_point(params: SoreParams, rng: np.random.Generator) -> SorePoint:
    """Draw one to three jobs of random N:M, length and passes, their values and their stalls."""
    jobs = tuple(_random_job(params, rng) for _ in range(int(rng.integers(1, 4))))
    return SorePoint(
        jobs=jobs,
        beats=tuple(_random_values(job, rng) for job in jobs),
        stalls=random_stalls(rng, SoreStalls.none(jobs)),
    )
