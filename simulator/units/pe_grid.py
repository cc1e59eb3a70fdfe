"""Exact time of a GEMM on the PEGrid, and where every PE cycle goes.

Consecutive tiles overlap in the barrier cycle and in the drain (see `arch.pe_job`), so a product
of tiles with spans T takes

    cycles = T(0) + sum over later tiles of max(T(t) - 1, drain beats)

from the first chunk accepted to the last sum final. The spans follow from the recurrence of
`units.pe_kernel`, tile by tile. Where one operand's zeros are not skipped, all rows (or columns)
cost the same and start together, so one of them is timed for all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.pe_grid import PEGrid, Skip, ZeroAction
from simulator.units.pe_chunks import PackedMask
from workloads.graph import Gemm

__all__ = [
    "GridTiming",
    "ProductEvents",
    "mac_counts",
    "pe_cycles",
    "product_events",
    "time_pairs",
    "time_product",
]

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

LONGEST = (1 << 31) - 1
"""Most cycles of one tile the compiled kernel can count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridTiming:
    """Time and events of one product without stalls of its streams.

    `spans` int64[tiles] are the cycles of each tile alone, column tiles fastest; `cycles` the
    whole product's; `drain_cycles` those of the last drain that follows; `array_busy` those in
    which some PE multiplies, None if not asked for. `pe_cycles` splits PEs * cycles by cause:
    work (a multiplier is in use), vacant (an empty chunk is passed), fill (the first broadcast),
    coupling (there is no pair to start: broadcasts come once a cycle and wait for the fullest
    FIFO), imbalance (the tile is done here, not elsewhere) and drain (all are done, the shadow
    registers are not free).
    `matches` are the positions that took a multiplier, `effectual` those with both operands.
    """

    spans: Ints
    cycles: int
    drain_cycles: int
    array_busy: int | None
    pe_cycles: dict[str, int]
    matches: int
    effectual: int
    empty_chunks: int
    counts: dict[tuple[str, str, str], int]


def _tiles(lanes: int, size: int) -> int:
    return -(-lanes // size)


def _padded(mask: PackedMask, size: int) -> Words:
    return np.pad(mask.words, ((0, 0), (0, -mask.lanes % size)))


def _checked(grid: PEGrid, act: PackedMask, weight: PackedMask) -> None:
    chunks = _tiles(act.k, grid.chunk)
    if act.k != weight.k or {len(act.words), len(weight.words)} != {chunks}:
        raise ValueError(
            f"Masks must share k and hold chunks of {grid.chunk}, not k = {act.k} and {weight.k} "
            f"in {len(act.words)} and {len(weight.words)} chunks"
        )
    if not act.lanes or not weight.lanes or not act.k:
        raise ValueError(
            f"A product needs m, k, n of at least 1, not {act.lanes}, {act.k}, {weight.lanes}"
        )


def _collapsed(words: Words, skips: bool, size: int, chunk: int) -> tuple[Words, int]:
    """Return the words that decide a chunk's cost and the lanes of a tile that differ by them."""
    if skips:
        return words, size
    return np.full((len(words), 1), np.uint64((1 << chunk) - 1)), 1


def time_pairs(grid: PEGrid, side: Words, top: Words, pairs: Ints, *, union: bool) -> Ints:
    """Return the kernel's record of tiles, int64[pairs, 6], sums over the whole grid.

    side uint64[chunks, row tiles * rows] and top uint64[chunks, column tiles * cols] are whole
    tiles; pairs int64[pairs, 2] says which row tile meets which column tile. Equal pairs are
    timed once. See `units.pe_kernel.time_tiles` for the record; without `union` its last field
    stays 0. Raises ValueError for a tile longer than the kernel can count.
    """
    from simulator.units.pe_kernel import quotient, time_tiles

    longest = 1 + len(side) * grid.most_cycles
    if longest > LONGEST:
        raise ValueError(
            f"A tile of {len(side)} chunks may exceed the {LONGEST} cycles that are counted"
        )
    side, rows = _collapsed(side, grid.skips_activations, grid.rows, grid.chunk)
    top, cols = _collapsed(top, grid.skips_weights, grid.cols, grid.chunk)
    across = top.shape[1] // cols
    row_tile = pairs[:, 0] if grid.skips_activations else 0 * pairs[:, 0]
    col_tile = pairs[:, 1] if grid.skips_weights else 0 * pairs[:, 1]
    met, place = np.unique(row_tile * across + col_tile, return_inverse=True)
    record = np.zeros((met.size, 6), np.int64)
    time_tiles(
        side,
        top,
        np.stack(np.divmod(met, across), axis=1),
        rows,
        cols,
        min(grid.fifo_depth, len(side)),
        grid.least_cycles,
        quotient(grid.macs_per_pe),
        np.zeros(longest // 64 + 2, np.uint64) if union else None,
        record,
    )
    record[:, 1:5] *= grid.pes // (rows * cols)
    return record[place]


def _records(grid: PEGrid, act: PackedMask, weight: PackedMask, union: bool) -> Ints:
    """Return the record of every tile of a product, column tiles fastest."""
    down, across = _tiles(act.lanes, grid.rows), _tiles(weight.lanes, grid.cols)
    pairs = np.stack(np.divmod(np.arange(down * across), across), axis=1)
    side, top = _padded(act, grid.rows), _padded(weight, grid.cols)
    return time_pairs(grid, side, top, pairs, union=union)


def time_product(
    grid: PEGrid, act: PackedMask, weight: PackedMask, *, union: bool = False
) -> GridTiming:
    """Return the exact time of the product of masks act [m, k] and weight [n, k] on `grid`.

    `union` also counts the cycles in which some PE multiplies. Raises ValueError for masks of
    different k or chunk length.
    """
    _checked(grid, act, weight)
    record = _records(grid, act, weight, union)
    spans = record[:, 0]
    intervals = np.maximum(spans - 1, grid.drain_beats)
    intervals[0] = spans[0] - 1
    empty, busy = record[:, [3, 5]].sum(axis=0).tolist()
    cycles = 1 + int(intervals.sum())
    events = product_events(
        grid, Gemm(m=act.lanes, k=act.k, n=weight.lanes), act.present, weight.present
    )
    return GridTiming(
        spans=spans,
        cycles=cycles,
        drain_cycles=grid.drain_beats,
        array_busy=busy if union else None,
        pe_cycles=pe_cycles(grid, record.sum(axis=0), cycles=cycles, tiles=spans.size),
        matches=events.matches,
        effectual=events.effectual,
        empty_chunks=empty,
        counts=events.counts,
    )


def pe_cycles(
    grid: PEGrid, record: Ints, *, cycles: int, tiles: int, jobs: int = 1
) -> dict[str, int]:
    """Split PEs * cycles by cause (see `GridTiming`) given the sums int64[6] of all records."""
    span, ends, spent, _, vacant, _ = record.tolist()
    return {
        "work": spent - vacant,
        "vacant": vacant,
        "fill": grid.pes * jobs,
        "coupling": ends - spent - grid.pes * tiles,
        "imbalance": grid.pes * span - ends,
        "drain": grid.pes * (cycles - jobs - span + tiles),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductEvents:
    """Positions that take a multiplier, those with both operands, and the grid's events."""

    matches: int
    effectual: int
    counts: dict[tuple[str, str, str], int]


def product_events(grid: PEGrid, gemm: Gemm, act: Ints, weight: Ints) -> ProductEvents:
    """Return the events of a product whose tiles run one after the other.

    act and weight int64[..., k] are the vectors of each group with each position. PEs beyond m or
    n work as the others do.
    """
    down, across = _tiles(gemm.m, grid.rows), _tiles(gemm.n, grid.cols)
    tiles = gemm.groups * down * across
    chunks = _tiles(gemm.k, grid.chunk) * tiles
    effectual, acts, weights = int((act * weight).sum()), int(act.sum()), int(weight.sum())
    match grid.skip:
        case Skip.BOTH:
            matches = effectual
        case Skip.WEIGHTS:
            matches = weights * down * grid.rows
        case Skip.ACTIVATIONS:
            matches = acts * across * grid.cols
        case Skip.NONE:
            matches = chunks * grid.pes * grid.chunk
    return ProductEvents(
        matches=matches,
        effectual=effectual,
        counts={
            **mac_counts(grid, matches, effectual),
            ("side", "chunk", "full"): chunks * grid.rows,
            ("side", "value", "full"): acts * across,
            ("top", "chunk", "full"): chunks * grid.cols,
            ("top", "value", "full"): weights * down,
            ("out", "beat", "full"): tiles * grid.drain_beats,
        },
    )


def mac_counts(grid: PEGrid, matches: int, effectual: int) -> dict[tuple[str, str, str], int]:
    """Return what becomes of the positions that take a multiplier."""
    full = matches if grid.zero is ZeroAction.COMPUTE else effectual
    return {("pe", "mac", "full"): full, ("pe", "mac", "gated"): matches - full}
