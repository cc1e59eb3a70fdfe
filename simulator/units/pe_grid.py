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

__all__ = ["GridTiming", "mac_counts", "time_product"]

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


def _side(mask: PackedMask, lanes: int, skips: bool, chunk: int) -> tuple[Words, int]:
    """Return the words that decide a chunk's cost and the lanes of a tile that differ by them."""
    if not skips:
        full = np.uint64((1 << chunk) - 1)
        return np.full((len(mask.words), 1), full), 1
    padding = -mask.lanes % lanes
    return np.pad(mask.words, ((0, 0), (0, padding))), lanes


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
    if 1 + chunks * grid.most_cycles > LONGEST:
        raise ValueError(
            f"A tile of {chunks} chunks may exceed the {LONGEST} cycles that are counted"
        )


def _records(grid: PEGrid, act: PackedMask, weight: PackedMask, union: bool) -> Ints:
    """Return the kernel's record of every tile, int64[tiles, 6], sums over the whole grid."""
    from simulator.units.pe_kernel import quotient, time_tiles

    side, rows = _side(act, grid.rows, grid.skips_activations, grid.chunk)
    top, cols = _side(weight, grid.cols, grid.skips_weights, grid.chunk)
    down, across = side.shape[1] // rows, top.shape[1] // cols
    record = np.zeros((down * across, 6), np.int64)
    longest = 1 + len(side) * grid.most_cycles
    time_tiles(
        side,
        top,
        rows,
        cols,
        min(grid.fifo_depth, len(side)),
        grid.least_cycles,
        quotient(grid.macs_per_pe),
        np.zeros(longest // 64 + 2, np.uint64) if union else None,
        record,
    )
    record[:, 1:5] *= grid.pes // (rows * cols)
    whole = record.reshape(down, across, 6)
    tiles = (_tiles(act.lanes, grid.rows), _tiles(weight.lanes, grid.cols), 6)
    return np.broadcast_to(whole, tiles).reshape(-1, 6)


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
    _, ends, spent, empty, vacant, busy = record.sum(axis=0).tolist()
    cycles = 1 + int(intervals.sum())
    matches, effectual = _matches(grid, act, weight), int(act.present @ weight.present)
    return GridTiming(
        spans=spans,
        cycles=cycles,
        drain_cycles=grid.drain_beats,
        array_busy=busy if union else None,
        pe_cycles={
            "work": spent - vacant,
            "vacant": vacant,
            "fill": grid.pes,
            "coupling": ends - spent - grid.pes * spans.size,
            "imbalance": grid.pes * int(spans.sum()) - ends,
            "drain": grid.pes * (cycles - 1 - int((spans - 1).sum())),
        },
        matches=matches,
        effectual=effectual,
        empty_chunks=empty,
        counts=_counts(grid, act, weight, matches, effectual),
    )


def _matches(grid: PEGrid, act: PackedMask, weight: PackedMask) -> int:
    """Return the positions that take a multiplier; PEs beyond m or n work as the others do."""
    down, across = _tiles(act.lanes, grid.rows), _tiles(weight.lanes, grid.cols)
    match grid.skip:
        case Skip.BOTH:
            return int(act.present @ weight.present)
        case Skip.WEIGHTS:
            return int(weight.present.sum()) * down * grid.rows
        case Skip.ACTIVATIONS:
            return int(act.present.sum()) * across * grid.cols
        case Skip.NONE:
            return down * across * grid.pes * len(act.words) * grid.chunk


def mac_counts(grid: PEGrid, matches: int, effectual: int) -> dict[tuple[str, str, str], int]:
    """Return what becomes of the positions that take a multiplier."""
    full = matches if grid.zero is ZeroAction.COMPUTE else effectual
    return {("pe", "mac", "full"): full, ("pe", "mac", "gated"): matches - full}


def _counts(
    grid: PEGrid, act: PackedMask, weight: PackedMask, matches: int, effectual: int
) -> dict[tuple[str, str, str], int]:
    down, across = _tiles(act.lanes, grid.rows), _tiles(weight.lanes, grid.cols)
    tiles = down * across
    chunks = len(act.words) * tiles
    return {
        **mac_counts(grid, matches, effectual),
        ("side", "chunk", "full"): chunks * grid.rows,
        ("side", "value", "full"): int(act.present.sum()) * across,
        ("top", "chunk", "full"): chunks * grid.cols,
        ("top", "value", "full"): int(weight.present.sum()) * down,
        ("out", "beat", "full"): tiles * grid.drain_beats,
    }
