"""Functional and handshake model of the MPE: the RTL's bits, cycles and counts.

`run` takes the same beats and delays as the RTL testbench. The MPE moves in slots, all of it or
none (`simulator.units.handshake`), by the closed forms of `ChainJob`: weights load while the set
before computes, a pass is a slot, and its results are offered `MpeParams.latency` slots later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dsp_cells import CANDIDATES, TOKENS, ChainJob, MpeParams
from simulator.units.dsp_rows import RowPlan, WeightSets, weight_sets
from simulator.units.slot_streams import BeatSlots, SlotPassage, SlotStalls, pass_jobs

__all__ = [
    "ChainBeats",
    "ChainResults",
    "ChainTrace",
    "beat_slots",
    "pack_product",
    "plan_job",
    "respond",
    "run",
    "run_sequence",
    "unpack_product",
]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChainBeats:
    """Operand beats of one job.

    Side beats, one a pass of every set: `act` int8[beats, mpus, 16, 2 tokens]. Top beats, the
    chain's `load_slots` for every set, groups in rising order: `value` int8 and `index` uint8
    [beats, mpus, vpus, load_groups * group], and `cut` bool[beats, vpus, load_groups], where the
    reduction node after a group ends a row.
    """

    act: NDArray[np.int8]
    value: NDArray[np.int8]
    index: NDArray[np.uint8]
    cut: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChainResults:
    """Result beats: `sums` int32[beats, lanes, 2 tokens] and `valid` bool[beats, lanes].

    A lane is a node, chain 0's first; it is valid where the last set's cut ends a row.
    """

    sums: NDArray[np.int32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChainTrace:
    """What the MPE does with its beats; `counts` by (component, action, variant)."""

    results: ChainResults
    passage: SlotPassage
    counts: dict[tuple[str, str, str], int]


def _starts(job: ChainJob) -> Ints:
    """Return the slot of each set's first pass."""
    return job.params.chain.load_slots + job.interval * np.arange(job.sets)


def beat_slots(job: ChainJob) -> BeatSlots:
    """Return the slots of a job's beats: set i + 1 loads from the first pass of set i on."""
    starts, passes = _starts(job)[:, None], np.arange(job.passes)
    loads = np.concatenate([[[0]], starts[:-1]]) + np.arange(job.params.chain.load_slots)
    last = starts[job.groups - 1 :: job.groups]
    return BeatSlots(
        side=(starts + passes).ravel(),
        top=loads.ravel(),
        out=(last + passes).ravel() + job.params.latency,
    )


def _sets(job: ChainJob, beats: ChainBeats) -> WeightSets:
    """Return the weight sets a job's top beats load; raises ValueError for other beats."""
    params, chain = job.params, job.params.chain
    loads, width = job.sets * chain.load_slots, chain.load_groups * chain.group
    pairs = (loads, params.mpus, params.vpus, width)
    wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
        "act": (np.int8, (job.sets * job.passes, params.mpus, CANDIDATES, TOKENS)),
        "value": (np.int8, pairs),
        "index": (np.uint8, pairs),
        "cut": (np.bool_, (loads, params.vpus, chain.load_groups)),
    }
    for name, (dtype, shape) in wanted.items():
        found = getattr(beats, name)
        if found.dtype != dtype or found.shape != shape:
            raise ValueError(
                f"Beats need {name} {np.dtype(dtype)}{list(shape)}, not "
                f"{found.dtype}{list(found.shape)}"
            )
    if not chain.full_range and (beats.value == -128).any():
        raise ValueError("This chain takes no weight of -128 (full_range is false), but got one")

    def joined(array: NDArray[Any]) -> NDArray[Any]:
        parts = array.reshape(job.sets, chain.load_slots, *array.shape[1:])
        return np.moveaxis(parts, 1, -2).reshape(job.sets, *array.shape[1:-1], -1)

    return WeightSets(value=joined(beats.value), index=joined(beats.index), cut=joined(beats.cut))


def _nodes(params: MpeParams, cut: NDArray[np.bool_]) -> Ints:
    """Return the node at which each slice's row ends, int64[..., stages]; `groups` for none."""
    groups = params.chain.groups
    at = np.where(cut, np.arange(groups), groups)
    ends = np.minimum.accumulate(at[..., ::-1], axis=-1)[..., ::-1]
    return np.repeat(ends, params.chain.group, axis=-1)


def _dense(job: ChainJob, sets: WeightSets) -> NDArray[np.float64]:
    """Return what the chains multiply by, float64[tiles, groups * reduction, lanes].

    A slice after the last cut adds to no lane.
    """
    params, groups = job.params, job.params.chain.groups
    nodes = np.broadcast_to(_nodes(params, sets.cut)[:, None], sets.value.shape)
    weights = np.zeros((job.sets, params.mpus, params.vpus, CANDIDATES, groups + 1))
    place = [
        np.arange(size).reshape(-1, *[1] * left)
        for size, left in zip(sets.value.shape[:3], (3, 2, 1), strict=True)
    ]
    np.add.at(weights, (*place, sets.index.astype(np.int64), nodes), sets.value)
    kept = weights[..., :-1].transpose(0, 1, 3, 2, 4)
    return kept.reshape(job.tiles, job.groups * params.reduction, params.lanes)


def _tokens(job: ChainJob, act: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the activations of each tile, float64[tiles, 2 * passes, groups * reduction].

    The second half of a last, single token idles: it counts as zeros.
    """
    shape = (job.tiles, job.groups, job.passes, job.params.reduction, TOKENS)
    passes = act.reshape(shape).transpose(0, 2, 4, 1, 3).astype(np.float64)
    tokens = passes.reshape(job.tiles, TOKENS * job.passes, -1)
    tokens[:, job.tokens :] = 0
    return tokens


def respond(job: ChainJob, beats: ChainBeats) -> ChainResults:
    """Return the result beats of one job; sums over the groups wrap at 32 bits.

    Raises ValueError for beats of another shape, dtype or range.
    """
    sets = _sets(job, beats)
    # Sums stay far below 2**53, so float64 is exact and BLAS does the work.
    sums = (_tokens(job, beats.act) @ _dense(job, sets)).astype(np.int64).astype(np.int32)
    lanes = job.params.lanes
    pairs = sums.reshape(job.tiles, job.passes, TOKENS, lanes).transpose(0, 1, 3, 2)
    valid = sets.cut.reshape(job.tiles, job.groups, lanes)[:, -1]
    return ChainResults(
        sums=pairs.reshape(job.out_beats, lanes, TOKENS),
        valid=np.repeat(valid, job.passes, axis=0),
    )


def _concatenated(parts: Sequence[ChainResults]) -> ChainResults:
    return ChainResults(
        sums=np.concatenate([part.sums for part in parts]),
        valid=np.concatenate([part.valid for part in parts]),
    )


def _counts(
    jobs: Sequence[ChainJob], beats: Sequence[ChainBeats], results: ChainResults
) -> dict[tuple[str, str, str], int]:
    full = sum(
        job.tokens * int(np.count_nonzero(each.value))
        for job, each in zip(jobs, beats, strict=True)
    )
    return {
        ("dsp", "mac", "full"): full,
        ("dsp", "mac", "gated"): sum(job.mac_slots for job in jobs) - full,
        ("side", "beat", "full"): sum(len(each.act) for each in beats),
        ("top", "beat", "full"): sum(len(each.value) for each in beats),
        ("out", "beat", "full"): len(results.valid),
        ("out", "lane", "full"): int(np.count_nonzero(results.valid)),
    }


def run_sequence(
    jobs: Sequence[ChainJob], beats: Sequence[ChainBeats], stalls: SlotStalls | None = None
) -> ChainTrace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Without `stalls` nothing holds the MPE. Raises ValueError for no jobs, jobs of different MPEs,
    or beats or delays that do not match.
    """
    if not jobs or len(jobs) != len(beats) or any(job.params != jobs[0].params for job in jobs):
        raise ValueError(f"Need one set of beats for each of one MPE's jobs, not {len(beats)}")
    results = _concatenated([respond(*pair) for pair in zip(jobs, beats, strict=True)])
    return ChainTrace(
        results=results,
        passage=pass_jobs(jobs, beat_slots, stalls),
        counts=_counts(jobs, beats, results),
    )


def run(job: ChainJob, beats: ChainBeats, stalls: SlotStalls | None = None) -> ChainTrace:
    """Return the trace of a single job; without `stalls` nothing holds the MPE."""
    return run_sequence((job,), (beats,), stalls)


def plan_job(plan: RowPlan, *, tokens: int, k: int) -> ChainJob:
    """Return the job of a matrix product of int8[tokens, k] by the planned rows."""
    groups = -(-k // plan.params.reduction)
    return ChainJob(params=plan.params, tokens=tokens, tiles=plan.tiles, groups=groups)


def pack_product(
    job: ChainJob, plan: RowPlan, act: NDArray[np.int8], weight: NDArray[np.int8]
) -> ChainBeats:
    """Return the beats of act int8[tokens, k] by weight int8[k, rows].

    Raises ValueError where `weight_sets` does.
    """
    params, chain = job.params, job.params.chain
    sets = weight_sets(plan, weight)
    missing = [(0, TOKENS * job.passes - len(act)), (0, -act.shape[1] % params.reduction)]
    shape = (job.passes, TOKENS, job.groups, params.mpus, CANDIDATES)
    passes = np.pad(act, missing).reshape(shape).transpose(2, 0, 3, 4, 1)
    every_tile = np.broadcast_to(passes, (job.tiles, *passes.shape))

    def loads(array: NDArray[Any], width: int) -> NDArray[Any]:
        parts = array.reshape(*array.shape[:-1], chain.load_slots, width)
        return np.moveaxis(parts, -2, 1).reshape(-1, *array.shape[1:-1], width)

    return ChainBeats(
        act=every_tile.reshape(-1, *passes.shape[2:]),
        value=loads(sets.value, chain.load_groups * chain.group),
        index=loads(sets.index, chain.load_groups * chain.group),
        cut=loads(sets.cut, chain.load_groups),
    )


def unpack_product(job: ChainJob, plan: RowPlan, results: ChainResults) -> NDArray[np.int32]:
    """Return int32[tokens, rows] from a job's results; rows that keep nothing are 0."""
    lanes = job.params.lanes
    tile, vpu = np.divmod(plan.chain, job.params.vpus)
    sums = results.sums.reshape(job.tiles, job.passes, lanes, TOKENS).transpose(0, 2, 1, 3)
    out = np.zeros((plan.kept.size, TOKENS * job.passes), np.int32)
    there = plan.chain >= 0
    lane = vpu * job.params.chain.groups + plan.node
    out[there] = sums[tile[there], lane[there]].reshape(-1, TOKENS * job.passes)
    return out.T[: job.tokens]
