"""What a special-function unit does at a point: jobs, beats, stalls, at random, and expected."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Observation, Stimulus
from rtl.cosim.slot_points import (
    delay_cycles,
    packed_words,
    random_slot_stalls,
    slot_observation,
    slot_stimulus,
)
from rtl.dsp_chain.special_shapes import special_job
from simulator.arch.special import SpecialJob, SpecialOp, SpecialParams
from simulator.units.slot_streams import SlotStalls, no_stalls
from simulator.units.special import SpecialBeats, beat_slots, pack_rows, run_sequence

__all__ = ["SpecialPoint", "random_special_point", "special_expected", "special_stimulus"]

MOST_BEATS = 30
"""Result beats of a random job, about."""

EXTREMES = (-32768, -32767, -1, 0, 1, 32767)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpecialPoint:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[SpecialJob, ...]
    beats: tuple[SpecialBeats, ...]
    stalls: SlotStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.op.name} {job.rows} rows of {job.first or job.length}" for job in self.jobs
        )
        return f"{jobs}; {delay_cycles(self.stalls)} cycles of delay"


def _job_word(job: SpecialJob) -> int:
    settings = {name: getattr(job, name) for name in ("beats", "rows", "floor")}
    length = {"length": job.first or job.length, "grows": int(job.first > 0)}
    return setting_word(special_job(job.params), settings | length | {"op": int(job.op)})


def special_stimulus(point: SpecialPoint) -> Stimulus:
    """Return the point as port words."""
    side, top = list[int](), list[int]()
    for beats in point.beats:
        side += packed_words([(beats.x, 16)])
        top += packed_words([(beats.other, 16)]) if len(beats.other) else ()
    jobs = [_job_word(job) for job in point.jobs]
    return slot_stimulus(jobs, side, top, point.stalls, sum(job.cycles for job in point.jobs))


def special_expected(point: SpecialPoint) -> Observation:
    """Return what the software model says the unit does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    names = ("side", "top", "out")
    counters = {f"{name}_beats": trace.counts[name, "beat", "full"] for name in names}
    return slot_observation(packed_words([(trace.results, 16)]), trace.passage, counters)


def _numbers(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Draw any int16, extreme ones, all the same, or numbers as in a network."""
    kind = int(rng.integers(5))
    if kind == 0:
        return np.full(shape, rng.choice(EXTREMES), np.int16)
    if kind == 1:
        return rng.choice(EXTREMES, shape).astype(np.int16)
    if kind == 2:
        return rng.integers(-(1 << 15), 1 << 15, shape).astype(np.int16)
    drawn = rng.normal(rng.normal(), rng.choice([0.01, 1.0, 5.0]), shape) * 256
    return np.clip(np.round(drawn), -(1 << 15), (1 << 15) - 1).astype(np.int16)


def _random_job(params: SpecialParams, rng: np.random.Generator) -> SpecialJob:
    most = params.lanes * MOST_BEATS
    length = int(rng.choice([1, params.lanes, int(rng.integers(1, most, endpoint=True))]))
    most_rows = max(MOST_BEATS // -(-length // params.lanes), 1)
    rows = int(rng.integers(1, min(most_rows, 6), endpoint=True))
    op = SpecialOp(int(rng.integers(len(SpecialOp))))
    grows = op is SpecialOp.SOFTMAX and rows <= length and rng.random() < 0.5
    return SpecialJob(
        params=params,
        op=op,
        length=length,
        rows=rows,
        epsilon=int(rng.choice([0, 1, 7, 65535])),
        first=int(rng.integers(1, length - rows + 1, endpoint=True)) if grows else 0,
    )


def _random_beats(job: SpecialJob, rng: np.random.Generator) -> SpecialBeats:
    """Draw operands; lanes beyond a row's end carry noise nobody may look at."""
    shape = (job.rows, job.length)
    beats = pack_rows(job, *(_numbers(rng, shape) for _ in range(3)))
    lanes = np.arange(job.beats * job.params.lanes).reshape(-1, job.params.lanes)
    noise = np.tile(lanes >= job.length, (len(beats.x) // job.beats, 1))
    litter = np.where(noise, rng.integers(-(1 << 15), 1 << 15), beats.x)
    return SpecialBeats(x=litter.astype(np.int16), other=beats.other)


def random_special_point(params: SpecialParams, rng: np.random.Generator) -> SpecialPoint:
    """Draw one to four jobs of any operation, their operands and their stalls."""
    jobs = tuple(_random_job(params, rng) for _ in range(int(rng.integers(1, 5))))
    return SpecialPoint(
        jobs=jobs,
        beats=tuple(_random_beats(job, rng) for job in jobs),
        stalls=random_slot_stalls(rng, no_stalls(jobs, beat_slots)),
    )
