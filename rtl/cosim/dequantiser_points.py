"""What a dequantiser does at a point: jobs, beats and stalls, at random, as words, and expected."""

from dataclasses import dataclass

import numpy as np

from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Observation, Stimulus
from rtl.cosim.slot_points import (
    delay_cycles,
    packed_words,
    random_slot_stalls,
    slot_observation,
    slot_stimulus,
)
from rtl.dsp_chain.dequantiser import dequantiser_job
from simulator.arch.dequantiser import (
    CODE_BITS,
    SCALE_BITS,
    SHIFT_BITS,
    DequantiserJob,
    DequantiserParams,
)
from simulator.units.dequantiser import DequantiserBeats, beat_slots, run_sequence
from simulator.units.slot_streams import SlotStalls, no_stalls

__all__ = [
    "DequantiserPoint",
    "dequantiser_expected",
    "dequantiser_stimulus",
    "random_dequantiser_point",
]

MOST_BEATS = 40
"""Beats of a long random job."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DequantiserPoint:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[DequantiserJob, ...]
    beats: tuple[DequantiserBeats, ...]
    stalls: SlotStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.bits} bits {job.beats} beats in groups of {job.scale_beats}" for job in self.jobs
        )
        return f"{jobs}; {delay_cycles(self.stalls)} cycles of delay"


def _job_word(job: DequantiserJob) -> int:
    settings = {name: getattr(job, name) for name in ("bits", "beats", "scale_beats")}
    return setting_word(dequantiser_job(), settings)


def dequantiser_stimulus(point: DequantiserPoint) -> Stimulus:
    """Return the point as port words."""
    side, top = list[int](), list[int]()
    for beats in point.beats:
        side += packed_words([(beats.words, 8)])
        top += packed_words([(beats.scale, SCALE_BITS), (beats.shift, SHIFT_BITS)])
    jobs = [_job_word(job) for job in point.jobs]
    return slot_stimulus(jobs, side, top, point.stalls, sum(job.cycles for job in point.jobs))


def dequantiser_expected(point: DequantiserPoint) -> Observation:
    """Return what the software model says the dequantiser does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    counters = {
        f"{name}_beats": trace.counts[name, "beat", "full"] for name in ("side", "top", "out")
    }
    return slot_observation(packed_words([(trace.weights, 8)]), trace.passage, counters)


def _random_job(params: DequantiserParams, rng: np.random.Generator) -> DequantiserJob:
    return DequantiserJob(
        params=params,
        bits=int(rng.choice(CODE_BITS)),
        beats=int(rng.choice([1, 2, int(rng.integers(1, MOST_BEATS, endpoint=True))])),
        scale_beats=int(rng.choice([1, 2, 8, int(rng.integers(1, 20))])),
    )


def _random_beats(job: DequantiserJob, rng: np.random.Generator) -> DequantiserBeats:
    """Draw any words, and factors that are any or around 1."""
    shift = rng.integers(0, 1 << SHIFT_BITS, job.scales).astype(np.uint8)
    scale = rng.integers(0, 1 << SCALE_BITS, job.scales)
    near = np.clip((1 << shift.astype(np.int64)) + rng.integers(-1, 2, job.scales), 0, 255)
    return DequantiserBeats(
        words=rng.integers(0, 256, (job.words, job.params.lanes), np.uint8),
        scale=np.where(rng.random(job.scales) < 0.5, scale, near).astype(np.uint8),
        shift=shift,
    )


def random_dequantiser_point(
    params: DequantiserParams, rng: np.random.Generator
) -> DequantiserPoint:
    """Draw one to four jobs of mixed widths, their operands and their stalls."""
    jobs = tuple(_random_job(params, rng) for _ in range(int(rng.integers(1, 5))))
    return DequantiserPoint(
        jobs=jobs,
        beats=tuple(_random_beats(job, rng) for job in jobs),
        stalls=random_slot_stalls(rng, no_stalls(jobs, beat_slots)),
    )
