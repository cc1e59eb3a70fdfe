"""What the PEGrid does at one point: jobs, chunks and stalls, drawn, as words, and expected."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Observation, Stimulus, feed
from rtl.pe_grid import shapes
from simulator.arch.pe_grid import PEGrid
from simulator.arch.pe_job import GridJob
from simulator.units.pe_chunks import Chunks, GridBeats, compress, grid_job, pack
from simulator.units.pe_trace import GridStalls, run_sequence

__all__ = [
    "GridPoint",
    "chunk_words",
    "grid_expected",
    "grid_stimulus",
    "random_grid_point",
]

BUDGET_CYCLES = 120
"""Cycles of a random job that are never exceeded, drains and stalls apart."""

SLACK_CYCLES = 64
"""Cycles beyond the worst case after which a silent grid counts as hung."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridPoint:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[GridJob, ...]
    beats: tuple[GridBeats, ...]
    stalls: GridStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(f"{job.tiles} tiles of {job.chunks} chunks" for job in self.jobs)
        return f"{jobs}; {_held(self.stalls)} cycles of delay"


def _held(stalls: GridStalls) -> int:
    return int(stalls.side.sum() + stalls.top.sum() + stalls.out.sum())


def chunk_words(chunks: Chunks, rng: np.random.Generator | None = None) -> list[list[int]]:
    """Return the words of every lane; with `rng` noise stands behind the packed values."""
    beats, lanes, length = chunks.mask.shape
    packed, masks = compress(chunks), chunks.words.tolist()
    if rng:
        noise = rng.integers(-128, 128, chunks.mask.shape, dtype=np.int8)
        unused = np.arange(length) >= chunks.mask.sum(axis=2)[..., None]
        packed = np.where(unused, noise, packed)

    def word(beat: int, lane: int) -> int:
        return masks[beat][lane] | int.from_bytes(packed[beat, lane].tobytes(), "little") << length

    return [[word(beat, lane) for beat in range(beats)] for lane in range(lanes)]


def _job_word(job: GridJob) -> int:
    fields = {
        "chunks": job.chunks,
        "tiles": job.tiles,
        "accumulate": job.accumulate,
    }
    return setting_word(shapes.grid_job(job.arch), fields)


def grid_stimulus(point: GridPoint) -> Stimulus:
    """Return the point as port words, a stream for every row and every column."""
    rng = np.random.default_rng(0)
    grid, stalls = point.jobs[0].arch, point.stalls
    feeds = {"job": feed([_job_word(job) for job in point.jobs])}
    for sides, name, lanes, delays in (
        ([beats.side for beats in point.beats], shapes.side_name, grid.rows, stalls.side),
        ([beats.top for beats in point.beats], shapes.top_name, grid.cols, stalls.top),
    ):
        words = [chunk_words(side, rng) for side in sides]
        for lane in range(lanes):
            stream = [word for side in words for word in side[lane]]
            feeds[name(lane)] = feed(stream, delays[:, lane].tolist())
    cycles = sum(job.most_cycles for job in point.jobs) + _held(stalls)
    return Stimulus(
        feeds=feeds, out_delays=tuple(stalls.out.tolist()), limit_cycles=cycles + SLACK_CYCLES
    )


def _words(outputs: NDArray[np.int32]) -> tuple[int, ...]:
    return tuple(int.from_bytes(beat.tobytes(), "little") for beat in outputs)


def grid_expected(point: GridPoint) -> Observation:
    """Return what the software model says the grid does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    side, top = trace.accept_side.T.tolist(), trace.accept_top.T.tolist()
    counts = trace.counts
    return Observation(
        outputs=_words(trace.outputs),
        accept={
            "job": tuple(trace.accept_job.tolist()),
            **{shapes.side_name(row): tuple(cycles) for row, cycles in enumerate(side)},
            **{shapes.top_name(col): tuple(cycles) for col, cycles in enumerate(top)},
        },
        emit=tuple(trace.emit.tolist()),
        counters={
            "cycles": trace.cycles,
            "array_busy": trace.array_busy,
            **{f"pe_{cause}": cycles for cause, cycles in trace.pe_cycles.items()},
            "effectual": trace.effectual,
            "mac_full": counts["pe", "mac", "full"],
            "mac_gated": counts["pe", "mac", "gated"],
            "empty_chunks": trace.empty_chunks,
            "side_chunks": counts["side", "chunk", "full"],
            "side_values": counts["side", "value", "full"],
            "top_chunks": counts["top", "chunk", "full"],
            "top_values": counts["top", "value", "full"],
            "out_beats": counts["out", "beat", "full"],
        },
    )


def _operand(
    rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Draw values and a mask: empty, full or in between, the same everywhere or lane by lane.

    A present value may be zero, an absent one is noise that must not matter.
    """
    value = rng.integers(-128, 128, shape, dtype=np.int8)
    density = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0], p=[0.05, 0.2, 0.3, 0.2, 0.25])
    lanes = rng.choice([1.0, rng.choice([0.4, 1.0])], size=(shape[0], 1))
    return value, rng.random(shape) < density * lanes


def _random_job(grid: PEGrid, rng: np.random.Generator) -> tuple[GridJob, GridBeats]:
    while True:
        m = int(rng.integers(1, 3 * grid.rows, endpoint=True))
        n = int(rng.integers(1, 3 * grid.cols, endpoint=True))
        chunks = int(rng.choice([1, 2, 3, int(rng.integers(1, 3 * min(grid.fifo_depth, 6) + 3))]))
        k = max(1, chunks * grid.chunk - int(rng.choice([0, int(rng.integers(grid.chunk))])))
        job = grid_job(grid, m=m, k=k, n=n)
        least = 1 + 4 * grid.most_cycles + 2 * grid.drain_beats
        if job.most_cycles <= max(BUDGET_CYCLES, least):
            act, act_mask = _operand(rng, (m, k))
            weight, weight_mask = _operand(rng, (n, k))
            job = replace(job, accumulate=bool(rng.random() < 0.3))
            return job, pack(job, act, weight.T, act_mask, weight_mask.T)


def _random_stalls(jobs: Sequence[GridJob], rng: np.random.Generator) -> GridStalls:
    """Draw no stalls, a steady back-pressure, or random stalls of all streams."""
    quiet, kind = GridStalls.none(jobs), int(rng.integers(4))
    if kind == 0:
        return quiet
    if kind == 1:
        every = int(rng.integers(1, 6))
        return GridStalls(side=quiet.side, top=quiet.top, out=quiet.out + every)
    rate, longest = float(rng.choice([0.05, 0.3, 0.9])), int(rng.integers(1, 7))

    def drawn(like: NDArray[np.int64]) -> NDArray[np.int64]:
        lengths = rng.integers(1, longest, like.shape, endpoint=True)
        return np.where(rng.random(like.shape) < rate, lengths, 0)

    return GridStalls(side=drawn(quiet.side), top=drawn(quiet.top), out=drawn(quiet.out))


def random_grid_point(grid: PEGrid, rng: np.random.Generator) -> GridPoint:
    """Draw one or two jobs, their operands and their stalls."""
    drawn = [_random_job(grid, rng) for _ in range(int(rng.integers(1, 3)))]
    jobs = tuple(job for job, _ in drawn)
    beats = tuple(beats for _, beats in drawn)
    return GridPoint(jobs=jobs, beats=beats, stalls=_random_stalls(jobs, rng))
