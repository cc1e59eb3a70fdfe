"""Functional and handshake model of the NMArray: the RTL's bits, cycles and counts.

`run` takes the same beats and the same stalls as the RTL testbench and returns what the RTL
must do: result beats bit for bit, the exact cycle of every acceptance, and every counter.

Latency and throughput are `ArrayJob`'s closed forms; a stall holds the whole array. Cycle 0 is
the first cycle in which slot 0 of the first job can happen; further jobs follow back to back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from simulator.arch import ArrayJob, Dataflow, Precision
from simulator.units.handshake import Flow, Passage, pass_slots
from simulator.units.nm_beats import Beats, Lanes
from simulator.units.nm_float import respond_floats
from simulator.units.nm_slots import out_slots, side_slots, top_slots

__all__ = ["Stalls", "Trace", "respond", "run", "run_sequence"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stalls:
    """Delays in cycles of every beat, over all jobs in order, int64[beats] each.

    Source beat i is offered `side[i]` (`top[i]`) cycles after the cycle that follows the previous
    acceptance and then held; the sink accepts `out[j]` cycles after beat j becomes visible.
    """

    side: Ints
    top: Ints
    out: Ints

    @classmethod
    def none(cls, jobs: Sequence[ArrayJob]) -> "Stalls":
        """Return stalls that never hold the array."""
        return cls(
            side=np.zeros(sum(side_slots(job).size for job in jobs), np.int64),
            top=np.zeros(sum(top_slots(job).size for job in jobs), np.int64),
            out=np.zeros(sum(out_slots(job).size for job in jobs), np.int64),
        )

    @classmethod
    def random(
        cls, jobs: Sequence[ArrayJob], rng: np.random.Generator, *, rate: float, longest: int
    ) -> "Stalls":
        """Draw stalls of 1 to `longest` cycles for a share `rate` of the beats of each stream."""
        quiet = cls.none(jobs)

        def drawn(like: Ints) -> Ints:
            lengths = rng.integers(1, longest, like.shape, endpoint=True)
            return np.where(rng.random(like.shape) < rate, lengths, 0)

        return cls(side=drawn(quiet.side), top=drawn(quiet.top), out=drawn(quiet.out))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What the array does with its beats.

    `outputs` int32 or float32 [result beats, cols]; `accept_job`, `accept_side`, `accept_top` and
    `emit` int64 cycles of every acceptance (a job is accepted in the last slot of the one before);
    `cycles` from a job's first slot to its last one, summed over jobs and equal to their slots plus
    the three kinds of stalled cycles; `array_busy` slots in which some PE has a fold's stream;
    `counts` by (component, action, variant).
    """

    outputs: NDArray[Any]
    accept_job: Ints
    accept_side: Ints
    accept_top: Ints
    emit: Ints
    cycles: int
    array_busy: int
    stall_side: int
    stall_top: int
    stall_out: int
    counts: dict[tuple[str, str, str], int]


def _decode(job: ArrayJob, pairs: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Scatter kept pairs [..., pairs] to dense groups int64[..., group]; equal indices add."""
    lead = pairs.shape[:-1]
    slot = np.arange(int(np.prod(lead))).reshape(*lead, 1) * job.group + index
    dense = np.bincount(
        slot.ravel(), weights=pairs.ravel(), minlength=pairs[..., 0].size * job.group
    )
    return dense.astype(np.int64).reshape(*lead, job.group)


def _stream_pairs(job: ArrayJob, lanes: Lanes) -> NDArray[np.int64]:
    """Decode streamed kept pairs: beats of g slots to int64[folds, length, lanes, group]."""
    macs, count = job.arch.macs_per_pe, lanes.valid.shape[1]
    shape = (job.folds, job.length, job.slots_per_group, count, macs)
    # The array never uses the pairs beyond N of a group's last slot.
    used = np.arange(job.slots_per_group * macs).reshape(-1, 1, macs) < job.kept
    value = lanes.value.astype(np.int64).reshape(shape)
    value = value * (lanes.valid.reshape(shape[:4])[..., None] & used)
    index = _index(lanes).reshape(shape)

    def joined(array: NDArray[np.int64]) -> NDArray[np.int64]:
        return array.transpose(0, 1, 3, 2, 4).reshape(*shape[:2], count, -1)

    return _decode(job, joined(value), joined(index))


def _index(lanes: Lanes) -> NDArray[np.int64]:
    if lanes.index is None:
        raise ValueError("Streamed or loaded kept pairs need an index for every value")
    return lanes.index.astype(np.int64)


def _load(job: ArrayJob, lanes: Lanes) -> NDArray[np.int64]:
    """Return what the load leaves in each PE, int64[folds, rows, group, cols]."""
    depth = job.load_slots // job.arch.rows
    shape = (job.folds, job.arch.rows, depth, job.arch.cols)

    def settled(array: NDArray[np.int64]) -> NDArray[np.int64]:
        return array.reshape(shape)[:, ::-1, ::-1].transpose(0, 1, 3, 2)

    value = settled((lanes.value[..., 0] * lanes.valid).astype(np.int64))
    if job.dataflow is Dataflow.WS:
        value = _decode(job, value, settled(_index(lanes)[..., 0]))
    return value.transpose(0, 1, 3, 2)


def _group(job: ArrayJob, lanes: Lanes) -> NDArray[np.int64]:
    """Return streamed candidates, int64[folds, length, rows, group]."""
    value = lanes.value.astype(np.int64) * lanes.valid[..., None]
    return value.reshape(job.folds, job.length, job.arch.rows, job.group)


def _product(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int32]:
    # int8 products stay far below 2**53, so float64 is exact and BLAS does the work.
    exact = left.astype(np.float64) @ right.astype(np.float64)
    return exact.astype(np.int64).astype(np.int32)


def respond(job: ArrayJob, beats: Beats) -> NDArray[Any]:
    """Return the result beats [beats, cols] of one job: wrapping int32, or float32 for fp16.

    fp32 sums are rounded in the hardware's order (`simulator.units.nm_float`).
    """
    match job.arch.precision:
        case Precision.INT8:
            return _respond_integers(job, beats)
        case Precision.FP16:
            return respond_floats(job, beats)
        case _:
            assert_never(job.arch.precision)


def _respond_integers(job: ArrayJob, beats: Beats) -> NDArray[np.int32]:
    folds, rows, cols = job.folds, job.arch.rows, job.arch.cols
    match job.dataflow:
        case Dataflow.OS:
            left = _group(job, beats.side).transpose(0, 2, 1, 3).reshape(folds, rows, -1)
            right = _stream_pairs(job, beats.top).transpose(0, 1, 3, 2).reshape(folds, -1, cols)
            return _product(left, right)[:, ::-1].reshape(-1, cols)
        case Dataflow.WS:
            streamed = _group(job, beats.side)
        case Dataflow.IS:
            streamed = _stream_pairs(job, beats.side)
    left = streamed.reshape(folds, job.length, -1)
    return _product(left, _load(job, beats.top).reshape(folds, -1, cols)).reshape(-1, cols)


def _kept_per_lane(job: ArrayJob, lanes: Lanes) -> Ints:
    """Count non-zero kept values, int64[folds, length, lanes], of a streamed operand."""
    macs, count = job.arch.macs_per_pe, lanes.valid.shape[1]
    shape = (job.folds, job.length, job.slots_per_group, count, macs)
    used = np.arange(job.slots_per_group * macs).reshape(-1, 1, macs) < job.kept
    hits = (lanes.value.reshape(shape) != 0) & lanes.valid.reshape(shape[:4])[..., None] & used
    counted: Ints = hits.sum(axis=(2, 4), dtype=np.int64)
    return counted


def _effectual(job: ArrayJob, beats: Beats) -> int:
    """Count multiplier uses with both operands valid and a non-zero kept value."""
    folds, rows, cols = job.folds, job.arch.rows, job.arch.cols
    side, top = beats.side, beats.top
    match job.dataflow:
        case Dataflow.OS:
            partners = side.valid.reshape(folds, job.length, -1).sum(axis=2)
            return int((partners * _kept_per_lane(job, top).sum(axis=2)).sum())
        case Dataflow.WS:
            partners = side.valid.reshape(folds, job.length, rows).sum(axis=1)
            held = ((top.value[..., 0] != 0) & top.valid).reshape(folds, rows, -1)[:, ::-1]
            return int((partners * held.sum(axis=2)).sum())
        case Dataflow.IS:
            # A column takes part when its last loaded candidate, row 0's first, exists.
            partners = top.valid.reshape(folds, -1, cols)[:, -1].sum(axis=1)
            return int((partners * _kept_per_lane(job, side).sum(axis=(1, 2))).sum())


def _offsets(jobs: Sequence[ArrayJob]) -> list[int]:
    return [sum(job.slots for job in jobs[:position]) for position in range(len(jobs))]


def _passage(jobs: Sequence[ArrayJob], stalls: Stalls) -> Passage:
    starts = _offsets(jobs)
    side, top, out = (
        np.concatenate([table(job) + start for job, start in zip(jobs, starts, strict=True)])
        for table in (side_slots, top_slots, out_slots)
    )
    return pass_slots(
        int(max(starts[-1] + jobs[-1].slots, out[-1] + 1)),
        Flow(slots=side, delays=stalls.side),
        Flow(slots=top, delays=stalls.top),
        Flow(slots=out, delays=stalls.out),
    )


def _counts(jobs: Sequence[ArrayJob], beats: Sequence[Beats]) -> dict[tuple[str, str, str], int]:
    full = sum(_effectual(job, beat) for job, beat in zip(jobs, beats, strict=True))
    return {
        ("pe", "mac", "full"): full,
        ("pe", "mac", "gated"): sum(job.mac_slots for job in jobs) - full,
        ("side", "lane", "full"): sum(beat.side.valid_lanes for beat in beats),
        ("top", "lane", "full"): sum(beat.top.valid_lanes for beat in beats),
        ("out", "beat", "full"): sum(out_slots(job).size for job in jobs),
    }


def run_sequence(jobs: Sequence[ArrayJob], beats: Sequence[Beats], stalls: Stalls) -> Trace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Raises ValueError for no jobs, jobs of different arrays, or beats or delays that do not match.
    """
    if not jobs or len(jobs) != len(beats) or any(job.arch != jobs[0].arch for job in jobs):
        raise ValueError(f"Need one set of beats for each of one array's jobs, not {len(beats)}")
    passage = _passage(jobs, stalls)
    starts = _offsets(jobs)
    spans = [(start, start + job.slots - 1) for start, job in zip(starts, jobs, strict=True)]

    def held(cause: Ints) -> int:
        # A window opens with its first operand, so the wait for that one is not the job's.
        return sum(int(cause[first + 1 : last + 1].sum()) for first, last in spans)

    return Trace(
        outputs=np.concatenate([respond(*pair) for pair in zip(jobs, beats, strict=True)]),
        accept_job=np.array([-1, *(passage.cycle[last] for _, last in spans[:-1])], np.int64),
        accept_side=passage.side,
        accept_top=passage.top,
        emit=passage.out,
        cycles=sum(int(passage.cycle[last] - passage.cycle[first]) + 1 for first, last in spans),
        array_busy=sum(job.busy_slots for job in jobs),
        stall_side=held(passage.held_side),
        stall_top=held(passage.held_top),
        stall_out=held(passage.held_out),
        counts=_counts(jobs, beats),
    )


def run(job: ArrayJob, beats: Beats, stalls: Stalls | None = None) -> Trace:
    """Return the trace of a single job; without `stalls` the array never holds."""
    return run_sequence((job,), (beats,), stalls or Stalls.none((job,)))
