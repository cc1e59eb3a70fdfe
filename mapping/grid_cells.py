"""Exact time of a product on the PEGrid, kept in cells: the least parts that blocks are made of.

Tiles run in order, so a cell needs only sums over its tiles, and its first tile apart: that one
starts a job when a block starts with the cell. Masks are drawn and timed a part at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapping.grid_lanes import Lanes, Packed, elements, packed
from simulator.arch.pe_grid import PEGrid
from simulator.units.pe_grid import ProductEvents, product_events, time_pairs
from workloads.graph import Gemm

__all__ = ["CELL", "RECORD", "Cells", "cut", "time_gemm"]

Ints = NDArray[np.int64]

MOST_CELLS = 1 << 14
LEAST_CELLS, MOST_PARTS = 24, 512
"""Cells of a product, about; how many each dimension always and never more than has."""

MOST_ELEMENTS = 1 << 25
"""Mask elements drawn at a time, unless the tiles of one cell hold more."""

RECORD = ("span", "ends", "spent", "empty", "vacant", "busy")
"""Sums over tiles, as `units.pe_kernel.time_tiles` records them."""

CELL = np.dtype(
    [
        ("tiles", "i8"),
        *((name, "i8") for name in RECORD),
        ("interval", "i8"),  # from barrier to barrier: the span less its overlap, or the drain
        ("first_span", "i8"),  # of the first tile
        ("first_busy", "i8"),
        ("first_interval", "i8"),
    ]
)
"""What is kept of a cell."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """A timed product: `cell` CELL[groups, down, across] and where each dimension is cut.

    Cuts are in groups, row tiles and column tiles; `events` are those of all tiles.
    """

    cell: NDArray[np.void]
    cuts: tuple[Ints, Ints, Ints]
    events: ProductEvents
    macs_weight: int
    macs_act: int


def cut(extent: int, parts: int) -> Ints:
    """Return the parts + 1 borders of an extent cut as evenly as whole steps allow."""
    return np.arange(parts + 1) * extent // parts


def _cuts(groups: int, down: int, across: int) -> tuple[Ints, Ints, Ints]:
    """Cut groups, column tiles and row tiles, in this order as finely as MOST_CELLS allows."""
    borders, left = {}, MOST_CELLS
    for name, extent in (("groups", groups), ("across", across), ("down", down)):
        parts = min(extent, max(LEAST_CELLS, min(MOST_PARTS, left)))
        borders[name], left = cut(extent, parts), left // parts
    return borders["groups"], borders["down"], borders["across"]


def _slabs(act: Lanes, grid: PEGrid, u: Ints, d: Ints) -> Iterator[tuple[int, int, int, int]]:
    """Yield ranges of cells (groups, row tiles) whose masks are drawn together."""
    tile = max(1, grid.rows * elements(act) // act.groups)
    deep = int(np.diff(d).max())
    per_group = 1 if act.groups > 1 else 0
    wide = max(1, int(np.diff(u).max()) * per_group)
    down = max(1, MOST_ELEMENTS // (tile * deep * wide))
    groups = max(1, down // (len(d) - 1)) if down >= len(d) - 1 else 1
    for first in range(0, len(u) - 1, groups):
        for row in range(0, len(d) - 1, down):
            yield first, min(first + groups, len(u) - 1), row, min(row + down, len(d) - 1)


def _pairs(side: Packed, top: Packed) -> Ints:
    """Return which row tile meets which column tile, int64[tiles, 2], column tiles fastest."""
    shape = (*side.at.shape, top.at.shape[1])
    row = np.broadcast_to(side.at[:, :, None], shape)
    col = np.broadcast_to(top.at[:, None, :], shape)
    return np.stack([row.ravel(), col.ravel()], axis=1)


def _reduced(records: Ints, drain_beats: int, borders: tuple[Ints, Ints, Ints]) -> NDArray[np.void]:
    """Return the cells of int64[groups, row tiles, column tiles, 6] between `borders`."""
    starts = [b[:-1] - b[0] for b in borders]
    first = records[np.ix_(*starts)]

    def summed(values: Ints) -> Ints:
        for axis, at in enumerate(starts):
            values = np.add.reduceat(values, at, axis=axis)
        return values

    found = np.zeros(first.shape[:3], CELL)
    totals = summed(records)
    for index, name in enumerate(RECORD):
        found[name] = totals[..., index]
    found["tiles"] = math.prod(np.ix_(*(np.diff(b) for b in borders)))
    found["interval"] = summed(np.maximum(records[..., 0] - 1, drain_beats))
    found["first_span"], found["first_busy"] = first[..., 0], first[..., 5]
    found["first_interval"] = np.maximum(first[..., 0] - 1, drain_beats)
    return found


def time_gemm(grid: PEGrid, gemm: Gemm, act: Lanes, weight: Lanes) -> Cells:
    """Return the exact time and events of a product, tile by tile, gathered in cells."""
    down, across = -(-gemm.m // grid.rows), -(-gemm.n // grid.cols)
    u, d, a = _cuts(gemm.groups, down, across)
    everything = range(gemm.groups), range(across)
    top = packed(weight, grid.cols, grid.chunk, *everything)
    cell = np.zeros((len(u) - 1, len(d) - 1, len(a) - 1), CELL)
    present = np.zeros((gemm.groups, gemm.k), np.int64)
    for u0, u1, d0, d1 in _slabs(act, grid, u, d):
        groups, tiles = range(u[u0], u[u1]), range(d[d0], d[d1])
        side = packed(act, grid.rows, grid.chunk, groups, tiles)
        own = Packed(words=top.words, at=top.at[u[u0] : u[u1]], present=top.present)
        records = time_pairs(grid, side.words, top.words, _pairs(side, own), union=True)
        shaped = records.reshape(len(groups), len(tiles), across, -1)
        borders = u[u0 : u1 + 1], d[d0 : d1 + 1], a
        cell[u0:u1, d0:d1] = _reduced(shaped, grid.drain_beats, borders)
        present[u[u0] : u[u1]] += side.present
    return Cells(
        cell=cell,
        cuts=(u, d, a),
        events=product_events(grid, gemm, present, top.present),
        macs_weight=gemm.m * int(top.present.sum()),
        macs_act=gemm.n * int(present.sum()),
    )
