"""The tiling space of the NMArray and a lower bound for every point of it, vectorised.

Tile sizes are equal splits of each dimension in the array's quanta: R * I rows of m for OS, C of n
for OS and WS, C of m for IS, R * M of k for WS and IS, one image row for a convolution's m. A
dimension is split in 1, 2, 3, 4, 6, 8, 12, 16, 24 ... parts; every combination with either loop
order is a candidate if its tiles fit the buffers. Several outer units share a tile whole.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mapping.problem import Problem, TileShape, input_rows
from simulator.arch import Dataflow, NMArray
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


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tile shapes as columns, with the trip count of each tile loop."""

    units: Ints
    m: Ints
    k: Ints
    n: Ints
    m_outer: NDArray[np.bool_]
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
        return TileShape(**sizes, order="mn" if t.m_outer[index] else "nm")


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


def _quanta(arch: NMArray, s: NMSetting, p: Problem) -> tuple[int, int, int]:
    match s.dataflow:
        case Dataflow.OS:
            m, k, n = fold_rows(arch), s.group, arch.cols
        case Dataflow.WS:
            m, k, n = 1, arch.rows * s.group, arch.cols
        case Dataflow.IS:
            m, k, n = arch.cols, arch.rows * s.group, 1
    return (p.row if p.window else m), k, n


def split_counts(limit: int) -> list[int]:
    """Return the numbers of parts to try, up to `limit`: 1, 2, 3, 4, 6, 8, 12, 16, 24 ..."""
    return sorted({min(p << e, limit) for p in (2, 3) for e in range(limit.bit_length())} | {1})


def _sizes(extent: int, quantum: int) -> Ints:
    """Return the tile sizes that split `extent` into equal parts of whole quanta."""
    units = -(-extent // quantum)
    sizes = {min(-(-units // part) * quantum, extent) for part in split_counts(units)}
    return np.array(sorted(sizes), dtype=np.int64)


def _tiles(arch: NMArray, s: NMSetting, p: Problem) -> _Tiles:
    """Return every tile shape of the space, legal or not."""
    qm, qk, qn = _quanta(arch, s, p)
    orders = np.array([True, False])
    grid = np.meshgrid(
        _sizes(p.unit_m, qm), _sizes(p.gemm.k, qk), _sizes(p.gemm.n, qn), orders, indexing="ij"
    )
    m, k, n, m_outer = (axis.ravel() for axis in grid)
    units = np.ones_like(m)
    if p.units > 1:  # tiles of several whole units
        many = _sizes(p.units, 1)[1:]
        units = np.concatenate([units, many])
        whole = (p.unit_m, p.gemm.k, p.gemm.n)
        m, k, n = (
            np.concatenate([a, np.full_like(many, w)])
            for a, w in zip((m, k, n), whole, strict=True)
        )
        m_outer = np.concatenate([m_outer, np.ones(len(many), dtype=np.bool_)])
    count_m, count_n = -(-p.unit_m // m), -(-p.gemm.n // n)
    tiles = _Tiles(
        units, m, k, n, m_outer, -(-p.units // units), count_m, -(-p.gemm.k // k), count_n
    )
    # With one tile in m or n both orders are the same loop nest.
    return tiles.take(np.flatnonzero(m_outer | ((count_m > 1) & (count_n > 1))))


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


def _traffic(p: Problem, s: NMSetting, t: _Tiles) -> tuple[Ints, Ints]:
    """Return the bytes of activations and weights each candidate fetches (weights rounded down)."""
    if p.window:
        full, rest = np.divmod(p.unit_m, t.m)
        rows = full * input_rows(p.window, t.m // p.row)
        rows += np.where(rest > 0, input_rows(p.window, np.maximum(rest // p.row, 1)), 0)
        act = p.units * rows * p.window.image[1] * p.window.channels
    else:
        act = np.full_like(t.m, p.units * p.unit_m * p.gemm.k)
    weight = np.full_like(t.k, sum(p.weight_bits(s, p.units, p.gemm.k, p.gemm.n)) // 8)
    split_k = (t.count_k > 1) & (p.window is None)
    refetch_act = np.where(t.m_outer, split_k, split_k | (t.count_m > 1))
    moves = (t.count_k > 1) | (t.count_n > 1)
    refetch_weight = np.where(t.m_outer, moves, t.count_k > 1)
    images = np.where(moves & p.shared_weights, t.count_u, 1)
    return (
        act * np.where(refetch_act, t.count_n, 1),
        weight * images * np.where(refetch_weight, t.count_m, 1),
    )


def _first_tile(p: Problem, s: NMSetting, t: _Tiles) -> tuple[Ints, Ints, Ints]:
    """Return the bytes of a full tile: activations, stored weights, int32 partial sums."""
    if p.window:
        rows = input_rows(p.window, t.m // p.row)
        act = t.units * rows * p.window.image[1] * p.window.channels
    else:
        act = t.units * t.m * t.k
    groups = 1 if p.shared_weights else t.units
    depth = -(-t.k // s.group) * s.kept if s.indexed else t.k
    weight = -(-groups * depth * t.n * (8 + s.index_bits) // 8)
    return act, weight, 4 * t.units * t.m * t.n


def _needs(p: Problem, s: NMSetting, t: _Tiles) -> tuple[Ints, Ints, Ints]:
    """Return the buffer bytes needed: a tile, twice where the operand is fetched repeatedly."""
    act, weight, out = _first_tile(p, s, t)
    many_n, many_k = t.count_n > 1, t.count_k > 1
    many_u, many_m = t.count_u > 1, t.count_m > 1
    act_moves = many_u | many_m | (many_k & (p.window is None))
    weight_moves = many_k | many_n | (many_u & (not p.shared_weights))
    return (
        act * (1 + act_moves),
        weight * (1 + weight_moves),
        out * (1 + (many_u | many_m | many_n)),
    )


def _bound(arch: NMArray, s: NMSetting, p: Problem, t: _Tiles) -> Ints:
    """Return a lower bound on the cycles of each candidate.

    The array cannot start before its first operands are there nor the last store before the
    array is done; and all transfers share one DMA.
    """
    array = _array_cycles(arch, s, p, t)
    act, weight, _ = _first_tile(p, s, t)
    last = [
        np.where(rest, rest, size)
        for rest, size in (
            (p.units % t.units, t.units),
            (p.unit_m % t.m, t.m),
            (p.gemm.n % t.n, t.n),
        )
    ]
    store = _dma(arch, last[0] * last[1] * last[2])
    fill = _dma(arch, act) + _dma(arch, weight) + arch.dram.latency_cycles
    act_bytes, weight_bytes = _traffic(p, s, t)
    outputs = p.gemm.groups * p.gemm.m * p.gemm.n
    return np.maximum(array + fill + store, _dma(arch, act_bytes + weight_bytes + outputs))


def whole_array_cycles(arch: NMArray, setting: NMSetting, problem: Problem) -> int:
    """Return the array cycles of the problem as one tile: no tiling of it takes fewer."""
    return tile_job(arch, setting, problem.array_tile(problem.whole)).slots


def candidates(arch: NMArray, setting: NMSetting, problem: Problem) -> Candidates:
    """Return the legal tiles under `setting`, by ascending lower bound."""
    tiles = _tiles(arch, setting, problem)
    sizes = (arch.act_buffer, arch.weight_buffer, arch.out_buffer)
    fits = np.logical_and.reduce(
        [
            need <= buffer.capacity_bytes
            for need, buffer in zip(_needs(problem, setting, tiles), sizes, strict=True)
        ]
    )
    legal = tiles.take(np.flatnonzero(fits))
    bound = _bound(arch, setting, problem, legal)
    order = np.argsort(bound, kind="stable")
    return Candidates(legal.take(order), bound[order])


def least_needs(arch: NMArray, setting: NMSetting, problem: Problem) -> dict[str, tuple[int, int]]:
    """Return {buffer: (bytes the least demanding tile needs, bytes there are)}."""
    needs = _needs(problem, setting, _tiles(arch, setting, problem))
    names = ("act_buffer", "weight_buffer", "out_buffer")
    return {
        name: (int(need.min()), getattr(arch, name).capacity_bytes)
        for name, need in zip(names, needs, strict=True)
    }
