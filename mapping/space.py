"""The tiling space of the NMArray and a lower bound for every point of it, vectorised.

Tile sizes are equal splits of each dimension in the array's quanta: R * I rows of m for OS, C of n
for OS and WS, C of m for IS, R * M of k for WS and IS, one image row for a convolution's m. A
dimension is split in 1, 2, 3, 4, 6, 8, 12, 16, 24 ... parts; every combination with every loop
order is a candidate if its tiles fit the buffers. A tile of several outer units holds all their
rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mapping.problem import Problem, TileShape
from simulator.arch import BufferParams, Dataflow, NMArray
from simulator.arch.nm_job import (
    fold_interval,
    fold_rows,
    load_slots,
    overhead_slots,
    stream_slots,
)
from simulator.nm_tile import NMSetting, tile_job

__all__ = [
    "Candidates",
    "candidates",
    "least_needs",
    "settings",
    "split_counts",
    "whole_array_cycles",
]

Ints = NDArray[np.int64]

ORDERS: Final = ("umn", "unm", "num")
"""Loop orders around the reduction, from the outside in."""


@dataclass(frozen=True, slots=True)
class _Tiles:
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

    def take(self, index: NDArray[np.intp]) -> "_Tiles":
        return _Tiles(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Candidates:
    """Legal tiles under one setting, by ascending lower bound."""

    tiles: _Tiles
    bound: Ints

    def __len__(self) -> int:
        return len(self.bound)

    def shape(self, index: int) -> TileShape:
        """Return candidate `index` as a tile shape."""
        t = self.tiles
        sizes = {name: int(getattr(t, name)[index]) for name in ("units", "m", "k", "n")}
        return TileShape(**sizes, order=ORDERS[t.order[index]])


def settings(arch: NMArray, problem: Problem) -> list[NMSetting]:
    """Return the array settings to try: dataflows, storage formats and group lengths.

    Weights the array can skip by may also be stored and run dense, which a short reduction can
    make the faster choice. A dense OS group of macs_per_pe positions wastes nothing; a dense WS
    or IS PE may hold any m' <= M positions, of which the shortest for each number of reduction
    folds is kept.
    """
    found = []
    for flow in [arch.dataflow] if arch.dataflow else list(Dataflow):
        if problem.compressed:
            kept, group = problem.compressed
            found.append(NMSetting(dataflow=flow, kept=kept, group=group, indexed=True))
        groups = [arch.macs_per_pe]
        if flow is not Dataflow.OS:
            folds = {-(-problem.gemm.k // (arch.rows * g)): g for g in range(arch.max_m, 0, -1)}
            groups = sorted(folds.values())
        found += [NMSetting(dataflow=flow, kept=g, group=g, indexed=False) for g in groups]
    return found


def _quanta(arch: NMArray, s: NMSetting) -> tuple[int, int, int]:
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


def _tiles(arch: NMArray, s: NMSetting, p: Problem) -> _Tiles:
    """Return every tile shape of the space, legal or not."""
    qm, qk, qn = _quanta(arch, s)
    sizes_m = _row_sizes(p, p.unit_m) if p.rowed == "m" else _sizes(p.unit_m, qm)
    sizes_k = _row_sizes(p, p.gemm.k) if p.rowed == "k" else _sizes(p.gemm.k, qk)
    sizes_n = _row_sizes(p, p.gemm.n) if p.rowed == "n" else _sizes(p.gemm.n, qn)
    axes = (np.ones(1, np.int64), sizes_m, sizes_k, sizes_n, np.arange(len(ORDERS)))
    grids = [np.meshgrid(*axes, indexing="ij")]
    if p.units > 1:  # several units, of which a tile holds all rows
        many = (_sizes(p.units, 1)[1:], np.array([p.unit_m]), *axes[2:])
        grids.append(np.meshgrid(*many, indexing="ij"))
    columns = [np.concatenate([g[i].ravel() for g in grids]) for i in range(len(axes))]
    extents = (p.units, p.unit_m, p.gemm.k, p.gemm.n)
    counts = [-(-extent // size) for extent, size in zip(extents, columns, strict=False)]
    tiles = _Tiles(*columns, *counts)
    return tiles.take(np.flatnonzero(_distinct(p, columns[-1], *counts)))


def _distinct(p: Problem, order: Ints, u: Ints, m: Ints, _k: Ints, n: Ints) -> NDArray[np.bool_]:
    """Return which orders are loop nests of their own, for the trip counts u, m and n.

    Units only move inside n where they share its weights. Sums scattered into image rows stay in
    the buffer over n (or m, transposed), which is then the innermost loop.
    """
    innermost = "m" if p.indices["out"] == "un" else "n"
    distinct: NDArray[np.bool_] = order == ORDERS.index("unm" if innermost == "m" else "umn")
    if p.indices["out"] != "umn":
        return distinct
    inside = (order == 1) & (m > 1) & (n > 1)
    across = (order == 2) & (u > 1) & (n > 1) & p.shared_weights
    distinct |= inside | across
    return distinct


def _sums(extent: Ints, size: Ints, fold: int) -> tuple[Ints, Ints]:
    """Return (tiles, folds) along a dimension: tile count, and the sum of ceil(tile / fold)."""
    full, rest = np.divmod(extent, size)
    return full + (rest > 0), full * -(-size // fold) - (-rest // fold)


def _array_cycles(arch: NMArray, s: NMSetting, p: Problem, t: _Tiles) -> Ints:
    """Return the exact array cycles of each candidate, summed over full and ragged tiles.

    A job takes load + stream + skew for its first fold and `interval` for each further one; only
    the streamed dimension enters these, so the other two contribute tile and fold counts alone.
    """
    wide = p.shared_weights & (t.units > 1)  # several images: the array sees one longer m
    m_extent = np.where(wide, p.units, 1) * p.unit_m
    jobs = np.where(wide, 1, -(-p.units // t.units))
    groups = np.where(wide, 1, p.units)
    dims = {
        "m": (
            m_extent,
            np.where(wide, t.units, 1) * t.m,
            fold_rows(arch) if s.dataflow is Dataflow.OS else arch.cols,
        ),
        "k": (np.full_like(t.k, p.gemm.k), t.k, arch.rows * s.group),
        "n": (np.full_like(t.n, p.gemm.n), t.n, arch.cols),
    }
    streamed = {Dataflow.OS: "k", Dataflow.WS: "m", Dataflow.IS: "n"}[s.dataflow]
    extent, size, _ = dims.pop(streamed)
    (tiles_a, folds_a), (tiles_b, folds_b) = (_sums(*dim) for dim in dims.values())
    tiles, folds = jobs * tiles_a * tiles_b, groups * folds_a * folds_b
    load = load_slots(arch, s.dataflow, s.kept, s.group)
    full, rest = np.divmod(extent, size)
    total = np.zeros_like(extent)
    for count, part in ((full, size), (np.sign(rest), rest)):
        length = -(-part // s.group) if streamed == "k" else part
        stream = stream_slots(arch, s.dataflow, s.kept, length)
        interval = fold_interval(arch, s.dataflow, load, stream)
        first = load + stream + overhead_slots(arch, s.dataflow)
        total += count * (tiles * (first - interval) + folds * interval)
    return total


def _dma(arch: NMArray, size: Ints) -> Ints:
    """Return the DMA cycles of transfers of `size` bytes."""
    return -(-size * arch.clock_hz // arch.dram.bandwidth_bytes_per_s)


def _bytes(arch: NMArray, s: NMSetting, elements: Ints, operand: str) -> Ints:
    """Return the bytes of `elements` as stored in memory, rounded up."""
    bits = arch.operand_bits + (s.index_bits if operand == "weight" else 0)
    return -(-elements * bits // 8)


def _elements(p: Problem, s: NMSetting, t: _Tiles) -> dict[str, Ints]:
    """Return the elements of a full tile of each operand."""
    return {
        "act": p.act_elements(t.units, t.m, t.k),
        "weight": p.weight_values(s, t.units, t.k, t.n),
        "out": p.out_elements(t.units, t.m, t.n),
    }


def _loops(t: _Tiles) -> tuple[tuple[Ints, dict[str, NDArray[np.bool_]]], ...]:
    """Return the tile loops from the outside in: trip count, and which index each one is."""
    counts = {"u": t.count_u, "m": t.count_m, "n": t.count_n, "k": t.count_k}
    levels = []
    for level in range(len(counts)):
        name = np.array([(*order, "k")[level] for order in ORDERS])[t.order]
        here = {index: name == index for index in counts}
        levels.append((sum(counts[i] * here[i] for i in counts), here))
    return tuple(levels)


def _visits(t: _Tiles, indices: str) -> tuple[Ints, Ints]:
    """Return how often a tile changing with `indices` is fetched, and how many tiles there are."""
    visits = distinct = passed = np.ones_like(t.count_u)
    for count, is_index in _loops(t):
        changes = np.logical_or.reduce([is_index[i] for i in indices]) & (count > 1)
        passed = passed * count
        visits = np.where(changes, passed, visits)
        distinct = np.where(changes, distinct * count, distinct)
    return visits, distinct


def _summed(extent: int, size: Ints, per_tile: Callable[[Ints], Ints]) -> Ints:
    """Return the sum of `per_tile` over the tiles of one dimension."""
    full, rest = np.divmod(np.full_like(size, extent), size)
    return full * per_tile(size) + np.where(rest > 0, per_tile(np.maximum(rest, 1)), 0)


def _traffic(arch: NMArray, p: Problem, s: NMSetting, t: _Tiles) -> Ints:
    """Return the bytes each candidate moves to and from memory, never more than it will."""
    one = np.ones_like(t.m)
    each = p.units * one
    least_m = p.row if p.rowed == "m" else 1
    if p.rowed == "k":
        act = _summed(p.gemm.k, t.k, lambda k: p.act_elements(each, t.m, np.maximum(k, p.row)))
    else:
        # Windows depend on m alone; a plain product's elements add up to the whole.
        k = np.full_like(t.k, p.gemm.k)
        act = _summed(p.unit_m, t.m, lambda m: p.act_elements(each, np.maximum(m, least_m), k))
    if p.rowed == "n":
        out = _summed(p.gemm.n, t.n, lambda n: p.stored_elements(each, t.m, np.maximum(n, p.row)))
    else:
        n = np.full_like(t.n, p.gemm.n)
        out = _summed(p.unit_m, t.m, lambda m: p.stored_elements(each, np.maximum(m, least_m), n))
    weight = p.weight_values(s, p.units, p.gemm.k, p.gemm.n) * one
    total = arch.operand_bits * out // 8 * (2 if p.saved else 1)
    for operand, elements in (("act", act), ("weight", weight)):
        visits, distinct = _visits(t, p.indices[operand])
        bits = arch.operand_bits + (s.index_bits if operand == "weight" else 0)
        total = total + elements * bits // 8 * (visits // distinct)
    return total


def _needs(arch: NMArray, p: Problem, s: NMSetting, t: _Tiles) -> dict[str, Ints]:
    """Return the buffer bytes needed: a tile, twice where the operand is fetched repeatedly."""
    counts = {"u": t.count_u, "m": t.count_m, "k": t.count_k, "n": t.count_n}
    needs = {}
    for operand, elements in _elements(p, s, t).items():
        moves = np.logical_or.reduce([counts[i] > 1 for i in p.indices[operand]])
        size = elements * arch.acc_bits // 8
        if operand != "out":
            size = _bytes(arch, s, elements, operand)
        elif p.saved:
            size = size + _bytes(arch, s, elements, "saved")
        needs[f"{operand}_buffer"] = size * (1 + moves)
    return needs


def _bound(arch: NMArray, s: NMSetting, p: Problem, t: _Tiles, traffic: Ints) -> Ints:
    """Return a lower bound on the cycles of each candidate.

    The array cannot start before its first operands are there nor the last store before the
    array is done; and all transfers share one DMA.
    """
    array = _array_cycles(arch, s, p, t)
    first = _elements(p, s, t)
    last = [
        np.where(extent % size, extent % size, size)
        for extent, size in ((p.units, t.units), (p.unit_m, t.m), (p.gemm.n, t.n))
    ]
    ends = _dma(arch, _bytes(arch, s, p.stored_elements(*last), "out"))
    for operand in ("act", "weight"):
        ends = ends + _dma(arch, _bytes(arch, s, first[operand], operand))
    alone = array + ends + arch.dram.latency_cycles
    bound: Ints = np.maximum(alone, _dma(arch, traffic))
    return bound


def whole_array_cycles(arch: NMArray, setting: NMSetting, problem: Problem) -> int:
    """Return the array cycles of the problem as one tile: no tiling of it takes fewer."""
    return tile_job(arch, setting, problem.array_tile(problem.whole)).slots


def candidates(arch: NMArray, setting: NMSetting, problem: Problem) -> Candidates:
    """Return the legal tiles under `setting`, by ascending lower bound, then bytes moved."""
    tiles = _tiles(arch, setting, problem)
    needs = _needs(arch, problem, setting, tiles)
    fits = np.logical_and.reduce([need <= _capacity(arch, name) for name, need in needs.items()])
    legal = tiles.take(np.flatnonzero(fits))
    traffic = _traffic(arch, problem, setting, legal)
    bound = _bound(arch, setting, problem, legal, traffic)
    order = np.lexsort((traffic, bound))  # of equal bounds the one that moves less comes first
    return Candidates(legal.take(order), bound[order])


def least_needs(arch: NMArray, setting: NMSetting, problem: Problem) -> dict[str, tuple[int, int]]:
    """Return {buffer: (bytes the least demanding tile needs, bytes there are)}."""
    needs = _needs(arch, problem, setting, _tiles(arch, setting, problem))
    return {name: (int(need.min()), _capacity(arch, name)) for name, need in needs.items()}


def _capacity(arch: NMArray, name: str) -> int:
    buffer: BufferParams = getattr(arch, name)
    return buffer.capacity_bytes
