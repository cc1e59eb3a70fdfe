"""Functional and handshake model of the FlexDpe array: the RTL's bits, cycles and counts.

A product runs as passes (`FlexJob`). The non-zeros of the stationary operand, slice by slice of
the reduction and vector by vector, lie on consecutive multipliers of a ring; a pass is at most an
array-full of one slice's. Its values load, then the slice's vectors stream past them, one a slot:
a network hands every multiplier the position it needs, and a forwarding adder tree sums up
neighbours of the same cluster (stationary vector). The tree drains before a pass that reaches
into another array-full is loaded, and after the last: once per array-full of non-zeros.

Slots are those of `simulator.models.flex_dpe`: load, stream and drain add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.flex_job import FlexJob
from simulator.units.slot_streams import BeatSlots, SlotPassage, SlotStalls, pass_jobs

__all__ = [
    "FlexBeats",
    "FlexProduct",
    "FlexResults",
    "FlexTrace",
    "beat_slots",
    "pack_product",
    "run_sequence",
    "unpack_product",
]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlexBeats:
    """Operand beats of one job, and what its non-zeros multiply.

    Top beats, the loads: `value` int8 and `cluster` int64 [loads, loads_per_cycle]. Side beats,
    the vectors: `side` int8[vectors, dpe_size]. `position` int64[nonzeros]: the position of the
    slice that each of the pass's non-zeros multiplies, which the distribution network is set for.
    """

    value: NDArray[np.int8]
    cluster: Ints
    side: NDArray[np.int8]
    position: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlexResults:
    """Result beats, one a vector: a lane for every multiplier, valid where `there`.

    `there` bool, `cluster` int64 and `sums` int64, each [beats, multipliers], zero elsewhere. A
    cluster's sum leaves on the lane of its topmost adder, a single product on its multiplier's.
    """

    there: Bools
    cluster: Ints
    sums: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlexTrace:
    """What the array does with its beats; `counts` by (component, action, variant)."""

    results: FlexResults
    passage: SlotPassage
    counts: dict[tuple[str, str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlexProduct:
    """A product as passes: jobs, the beats of each, and the output of each of its clusters."""

    jobs: tuple[FlexJob, ...]
    beats: tuple[FlexBeats, ...]
    outputs: tuple[Ints, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stationary:
    """What the multipliers of a pass hold, [multipliers] each."""

    active: Bools
    value: Ints
    cluster: Ints
    position: Ints


def beat_slots(job: FlexJob) -> BeatSlots:
    """Return the slots of a job's beats: loads, vectors, and sums `latency` slots after those."""
    vectors = job.loads + np.arange(job.vectors)
    return BeatSlots(side=vectors, top=np.arange(job.loads), out=vectors + job.arch.latency)


def _stationary(job: FlexJob, value: Ints, cluster: Ints, position: Ints) -> _Stationary:
    """Place a pass's non-zeros; `value` and `cluster` are the last beat held, then the loads."""
    arch, size = job.arch, job.arch.peak_macs_per_cycle
    inside = job.start % arch.loads_per_cycle
    skipped = inside or arch.loads_per_cycle
    place = (job.start + np.arange(job.nonzeros)) % size
    active, *held = np.zeros(size, np.bool_), *np.zeros((3, size), np.int64)
    active[place] = True
    for target, source in zip(held, (value[skipped:], cluster[skipped:], position), strict=True):
        target[place] = source[: job.nonzeros]
    return _Stationary(active=active, value=held[0], cluster=held[1], position=held[2])


def _lanes(first: Ints, last: Ints) -> Ints:
    """Return the lane of each cluster, multipliers `first` to `last`.

    Adder i, between multipliers i and i + 1, is on level ctz(i + 1) of the tree; the topmost one
    of a cluster is the number in (first, last] with most trailing zeros, less 1.
    """
    bit = np.frexp(first ^ last)[1] - 1
    return np.where(first == last, first, (last >> np.maximum(bit, 0) << np.maximum(bit, 0)) - 1)


def _sums(held: _Stationary, products: Ints) -> FlexResults:
    """Sum `products`, [vectors, multipliers], over neighbours of the same cluster."""
    neighbours = held.active[1:] & held.active[:-1] & (held.cluster[1:] == held.cluster[:-1])
    first = np.flatnonzero(held.active & ~np.concatenate([[False], neighbours]))
    last = np.flatnonzero(held.active & ~np.concatenate([neighbours, [False]]))
    lanes = _lanes(first, last)
    there = np.zeros(products.shape, np.bool_)
    cluster, sums = np.zeros((2, *products.shape), np.int64)
    there[:, lanes], cluster[:, lanes] = True, held.cluster[first]
    sums[:, lanes] = np.add.reduceat(products, first, axis=1)
    return FlexResults(there=there, cluster=cluster, sums=sums)


def _checked(jobs: Sequence[FlexJob], beats: Sequence[FlexBeats]) -> None:
    if not jobs or len(jobs) != len(beats) or any(job.arch != jobs[0].arch for job in jobs):
        raise ValueError(f"Need one set of beats for each of one array's jobs, not {len(beats)}")
    for job, each in zip(jobs, beats, strict=True):
        load = (job.loads, job.arch.loads_per_cycle)
        wanted = {
            "value": load,
            "cluster": load,
            "side": (job.vectors, job.arch.dpe_size),
            "position": (job.nonzeros,),
        }
        for name, shape in wanted.items():
            found = getattr(each, name).shape
            if found != shape:
                raise ValueError(f"Beats need {name} {list(shape)}, not {list(found)}")


def _joined(parts: Sequence[FlexResults]) -> FlexResults:
    return FlexResults(
        there=np.concatenate([part.there for part in parts]),
        cluster=np.concatenate([part.cluster for part in parts]),
        sums=np.concatenate([part.sums for part in parts]),
    )


def run_sequence(
    jobs: Sequence[FlexJob], beats: Sequence[FlexBeats], stalls: SlotStalls | None = None
) -> FlexTrace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Without `stalls` nothing holds the array. Raises ValueError for no jobs, jobs of different
    arrays, or beats or delays that do not match.
    """
    _checked(jobs, beats)
    width, full, parts = jobs[0].arch.loads_per_cycle, 0, []
    value, cluster = np.zeros((2, width), np.int64)
    for job, each in zip(jobs, beats, strict=True):
        value = np.concatenate([value[-width:], each.value.ravel()])
        cluster = np.concatenate([cluster[-width:], each.cluster.ravel()])
        held = _stationary(job, value, cluster, each.position)
        moving = np.where(held.active, each.side[:, held.position].astype(np.int64), 0)
        parts.append(_sums(held, moving * held.value))
        full += int(np.count_nonzero(moving))
    results = _joined(parts)
    counts = {
        ("mac", "int8", "full"): full,
        ("mac", "int8", "gated"): sum(job.vectors * job.nonzeros for job in jobs) - full,
        ("side", "beat", "full"): sum(job.vectors for job in jobs),
        ("top", "beat", "full"): sum(job.loads for job in jobs),
        ("out", "beat", "full"): len(results.there),
        ("out", "lane", "full"): int(np.count_nonzero(results.there)),
    }
    passage = pass_jobs(jobs, beat_slots, stalls)
    return FlexTrace(results=results, passage=passage, counts=counts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Order:
    """Non-zeros in order of the ring, by `vector` and `position`; passes are `starts` to `ends`."""

    vector: Ints
    position: Ints
    starts: Ints
    ends: Ints

    @property
    def begins(self) -> Bools:
        """Where a cluster begins: with another vector, or another pass."""
        begins: Bools = np.diff(self.vector, prepend=-1) != 0
        begins[self.starts] = True
        return begins

    def drains(self, size: int) -> Bools:
        """Tell after which passes the tree drains: the next one reaches into another array-full."""
        following = -(-self.starts[1:] // size) * size < self.ends[1:]
        return np.append(following, [True] * bool(self.starts.size))


def _ordered(arch: FlexDpe, mask: Bools) -> _Order:
    vector, position = np.nonzero(mask)
    slices = position // arch.dpe_size
    order = np.lexsort((position, vector, slices))
    slices = slices[order]
    rank = np.arange(order.size) - np.searchsorted(slices, slices)
    starts = np.flatnonzero(rank % arch.peak_macs_per_cycle == 0)
    ends = np.append(starts, order.size)[1:]
    return _Order(vector=vector[order], position=position[order], starts=starts, ends=ends)


def _in_loads(arch: FlexDpe, values: NDArray[Any]) -> NDArray[Any]:
    width = arch.loads_per_cycle
    return np.pad(values, (0, -values.size % width)).reshape(-1, width)


def pack_product(
    arch: FlexDpe, stationary: NDArray[np.int8], mask: Bools, moving: NDArray[np.int8]
) -> FlexProduct:
    """Return the passes of moving int8[vectors, k] by stationary int8[outputs, k] where `mask`.

    Raises ValueError for operands or a mask that do not fit each other.
    """
    if mask.dtype != np.bool_ or mask.shape != stationary.shape:
        raise ValueError(
            f"The mask must be bool{list(stationary.shape)}, not {mask.dtype}{list(mask.shape)}"
        )
    if moving.ndim != 2 or moving.shape[1] != mask.shape[1]:
        raise ValueError(f"Vectors must have {mask.shape[1]} positions, not {list(moving.shape)}")
    width, deep = arch.loads_per_cycle, arch.dpe_size
    order = _ordered(arch, mask)
    begins = order.begins
    cluster = np.cumsum(begins) - 1
    cluster -= np.repeat(cluster[order.starts], order.ends - order.starts)
    value_loads = _in_loads(arch, stationary[order.vector, order.position])
    cluster_loads = _in_loads(arch, cluster)
    streamed = np.pad(moving, ((0, 0), (0, -moving.shape[1] % deep)))
    jobs, beats, outputs = [], [], []
    passes = (order.starts, order.ends, order.drains(arch.peak_macs_per_cycle))
    for start, end, drain in zip(*(each.tolist() for each in passes), strict=True):
        loads = slice(-(-start // width), -(-end // width))
        first = int(order.position[start]) // deep * deep
        job = FlexJob(
            arch=arch,
            start=start % arch.peak_macs_per_cycle,
            nonzeros=end - start,
            vectors=len(moving),
            drain=drain,
        )
        beat = FlexBeats(
            value=value_loads[loads],
            cluster=cluster_loads[loads],
            side=streamed[:, first : first + deep],
            position=order.position[start:end] - first,
        )
        jobs.append(job)
        beats.append(beat)
        outputs.append(order.vector[start:end][begins[start:end]])
    return FlexProduct(jobs=tuple(jobs), beats=tuple(beats), outputs=tuple(outputs))


def unpack_product(product: FlexProduct, results: FlexResults, outputs: int) -> Ints:
    """Return int64[vectors, outputs], the sums of all passes of a product, wrapped nowhere."""
    vectors = product.jobs[0].vectors
    out = np.zeros((vectors, outputs), np.int64)
    for index, names in enumerate(product.outputs):
        beats = slice(index * vectors, (index + 1) * vectors)
        row, lane = np.nonzero(results.there[beats])
        cluster = results.cluster[beats][row, lane]
        np.add.at(out, (row, names[cluster]), results.sums[beats][row, lane])
    return out
