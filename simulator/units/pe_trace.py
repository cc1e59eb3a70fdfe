"""Functional and handshake model of the PEGrid: the RTL's bits, cycles and counts.

`run_sequence` takes the same beats and the same stalls as the RTL testbench and returns what the
RTL must do. Every row and every column of the grid is a stream of its own; a chunk is broadcast in
the cycle in which it is accepted. Cycle 0 is the first cycle in which a chunk can be accepted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.pe_job import GridJob
from simulator.units.pe_chunks import Chunks, GridBeats
from simulator.units.pe_grid import mac_counts

__all__ = ["GridStalls", "GridTrace", "respond", "run", "run_sequence"]

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridStalls:
    """Delays in cycles of every beat, over all jobs in order.

    `side` int64[beats, rows] and `top` int64[beats, cols]: a chunk is offered that many cycles
    after the cycle that follows the acceptance of the stream's previous one, and then held;
    `out` int64[out beats]: the sink accepts that many cycles after a beat becomes visible.
    """

    side: Ints
    top: Ints
    out: Ints

    @classmethod
    def none(cls, jobs: Sequence[GridJob]) -> "GridStalls":
        """Return stalls that never hold a stream."""
        beats = sum(job.beats for job in jobs)
        return cls(
            side=np.zeros((beats, jobs[0].arch.rows), np.int64),
            top=np.zeros((beats, jobs[0].arch.cols), np.int64),
            out=np.zeros(sum(job.out_beats for job in jobs), np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridTrace:
    """What the grid does with its beats.

    `outputs` int32[out beats, drain_rows, cols]; cycles of every acceptance: `accept_job`
    int64[jobs] (the barrier of the last tile of the job before), `accept_side` int64[beats, rows],
    `accept_top` int64[beats, cols], `emit` int64[out beats]. `cycles` are the jobs' windows, each
    from the first chunk accepted to the last sum final; `pe_cycles` what the PEs do in them:
    as in GridTiming, with `wait` for every cycle without a chunk.
    """

    outputs: NDArray[np.int32]
    accept_job: Ints
    accept_side: Ints
    accept_top: Ints
    emit: Ints
    cycles: int
    array_busy: int
    pe_cycles: dict[str, int]
    effectual: int
    empty_chunks: int
    counts: dict[tuple[str, str, str], int]


def respond(
    job: GridJob, beats: GridBeats, before: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Return the result beats, int32[out beats, drain_rows, cols]; sums wrap.

    A job that accumulates goes on from the sums `before`, int32[rows, cols], zero by default.
    """
    grid = job.arch

    def dense(chunks: Chunks, lanes: int) -> Ints:
        present = np.where(chunks.mask, chunks.value, 0).astype(np.int64)
        shape = (job.tiles, job.chunks, lanes, grid.chunk)
        return present.reshape(shape).transpose(0, 2, 1, 3).reshape(job.tiles, lanes, -1)

    rows, columns = dense(beats.side, grid.rows), dense(beats.top, grid.cols)
    sums = rows @ columns.transpose(0, 2, 1)
    if job.accumulate:
        sums = sums.cumsum(axis=0)
        sums += 0 if before is None else before
    return sums.astype(np.int32).reshape(-1, grid.drain_rows, grid.cols)


def _responses(jobs: Sequence[GridJob], beats: Sequence[GridBeats]) -> NDArray[np.int32]:
    """Return the result beats of jobs run back to back."""
    found: list[NDArray[np.int32]] = []
    before: NDArray[np.int32] | None = None
    for job, beat in zip(jobs, beats, strict=True):
        found.append(respond(job, beat, before))
        before = found[-1][-job.arch.drain_beats :].reshape(job.arch.rows, job.arch.cols)
    return np.concatenate(found)


def _cost_words(chunks: Chunks, skips: bool, chunk: int) -> Words:
    words = chunks.words
    return words if skips else np.full_like(words, (1 << chunk) - 1)


def _joined(jobs: Sequence[GridJob], beats: Sequence[GridBeats]) -> GridBeats:
    sides, tops = [beat.side for beat in beats], [beat.top for beat in beats]

    def join(parts: list[Chunks]) -> Chunks:
        return Chunks(
            mask=np.concatenate([part.mask for part in parts]),
            value=np.concatenate([part.value for part in parts]),
        )

    whole = GridBeats(side=join(sides), top=join(tops))
    total = sum(job.beats for job in jobs)
    found = {len(whole.side.mask), len(whole.top.mask)}
    if found != {total}:
        raise ValueError(f"The jobs need {total} beats on every stream, not {sorted(found)}")
    return whole


def run_sequence(
    jobs: Sequence[GridJob], beats: Sequence[GridBeats], stalls: GridStalls | None = None
) -> GridTrace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Without `stalls` nothing holds a stream. Raises ValueError for no jobs, jobs of different
    grids, or beats or delays that do not match.
    """
    if not jobs or len(jobs) != len(beats) or any(job.arch != jobs[0].arch for job in jobs):
        raise ValueError(f"Need one set of beats for each of one grid's jobs, not {len(beats)}")
    stalls = stalls or GridStalls.none(jobs)
    quiet = GridStalls.none(jobs)
    for name in ("side", "top", "out"):
        wanted, found = getattr(quiet, name).shape, getattr(stalls, name)
        if found.shape != wanted or found.min() < 0:
            raise ValueError(f"Delays of {name} must be {wanted} and at least 0, not {found.shape}")
    grid, whole = jobs[0].arch, _joined(jobs, beats)
    side = _cost_words(whole.side, grid.skips_activations, grid.chunk)
    top = _cost_words(whole.top, grid.skips_weights, grid.chunk)
    return _trace(jobs, beats, whole, (side, top), stalls)


def _trace(
    jobs: Sequence[GridJob],
    beats: Sequence[GridBeats],
    whole: GridBeats,
    costs: tuple[Words, Words],
    stalls: GridStalls,
) -> GridTrace:
    from simulator.units.pe_kernel import CAUSES, pass_chunks, quotient

    grid = jobs[0].arch
    side, top, emit = (np.zeros_like(delays) for delays in (stalls.side, stalls.top, stalls.out))
    taken, record = np.zeros(len(jobs), np.int64), np.zeros(2 + len(CAUSES), np.int64)
    held = int(stalls.side.sum() + stalls.top.sum() + stalls.out.sum())
    longest = held + sum(job.most_cycles for job in jobs)
    busy = np.zeros(longest // 64 + 2, np.uint64)
    pass_chunks(
        *costs,
        np.array([(job.chunks, job.tiles) for job in jobs], np.int64),
        grid.fifo_depth,
        grid.least_cycles,
        quotient(grid.macs_per_pe),
        (stalls.side, stalls.top, stalls.out),
        (side, top, taken),
        emit,
        busy,
        record,
    )
    cycles, *by_cause, empty = record.tolist()
    matches, effectual = _paired(*costs), _paired(whole.side.words, whole.top.words)
    return GridTrace(
        outputs=_responses(jobs, beats),
        accept_job=taken,
        accept_side=side,
        accept_top=top,
        emit=emit,
        cycles=cycles,
        array_busy=int(np.bitwise_count(busy).sum()),
        pe_cycles=dict(zip(CAUSES, by_cause, strict=True)),
        effectual=effectual,
        empty_chunks=empty,
        counts={
            **mac_counts(grid, matches, effectual),
            ("side", "chunk", "full"): side.size,
            ("side", "value", "full"): int(whole.side.mask.sum()),
            ("top", "chunk", "full"): top.size,
            ("top", "value", "full"): int(whole.top.mask.sum()),
            ("out", "beat", "full"): emit.size,
        },
    )


def _paired(side: Words, top: Words) -> int:
    """Return the positions present in both of each beat's row and column words."""
    return int(np.bitwise_count(side[:, :, None] & top[:, None, :]).sum(dtype=np.int64))


def run(job: GridJob, beats: GridBeats, stalls: GridStalls | None = None) -> GridTrace:
    """Return the trace of a single job; without `stalls` nothing holds a stream."""
    return run_sequence((job,), (beats,), stalls)
