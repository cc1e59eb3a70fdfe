"""The tiling space of the NMArray and a lower bound for every point of it, vectorised.

Tile sizes are equal splits of each dimension in the array's quanta: R * I rows of m for OS, C of n
for OS and WS, C of m for IS, R * M of k for WS and IS, one image row for a convolution's m. A
dimension is split in 1, 2, 3, 4, 6, 8, 12, 16, 24 ... parts; every combination with every loop
order is a candidate if its tiles fit the buffers. A tile of several outer units holds all their
rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mapping.problem import Problem, TileShape
from simulator.arch import BufferParams, Dataflow, DramParams, MemoryMode, NMArray
from simulator.arch.nm_job import (
    fold_interval,
    fold_rows,
    load_slots,
    overhead_slots,
    stream_slots,
)
from simulator.nm_tile import NMSetting, kept_values, tile_job

__all__ = [
    "ORDERS",
    "STREAMED",
    "Candidates",
    "Measured",
    "Tiles",
    "all_tiles",
    "array_dims",
    "array_of",
    "array_terms",
    "candidates",
    "distinct",
    "elements",
    "end_elements",
    "extreme_tiles",
    "fitting",
    "least_needs",
    "measured",
    "moved",
    "part_sums",
    "quanta",
    "repeats",
    "settings",
    "split_counts",
    "tile_sizes",
    "tiles_of",
    "trip_counts",
    "whole_array_cycles",
    "whole_cycles",
]

Ints = NDArray[np.int64]

ORDERS: Final = ("umn", "unm", "num")
"""Loop orders around the reduction, from the outside in."""

_LEVELS: Final = {
    index: np.array([(*order, "k").index(index) for order in ORDERS]) for index in "umnk"
}
"""How far in the loop of an index is, by order."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tile shapes as columns, with the trip count of each tile loop."""

    units: Ints
    m: Ints
    k: Ints
    n: Ints
    order: Ints  # index into ORDERS
    count_u: Ints
    count_m: Ints
    count_k: Ints
    count_n: Ints

    def take(self, index: NDArray[np.intp]) -> "Tiles":
        return Tiles(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Candidates:
    """Legal tiles under one setting, by ascending lower bound."""

    tiles: Tiles
    bound: Ints | NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.bound)

    def shape(self, index: int) -> TileShape:
        """Return candidate `index` as a tile shape."""
        t = self.tiles
        sizes = {name: int(getattr(t, name)[index]) for name in ("units", "m", "k", "n")}
        return TileShape(**sizes, order=ORDERS[t.order[index]])


@dataclass(frozen=True, slots=True)
class Measured:
    """Tiles, and what they come to whatever the buffers' capacity and the memory's speed.

    Bytes needed by buffer, array cycles, bytes moved in all, and bytes of the first tile's
    operands and of the last tile's results.
    """

    tiles: Tiles
    needs: Mapping[str, Ints]
    array: Ints
    traffic: Ints
    ends: tuple[Ints, ...]


@lru_cache(maxsize=64)
def array_of(arch: NMArray) -> NMArray:
    """Return `arch` with everything beside its array at its least."""
    least = BufferParams(capacity_bytes=1)
    return replace(
        arch,
        clock_hz=1,
        vector_lanes=1,
        act_buffer=least,
        weight_buffer=least,
        out_buffer=least,
        dram=DramParams(bandwidth_bytes_per_s=1),
        memory=MemoryMode.MODELLED,
        training=None,
    )


def settings(arch: NMArray, problem: Problem) -> tuple[NMSetting, ...]:
    """Return the array settings to try: dataflows, storage formats and group lengths.

    Weights the array can skip by may also be stored and run dense, which a short reduction can
    make the faster choice. A dense OS group of macs_per_pe positions wastes nothing; a dense WS
    or IS PE may hold any m' <= M positions, of which the shortest for each number of reduction
    folds is kept.
    """
    flows = (arch.dataflow,) if arch.dataflow else tuple(Dataflow)
    shape = arch.rows, arch.max_m, arch.macs_per_pe
    return _settings(flows, shape, problem.compressed, problem.gemm.k)


@lru_cache(maxsize=1024)
def _settings(
    flows: tuple[Dataflow, ...],
    shape: tuple[int, int, int],
    compressed: tuple[int, int] | None,
    k: int,
) -> tuple[NMSetting, ...]:
    rows, max_m, macs_per_pe = shape
    found = []
    for flow in flows:
        if compressed:
            kept, group = compressed
            found.append(NMSetting(dataflow=flow, kept=kept, group=group, indexed=True))
        groups = [macs_per_pe]
        if flow is not Dataflow.OS:
            folds = {-(-k // (rows * g)): g for g in range(max_m, 0, -1)}
            groups = sorted(folds.values())
        found += [NMSetting(dataflow=flow, kept=g, group=g, indexed=False) for g in groups]
    return tuple(found)


Quanta = tuple[int, int, int]


def quanta(arch: NMArray, s: NMSetting) -> Quanta:
    """Return the sizes of m, k and n of which tiles are whole multiples."""
    match s.dataflow:
        case Dataflow.OS:
            return fold_rows(arch), s.group, arch.cols
        case Dataflow.WS:
            return 1, arch.rows * s.group, arch.cols
        case Dataflow.IS:
            return arch.cols, arch.rows * s.group, 1


def split_counts(limit: int) -> list[int]:
    """Return the numbers of parts to try, up to `limit`: 1, 2, 3, 4, 6, 8, 12, 16, 24 ..."""
    return sorted({min(p << e, limit) for p in (2, 3) for e in range(limit.bit_length())} | {1})


def _sizes(extent: int, quantum: int) -> Ints:
    """Return the tile sizes that split `extent` into equal parts of whole quanta."""
    units = -(-extent // quantum)
    sizes = {min(-(-units // part) * quantum, extent) for part in split_counts(units)}
    return np.array(sorted(sizes), dtype=np.int64)


def _row_sizes(p: Problem, extent: int) -> Ints:
    """Return tile sizes in whole image rows: parts that divide an image, or whole images.

    Within an image any number of rows will do, unless several images follow each other along
    the dimension: then a part must divide the image, lest a tile straddle two.
    """
    assert p.window is not None
    image = p.window.out[0] * p.row
    inside = _sizes(min(image, extent), p.row)
    if extent <= image:
        return inside
    return np.concatenate([inside[image % inside == 0][:-1], _sizes(extent, image)])


def tile_sizes(p: Problem, steps: Quanta) -> dict[str, Ints]:
    """Return the tile sizes to try by dimension, ascending; several units go with a whole m."""
    qm, qk, qn = steps
    extents = {"m": (p.unit_m, qm), "k": (p.gemm.k, qk), "n": (p.gemm.n, qn), "u": (p.units, 1)}
    return {
        name: _row_sizes(p, extent) if p.rowed == name else _sizes(extent, quantum)
        for name, (extent, quantum) in extents.items()
    }


def all_tiles(p: Problem, steps: Quanta, *, every: int = 1) -> Tiles:
    """Return every tile shape of the space, legal or not.

    With `every` above 1 only every so many sizes of a dimension are taken, its largest included.
    """
    sizes = {
        name: found[(len(found) - 1) % every :: every]
        for name, found in tile_sizes(p, steps).items()
    }
    orders = np.arange(len(ORDERS))
    columns = _product((np.ones(1, np.int64), sizes["m"], sizes["k"], sizes["n"], orders))
    if p.units > 1:  # several units, of which a tile holds all rows
        whole_m, units = np.array([p.unit_m]), sizes["u"][sizes["u"] > 1]
        many = _product((units, whole_m, sizes["k"], sizes["n"], orders))
        columns = [np.concatenate(pair) for pair in zip(columns, many, strict=True)]
    return distinct(p, tiles_of(p, *columns))


def tiles_of(p: Problem, units: Ints, m: Ints, k: Ints, n: Ints, order: Ints) -> Tiles:
    """Return tiles of these sizes and orders (indices into ORDERS), with their trip counts."""
    sizes = (units, m, k, n)
    extents = (p.units, p.unit_m, p.gemm.k, p.gemm.n)
    counts = [-(-extent // size) for extent, size in zip(extents, sizes, strict=True)]
    return Tiles(*sizes, order, *counts)


def _product(axes: Sequence[Ints]) -> list[Ints]:
    """Return the Cartesian product of `axes` as columns, the last one running fastest."""
    columns, before, behind = [], 1, math.prod(map(len, axes))
    for axis in axes:
        behind //= len(axis)
        column = np.empty((before, len(axis), behind), dtype=np.int64)
        column[...] = axis[:, None]
        columns.append(column.ravel())
        before *= len(axis)
    return columns


def extreme_tiles(p: Problem) -> Tiles:
    """Return the whole problem as one tile, and cut into single image rows.

    Of everything a tiling moves one of the two moves least: overlapping windows are fetched once
    by the first, rows that no window reaches are not stored by the second.
    """
    w = p.whole
    rows = {"m": w.m, "n": w.n, p.rowed: p.row}
    sizes = ((w.units, w.units), (w.m, rows["m"]), (w.k, w.k), (w.n, rows["n"]), (0, 0))
    return tiles_of(p, *(np.array(pair, dtype=np.int64) for pair in sizes))


def distinct(p: Problem, t: Tiles) -> Tiles:
    """Return the tiles whose order is a loop nest of its own.

    Units only move inside n where they share its weights. Sums scattered into image rows stay in
    the buffer over n (or m, transposed), which is then the innermost loop.
    """
    innermost = "m" if p.indices["out"] == "un" else "n"
    own: NDArray[np.bool_] = t.order == ORDERS.index("unm" if innermost == "m" else "umn")
    if p.indices["out"] == "umn":
        inside = (t.order == 1) & (t.count_m > 1) & (t.count_n > 1)
        across = (t.order == 2) & (t.count_u > 1) & (t.count_n > 1) & p.shared_weights
        own |= inside | across
    return t.take(np.flatnonzero(own))


def part_sums(extent: Ints, size: Ints, fold: int) -> tuple[Ints, Ints]:
    """Return (tiles, folds) along a dimension: tile count, and the sum of ceil(tile / fold)."""
    full, rest = np.divmod(extent, size)
    return full + (rest > 0), full * -(-size // fold) - (-rest // fold)


def array_dims(
    arch: NMArray, s: NMSetting, p: Problem, t: Tiles
) -> tuple[Ints, Ints, dict[str, tuple[Ints, Ints, int]]]:
    """Return what the array sees of a tile: (jobs, groups, {dimension: (extent, tile, fold)}).

    Groups stay apart; several images join to one longer m.
    """
    wide = p.shared_weights & (t.units > 1)
    m_extent = np.where(wide, p.units, 1) * p.unit_m
    jobs = np.where(wide, 1, -(-p.units // t.units))
    groups = np.where(wide, 1, p.units)
    rows = fold_rows(arch) if s.dataflow is Dataflow.OS else arch.cols
    dims = {
        "m": (m_extent, np.where(wide, t.units, 1) * t.m, rows),
        "k": (np.full_like(t.k, p.gemm.k), t.k, arch.rows * s.group),
        "n": (np.full_like(t.n, p.gemm.n), t.n, arch.cols),
    }
    return jobs, groups, dims


STREAMED: Final = {Dataflow.OS: "k", Dataflow.WS: "m", Dataflow.IS: "n"}
"""The dimension that streams through the array during a fold."""


def array_terms(arch: NMArray, s: NMSetting, p: Problem, t: Tiles) -> tuple[Ints, Ints]:
    """Return two parts of each candidate's array cycles, over full and ragged tiles: (jobs, folds).

    A job takes load + stream + skew for its first fold and `interval` for each further one; only
    the streamed dimension enters these, so the other two contribute tile and fold counts alone.
    """
    jobs, groups, dims = array_dims(arch, s, p, t)
    streamed = STREAMED[s.dataflow]
    extent, size, _ = dims.pop(streamed)
    (tiles_a, folds_a), (tiles_b, folds_b) = (part_sums(*dim) for dim in dims.values())
    tiles, folds = jobs * tiles_a * tiles_b, groups * folds_a * folds_b
    load = load_slots(arch, s.dataflow, s.kept, s.group)
    full, rest = np.divmod(extent, size)
    beyond, steady = np.zeros_like(extent), np.zeros_like(extent)
    for count, part in ((full, size), (np.sign(rest), rest)):
        length = -(-part // s.group) if streamed == "k" else part
        stream = stream_slots(arch, s.dataflow, s.kept, length)
        interval = fold_interval(arch, s.dataflow, load, stream)
        first = load + stream + overhead_slots(arch, s.dataflow)
        beyond += count * (first - interval)
        steady += count * interval
    return tiles * beyond, folds * steady


def _array_cycles(arch: NMArray, s: NMSetting, p: Problem, t: Tiles) -> Ints:
    """Return the exact array cycles of each candidate."""
    jobs, folds = array_terms(arch, s, p, t)
    return jobs + folds


def _dma(arch: NMArray, size: Ints) -> Ints:
    """Return the DMA cycles of transfers of `size` bytes."""
    return -(-size * arch.clock_hz // arch.dram.bandwidth_bytes_per_s)


def _bytes(arch: NMArray, s: NMSetting, elements: Ints, operand: str) -> Ints:
    """Return the bytes of `elements` as stored in memory, rounded up."""
    bits = arch.operand_bits + (s.index_bits if operand == "weight" else 0)
    return -(-elements * bits // 8)


def elements(p: Problem, s: NMSetting, t: Tiles) -> dict[str, Ints]:
    """Return the elements of a full tile of each operand in its buffer, kept tensors apart."""
    act = p.act_elements(t.units, t.m, t.k)
    return {
        "act": np.zeros_like(act) if p.kept_in else act,
        "weight": p.weight_values(s, t.units, t.k, t.n),
        "out": p.out_elements(t.units, t.m, t.n),
    }


def trip_counts(t: Tiles) -> dict[str, Ints]:
    """Return the trip count of each tile loop."""
    return {"u": t.count_u, "m": t.count_m, "n": t.count_n, "k": t.count_k}


def repeats(t: Tiles, indices: str) -> Ints:
    """Return how often each tile of an operand that changes with `indices` is fetched.

    A loop of another index fetches it all again if a loop further in changes the tile.
    """
    counts = trip_counts(t)
    levels = {index: _LEVELS[index][t.order] for index in counts}
    last = np.maximum.reduce([np.where(counts[i] > 1, levels[i], -1) for i in indices])
    times = np.ones_like(t.count_u)
    for index in counts.keys() - set(indices):
        times = times * np.where(levels[index] < last, counts[index], 1)
    return times


def _summed(extent: int, size: Ints, per_tile: Callable[[Ints], Ints]) -> Ints:
    """Return the sum of `per_tile` over the tiles of one dimension."""
    full, rest = np.divmod(np.full_like(size, extent), size)
    return full * per_tile(size) + np.where(rest > 0, per_tile(np.maximum(rest, 1)), 0)


def moved(p: Problem, s: NMSetting, t: Tiles) -> dict[str, Ints]:
    """Return the elements the DMA moves of each operand, repeated fetches apart.

    They are never more than it will move. Kept activations do not move, kept results do: into
    another buffer.
    """
    none, out = np.zeros_like(t.m), _results(p, t)
    found = {
        "act": none if p.kept_in else _fetched(p, t),
        "weight": none + p.weight_values(s, p.units, p.gemm.k, p.gemm.n),
        "out": out,
    }
    return found | ({"saved": out} if p.saved else {})


def _fetched(p: Problem, t: Tiles) -> Ints:
    """Return the activations of all tiles, never more than there are."""
    each = np.full_like(t.m, p.units)
    if p.rowed == "k":
        return _summed(p.gemm.k, t.k, lambda k: p.act_elements(each, t.m, np.maximum(k, p.row)))
    # Windows depend on m alone; a plain product's elements add up to the whole.
    k, least_m = np.full_like(t.k, p.gemm.k), p.row if p.rowed == "m" else 1
    return _summed(p.unit_m, t.m, lambda m: p.act_elements(each, np.maximum(m, least_m), k))


def _results(p: Problem, t: Tiles) -> Ints:
    """Return the results that leave the output buffer, never more than will."""
    each = np.full_like(t.m, p.units)
    if p.rowed == "n":
        return _summed(p.gemm.n, t.n, lambda n: p.stored_elements(each, t.m, np.maximum(n, p.row)))
    n, least_m = np.full_like(t.n, p.gemm.n), p.row if p.rowed == "m" else 1
    return _summed(p.unit_m, t.m, lambda m: p.stored_elements(each, np.maximum(m, least_m), n))


def _traffic(arch: NMArray, p: Problem, s: NMSetting, t: Tiles) -> Ints:
    """Return the bytes the DMA moves for each candidate, never more than it will."""
    total = np.zeros_like(t.m)
    for operand, number in moved(p, s, t).items():
        bits = arch.operand_bits + (s.index_bits if operand == "weight" else 0)
        times = repeats(t, p.indices[operand]) if operand in ("act", "weight") else 1
        total = total + number * bits // 8 * times
    return total


def _needs(arch: NMArray, p: Problem, s: NMSetting, t: Tiles) -> dict[str, Ints]:
    """Return the buffer bytes needed: a tile, twice where the operand is fetched repeatedly.

    Kept tensors lie in the activation buffer as a whole.
    """
    counts = trip_counts(t)
    needs = {}
    for operand, number in elements(p, s, t).items():
        moves = np.logical_or.reduce([counts[i] > 1 for i in p.indices[operand]])
        size = number * arch.acc_bits // 8
        if operand != "out":
            size = _bytes(arch, s, number, operand)
        elif p.saved:
            size = size + _bytes(arch, s, number, "saved")
        needs[f"{operand}_buffer"] = size * (1 + moves)
    needs["act_buffer"] = needs["act_buffer"] + p.kept_bytes
    return needs


def _bound(arch: NMArray, known: Measured) -> Ints:
    """Return a lower bound on the cycles of each candidate.

    The array cannot start before its first operands are there nor the last store before the
    array is done; and all transfers share one DMA. Steady memory knows no first and last.
    """
    alone = known.array
    if arch.memory is not MemoryMode.STEADY:
        alone = alone + arch.dram.latency_cycles + sum(_dma(arch, size) for size in known.ends)
    bound: Ints = np.maximum(alone, _dma(arch, known.traffic))
    return bound


def end_elements(p: Problem, s: NMSetting, t: Tiles) -> dict[str, Ints]:
    """Return the elements of the first tile's operands and of the last tile's results."""
    last = [
        np.where(extent % size, extent % size, size)
        for extent, size in ((p.units, t.units), (p.unit_m, t.m), (p.gemm.n, t.n))
    ]
    return {**elements(p, s, t), "out": p.stored_elements(*last)}


def whole_array_cycles(arch: NMArray, setting: NMSetting, problem: Problem) -> int:
    """Return the array cycles of the problem as one tile: no tiling of it takes fewer."""
    return tile_job(arch, setting, problem.array_tile(problem.whole)).slots


@lru_cache(maxsize=1024)
def _least_moved(p: Problem) -> tuple[int, int, int]:
    """Return the fewest (activations, weight columns, results) any tiling moves, all units."""
    w = p.whole
    rows = {"m": w.m, "n": w.n, p.rowed: p.row}
    cuts = w.m // rows["m"] * (w.n // rows["n"])
    stored = (
        p.stored_elements(w.units, w.m, w.n),
        p.stored_elements(w.units, rows["m"], rows["n"]) * cuts,
    )
    columns = w.n if p.shared_weights else w.units * w.n
    act = 0 if p.kept_in else p.act_elements(w.units, w.m, w.k)
    return act, columns, min(stored)


@lru_cache(maxsize=4096)
def _whole(array: NMArray, p: Problem) -> list[tuple[int, int]]:
    """Return array cycles and bytes under every setting: all folds, all data once."""
    act, columns, out = _least_moved(p)
    tile = p.array_tile(p.whole)
    overhead = {flow: overhead_slots(array, flow) for flow in Dataflow}
    m_folds, n_folds = -(-tile.m // array.cols), -(-tile.n // array.cols)
    floors = []
    for s in settings(array, p):
        k_folds = -(-tile.k // (array.rows * s.group))
        match s.dataflow:
            case Dataflow.OS:
                folds, length = -(-tile.m // fold_rows(array)) * n_folds, -(-tile.k // s.group)
            case Dataflow.WS:
                folds, length = k_folds * n_folds, tile.m
            case Dataflow.IS:
                folds, length = k_folds * m_folds, tile.n
        load = load_slots(array, s.dataflow, s.kept, s.group)
        stream = stream_slots(array, s.dataflow, s.kept, length)
        further = (tile.groups * folds - 1) * fold_interval(array, s.dataflow, load, stream)
        weights = (array.operand_bits + s.index_bits) * columns * kept_values(s, tile.k)
        size = -(-(array.operand_bits * (act + out) + weights) // 8)
        floors.append((load + stream + overhead[s.dataflow] + further, size))
    return floors


def whole_cycles(arch: NMArray, p: Problem) -> list[int]:
    """Return under every setting cycles no tiling takes fewer of: all folds, all data once."""
    rate, per_second = arch.clock_hz, arch.dram.bandwidth_bytes_per_s
    known = _whole(array_of(arch), p)
    return [max(array, -(-size * rate // per_second)) for array, size in known]


def measured(arch: NMArray, s: NMSetting, p: Problem, tiles: Tiles) -> Measured:
    """Return what `tiles` come to on every machine with the array of `arch`."""
    ends = end_elements(p, s, tiles).items()
    return Measured(
        tiles=tiles,
        needs=_needs(arch, p, s, tiles),
        array=_array_cycles(arch, s, p, tiles),
        traffic=_traffic(arch, p, s, tiles),
        ends=tuple(_bytes(arch, s, number, operand) for operand, number in ends),
    )


def fitting(arch: NMArray, known: Measured) -> Candidates:
    """Return the tiles that fit the buffers, by ascending lower bound, then bytes."""
    order = np.lexsort((known.traffic, bound := _bound(arch, known)))
    order = order[_fits(arch, known.needs)[order]]
    return Candidates(known.tiles.take(order), bound[order])


def candidates(
    arch: NMArray, setting: NMSetting, problem: Problem, tiles: Tiles | None = None
) -> Candidates:
    """Return the legal ones of `tiles` (all by default), by ascending lower bound, then bytes."""
    tiles = tiles or all_tiles(problem, quanta(arch, setting))
    legal = np.flatnonzero(_fits(arch, _needs(arch, problem, setting, tiles)))
    return fitting(arch, measured(arch, setting, problem, tiles.take(legal)))


def _fits(arch: NMArray, needs: Mapping[str, Ints]) -> NDArray[np.bool_]:
    fits: NDArray[np.bool_] = np.logical_and.reduce(
        [need <= _capacity(arch, name) for name, need in needs.items()]
    )
    return fits


def least_needs(arch: NMArray, setting: NMSetting, problem: Problem) -> dict[str, tuple[int, int]]:
    """Return {buffer: (bytes the least demanding tile needs, bytes there are)}."""
    needs = _needs(arch, problem, setting, all_tiles(problem, quanta(arch, setting)))
    return {name: (int(need.min()), _capacity(arch, name)) for name, need in needs.items()}


def _capacity(arch: NMArray, name: str) -> int:
    buffer: BufferParams = getattr(arch, name)
    return buffer.capacity_bytes
