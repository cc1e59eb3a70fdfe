"""Functional and handshake model of SORE: the RTL's bits, cycles and counts.

`run` takes the same beats and delays as the RTL testbench. A group's last beat is taken in cycle

    A(g) = max(A(g-1) + S(g), E(g-1)),    E(g) = A(g) + O(g),

where S(g) is how long the source needs to offer the group's beats, O(g) how long the sink needs
to take its N pairs and E(g) the cycle in which it takes the last one: the group before must have
left. E follows A, so A(g) = A(g-1) + max(S(g), O(g-1)) is a running sum, without a cycle loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.arch.sore import SoreFormat, SoreJob

__all__ = ["SoreStalls", "SoreTrace", "magnitude", "run", "run_sequence", "select"]

Ints = NDArray[np.int64]
Values = NDArray[Any]
"""float16 or int8."""

DTYPES: dict[SoreFormat, np.dtype[Any]] = {
    SoreFormat.FP16: np.dtype(np.float16),
    SoreFormat.INT8: np.dtype(np.int8),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoreStalls:
    """Delays in cycles of every beat over all jobs, int64[beats] each.

    Source beat i is offered `side[i]` cycles after the cycle that follows the previous acceptance
    and then held; the sink accepts `out[j]` cycles after beat j becomes visible.
    """

    side: Ints
    out: Ints

    @classmethod
    def none(cls, jobs: Sequence[SoreJob]) -> "SoreStalls":
        """Return stalls that never hold SORE."""
        return cls(
            side=np.zeros(sum(job.in_beats for job in jobs), np.int64),
            out=np.zeros(sum(job.out_beats for job in jobs), np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoreTrace:
    """What SORE does with its beats.

    `value` (the format's dtype) and `index` uint8, both [out beats, lanes]; int64 cycles of every
    acceptance, cycle 0 being the first in which a beat can be taken (a job is accepted with the
    last beat of the one before, the first in cycle -1); `cycles` from the first beat taken to the
    last one handed over; `counts` by (component, action, variant).
    """

    value: Values
    index: NDArray[np.uint8]
    accept_job: Ints
    accept: Ints
    emit: Ints
    cycles: int
    counts: dict[tuple[str, str, str], int]


def magnitude(value: Values) -> NDArray[np.uint16]:
    """Return the unsigned magnitudes by which values are ranked: fp16 bits, or int8 up to 128."""
    if value.dtype == np.float16:
        return value.view(np.uint16) & np.uint16(0x7FFF)
    return np.abs(value.astype(np.int16)).astype(np.uint16)


def _split(job: SoreJob, beats: Values) -> Values:
    """Return [passes, groups, group, lanes], columns padded with zeros."""
    columns = beats.reshape(job.passes, job.length, -1)
    missing = job.groups_per_pass * job.group - job.length
    padded = np.pad(columns, [(0, 0), (0, missing), (0, 0)])
    return padded.reshape(job.passes, job.groups_per_pass, job.group, -1)


def _rank(job: SoreJob, groups: Values) -> Ints:
    """Return sort keys, smaller is better; a position beyond a ragged column comes last."""
    key = -magnitude(groups).astype(np.int64)
    if job.ragged:
        key[:, -1, job.ragged :] = 1
    return key


def select(job: SoreJob, beats: Values) -> tuple[Values, NDArray[np.uint8]]:
    """Return the kept values and their indices, each [out beats, lanes].

    beats: float16 or int8 [in beats, lanes], as the job's format says. Raises ValueError for
    another dtype or shape.
    """
    wanted = DTYPES[job.params.value], (job.in_beats, job.params.lanes)
    if (beats.dtype, beats.shape) != wanted:
        raise ValueError(
            f"Beats must be {wanted[0]}{list(wanted[1])}, not {beats.dtype}{list(beats.shape)}"
        )
    groups = _split(job, beats)
    key = _rank(job, groups)
    order = np.argsort(key, axis=2, kind="stable")[:, :, : job.kept]
    index = np.sort(order, axis=2)
    there = np.take_along_axis(key, index, axis=2) <= 0
    value = np.where(there, np.take_along_axis(groups, index, axis=2), groups.dtype.type(0))
    shape = (job.out_beats, job.params.lanes)
    return value.reshape(shape), np.where(there, index, 0).astype(np.uint8).reshape(shape)


def _group_beats(job: SoreJob) -> Ints:
    """Return the beats taken by each group, int64[groups]."""
    beats = np.full((job.passes, job.groups_per_pass), job.group, np.int64)
    if job.ragged:
        beats[:, -1] = job.ragged
    return beats.ravel()


def _sums(values: Ints, counts: Ints) -> Ints:
    """Return the sum of each run of counts[i] values."""
    sums: Ints = np.add.reduceat(values, np.cumsum(counts) - counts)
    return sums


def _within(values: Ints, counts: Ints) -> Ints:
    """Return the running sum of values, restarted at each run of counts[i] values."""
    sums: Ints = np.cumsum(values)
    before: Ints = np.concatenate([[0], sums[np.cumsum(counts) - 1][:-1]])
    return sums - np.repeat(before, counts)


def _passage(taken: Ints, left: Ints, stalls: SoreStalls) -> tuple[Ints, Ints]:
    """Return the cycles of acceptance and emission; `taken`, `left` are beats of each group."""
    offered, drained = 1 + stalls.side, 1 + stalls.out
    drains = _sums(drained, left)
    steps = np.maximum(_sums(offered, taken), np.concatenate([[0], drains[:-1]]))
    last = np.cumsum(steps) - 1
    start = np.concatenate([[-1], last[:-1]])
    accept = np.repeat(start, taken) + _within(offered, taken)
    accept[np.cumsum(taken) - 1] = last
    return accept, np.repeat(last, left) + _within(drained, left)


def run_sequence(
    jobs: Sequence[SoreJob], beats: Sequence[Values], stalls: SoreStalls | None = None
) -> SoreTrace:
    """Return the trace of `jobs` run back to back; `beats` has one array a job.

    Without `stalls` nothing holds SORE. Raises ValueError for no jobs, jobs of different
    selectors, or beats or delays that do not match.
    """
    if not jobs or len(jobs) != len(beats) or any(job.params != jobs[0].params for job in jobs):
        raise ValueError(f"Need one array of beats for each of one SORE's jobs, not {len(beats)}")
    stalls = SoreStalls.none(jobs) if stalls is None else stalls
    ends = np.cumsum([job.in_beats for job in jobs])
    out_beats = sum(job.out_beats for job in jobs)
    if stalls.side.shape != (ends[-1],) or stalls.out.shape != (out_beats,):
        raise ValueError(
            f"Need one delay for each of {ends[-1]} and {out_beats} beats, "
            f"not {stalls.side.size} and {stalls.out.size}"
        )
    taken = np.concatenate([_group_beats(job) for job in jobs])
    left = np.repeat([job.kept for job in jobs], [job.groups for job in jobs])
    accept, emit = _passage(taken, left, stalls)
    chosen = [select(job, beat) for job, beat in zip(jobs, beats, strict=True)]
    return SoreTrace(
        value=np.concatenate([value for value, _ in chosen]),
        index=np.concatenate([index for _, index in chosen]),
        accept_job=np.concatenate([[-1], accept[ends[:-1] - 1]]),
        accept=accept,
        emit=emit,
        cycles=int(emit[-1] - accept[0]) + 1,
        counts=_counts(jobs),
    )


def _counts(jobs: Sequence[SoreJob]) -> dict[tuple[str, str, str], int]:
    lanes = jobs[0].params.lanes
    return {
        ("sore", "compare", "full"): lanes * sum(job.in_beats for job in jobs),
        ("sore", "hand_over", "full"): lanes * sum(job.out_beats for job in jobs),
    }


def run(job: SoreJob, beats: Values, stalls: SoreStalls | None = None) -> SoreTrace:
    """Return the trace of a single job; without `stalls` nothing holds SORE."""
    return run_sequence((job,), (beats,), stalls)
