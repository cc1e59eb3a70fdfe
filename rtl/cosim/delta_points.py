"""What a delta encoder does at a point: jobs, frames and stalls, drawn, as words, and expected."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.grid_points import chunk_words
from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Observation, Stimulus, feed
from rtl.pe_grid.shapes import delta_job
from simulator.arch.delta import MAX_THRESHOLD, DeltaJob, DeltaParams
from simulator.arch.pe_grid import PEGrid
from simulator.units.delta import DeltaStalls, run_sequence

__all__ = [
    "DeltaPoint",
    "delta_expected",
    "delta_job_word",
    "delta_stimulus",
    "dense_words",
    "random_delta_point",
]

SLACK_CYCLES = 40
"""Cycles beyond chunks and delays after which a silent encoder counts as hung."""

Frames = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeltaPoint:
    """Jobs run back to back, the dense chunks of each, and the stalls of all."""

    jobs: tuple[DeltaJob, ...]
    beats: tuple[Frames, ...]
    stalls: DeltaStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.frames} frames of {job.chunks} chunks above {job.threshold}" for job in self.jobs
        )
        return f"{jobs}; {_held(self.stalls)} cycles of delay"


def _held(stalls: DeltaStalls) -> int:
    return int(stalls.side.sum() + stalls.out.sum())


def dense_words(chunks: Frames) -> list[int]:
    """Return the port words of dense chunks, int8[chunks, W]."""
    return [int.from_bytes(chunk.tobytes(), "little") for chunk in chunks]


def delta_job_word(job: DeltaJob) -> int:
    """Return a job's settings as the word of its port."""
    names = ("chunks", "frames", "threshold", "resume")
    return setting_word(delta_job(job.arch), {name: getattr(job, name) for name in names})


def delta_stimulus(point: DeltaPoint) -> Stimulus:
    """Return the point as port words; jobs are offered at once."""
    words = [word for beat in point.beats for word in dense_words(beat)]
    return Stimulus(
        feeds={
            "job": feed([delta_job_word(job) for job in point.jobs]),
            "side": feed(words, point.stalls.side.tolist()),
        },
        out_delays=tuple(point.stalls.out.tolist()),
        limit_cycles=2 * len(words) + _held(point.stalls) + SLACK_CYCLES,
    )


def delta_expected(point: DeltaPoint) -> Observation:
    """Return what the software model says the encoder does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    (sent,) = chunk_words(trace.chunks)
    return Observation(
        outputs=tuple(sent),
        accept={
            "job": tuple(trace.accept_job.tolist()),
            "side": tuple(trace.accept.tolist()),
        },
        emit=tuple(trace.emit.tolist()),
        counters={"chunks": len(sent), "values": trace.counts["delta", "value", "full"]},
    )


def _random_job(
    grid: PEGrid, most: int, resume: bool, rng: np.random.Generator
) -> tuple[DeltaJob, Frames]:
    """Draw a job of at most `most` chunks: slow drifts with some jumps, which are clipped."""
    job = DeltaJob(
        arch=grid,
        chunks=int(rng.integers(1, most, endpoint=True)),
        frames=int(rng.integers(1, 6)),
        threshold=int(rng.choice([0, 3, 40, MAX_THRESHOLD - 1, MAX_THRESHOLD])),
        resume=resume,
    )
    steps = rng.integers(-6, 7, (job.frames, job.chunks * grid.chunk)).cumsum(axis=0)
    jumps = rng.integers(-128, 128, steps.shape) * (rng.random(steps.shape) < 0.2)
    return job, np.clip(steps + jumps, -128, 127).astype(np.int8).reshape(-1, grid.chunk)


def _random_stalls(quiet: DeltaStalls, rng: np.random.Generator) -> DeltaStalls:
    """Draw no stalls, a slow sink, or random stalls of both streams."""
    kind = int(rng.integers(4))
    if kind < 2:
        return DeltaStalls(side=quiet.side, out=quiet.out + 3 * kind)
    rate = rng.choice([0.1, 0.5])
    side, out = (
        np.where(rng.random(each.size) < rate, rng.integers(1, 6, each.size), 0)
        for each in (quiet.side, quiet.out)
    )
    return DeltaStalls(side=side, out=out)


def random_delta_point(params: DeltaParams, rng: np.random.Generator) -> DeltaPoint:
    """Draw two jobs, of which the second may go on where the first has stopped, and stalls."""
    grid, resume = params.grid, bool(rng.integers(2))
    first = _random_job(grid, grid.delta_chunks, False, rng)
    second = _random_job(grid, first[0].chunks if resume else grid.delta_chunks, resume, rng)
    jobs, beats = (first[0], second[0]), (first[1], second[1])
    return DeltaPoint(jobs=jobs, beats=beats, stalls=_random_stalls(DeltaStalls.none(jobs), rng))
