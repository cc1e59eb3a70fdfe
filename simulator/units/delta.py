"""Functional and handshake model of the delta encoder: the RTL's bits, cycles and counts.

A chunk taken in cycle a is offered from cycle a + 1 on; the next one is taken when it leaves at
the earliest. With d and d' the delays of source and sink (see `DeltaStalls`)

    a(i) = a(i-1) + 1 + max(d(i), d'(i-1)),    e(i) = a(i) + 1 + d'(i),

a running sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.delta import DeltaJob
from simulator.units.pe_chunks import Chunks

__all__ = ["DeltaStalls", "DeltaTrace", "encode", "run_sequence"]

Ints = NDArray[np.int64]
Frames = NDArray[np.int8]

LEAST, MOST = -128, 127
"""Range of a difference that is sent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeltaStalls:
    """Delays in cycles of every chunk over all jobs, int64[beats] each.

    Chunk i is offered `side[i]` cycles after the cycle that follows the previous acceptance and
    then held; the sink accepts `out[i]` cycles after it becomes visible.
    """

    side: Ints
    out: Ints

    @classmethod
    def none(cls, jobs: Sequence[DeltaJob]) -> "DeltaStalls":
        """Return stalls that never hold the encoder."""
        beats = sum(job.beats for job in jobs)
        return cls(side=np.zeros(beats, np.int64), out=np.zeros(beats, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeltaTrace:
    """What the encoder does with its chunks.

    `chunks` are those sent, one lane; int64 cycles of every acceptance, cycle 0 being the first
    in which a chunk can be taken (a job is accepted with the last chunk of the one before).
    """

    chunks: Chunks
    accept_job: Ints
    accept: Ints
    emit: Ints
    counts: dict[tuple[str, str, str], int]


def encode(
    frames: Frames, threshold: int, state: Frames | None = None
) -> tuple[Frames, NDArray[np.bool_], Frames]:
    """Encode int8[frames, k]; returns the differences, which of them are sent, and the state.

    Differences and mask have the shape of `frames`; the state int8[k] starts at zero by default.
    Raises ValueError for a threshold that is no whole number from 0 up.
    """
    if not isinstance(threshold, int | np.integer) or threshold < 0:
        raise ValueError(f"A threshold is a whole number from 0 up, not {threshold!r}")
    seen = np.zeros(frames.shape[1], np.int16) if state is None else state.astype(np.int16)
    sent, mask = np.zeros_like(frames), np.zeros(frames.shape, np.bool_)
    for frame, values in enumerate(frames):
        difference = values - seen
        mask[frame] = np.abs(difference) > threshold
        sent[frame] = np.where(mask[frame], np.clip(difference, LEAST, MOST), 0)
        seen += sent[frame]
    return sent, mask, seen.astype(np.int8)


def _checked(jobs: Sequence[DeltaJob], beats: Sequence[Frames], stalls: DeltaStalls) -> None:
    if not jobs or len(jobs) != len(beats) or any(job.arch != jobs[0].arch for job in jobs):
        raise ValueError(f"Need one set of chunks for each of one encoder's jobs, not {len(beats)}")
    for job, beat in zip(jobs, beats, strict=True):
        if beat.dtype != np.int8 or beat.shape != (job.beats, job.arch.chunk):
            raise ValueError(
                f"A delta job needs int8 chunks ({job.beats}, {job.arch.chunk}), "
                f"not {beat.dtype} {beat.shape}"
            )
    written = 0
    for job in jobs:
        if job.resume and job.chunks > written:
            raise ValueError(f"A job resumes {job.chunks} chunks, but {written} have a state")
        written = max(written, job.chunks)
    wanted = sum(job.beats for job in jobs)
    if {stalls.side.size, stalls.out.size} != {wanted}:
        raise ValueError(
            f"Need one delay for each of {wanted} chunks, "
            f"not {stalls.side.size} and {stalls.out.size}"
        )


def _sent(jobs: Sequence[DeltaJob], beats: Sequence[Frames]) -> Chunks:
    """Encode all jobs; chunks of the state memory that a job leaves alone keep their state."""
    memory = np.zeros((jobs[0].arch.delta_chunks, jobs[0].arch.chunk), np.int8)
    values, masks = [], []
    for job, beat in zip(jobs, beats, strict=True):
        state = memory[: job.chunks].ravel() if job.resume else None
        value, mask, state = encode(beat.reshape(job.frames, -1), job.threshold, state)
        memory[: job.chunks] = state.reshape(job.chunks, -1)
        values.append(value.reshape(beat.shape))
        masks.append(mask.reshape(beat.shape))
    return Chunks(mask=np.concatenate(masks)[:, None], value=np.concatenate(values)[:, None])


def run_sequence(
    jobs: Sequence[DeltaJob], beats: Sequence[Frames], stalls: DeltaStalls | None = None
) -> DeltaTrace:
    """Return the trace of `jobs` run back to back; `beats` has int8[chunks, W] for each.

    Without `stalls` nothing holds the encoder. Raises ValueError for no jobs, jobs of different
    grids, or chunks or delays that do not match.
    """
    stalls = DeltaStalls.none(jobs) if stalls is None else stalls
    _checked(jobs, beats, stalls)
    before = np.concatenate([[0], stalls.out])[:-1]
    accept = np.cumsum(1 + np.maximum(stalls.side, before)) - 1
    ends = np.cumsum([job.beats for job in jobs])
    chunks = _sent(jobs, beats)
    return DeltaTrace(
        chunks=chunks,
        accept_job=np.concatenate([[-1], accept[ends[:-1] - 1]]),
        accept=accept,
        emit=accept + 1 + stalls.out,
        counts={
            ("delta", "compare", "full"): chunks.mask.size,
            ("delta", "value", "full"): int(chunks.mask.sum()),
        },
    )
