"""Blocks of a product on the PEGrid: what is loaded, worked on and stored together.

A block is a range of cells along groups, row tiles and column tiles, and one job of the
controller: its first tile starts from nothing, and waits for the drain of the block before. Blocks
run one after the other, groups outermost; an operand is loaded when its part changes, into the
other half of its buffer if that happens more than once.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mapping.grid_cells import Cells, cut
from mapping.grid_lanes import Stored
from simulator.arch.pe_grid import PEGrid
from simulator.models.product import Packed, least_packed
from workloads.graph import Gemm

__all__ = ["Blocking", "Part", "Timed", "blocking", "blockings"]

Ints = NDArray[np.int64]

MOST_BLOCKS = 64
"""Most blocks of an operator, unless the buffers need more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What every block needs of one operand: positions and non-zeros, and whether it is loaded."""

    positions: Ints
    nonzeros: Ints
    loaded: NDArray[np.bool_]

    @property
    def slots(self) -> int:
        """Parts of its buffer: two if blocks replace each other's."""
        return 1 + (int(self.loaded.sum()) > 1)

    def held_bits(self, grid: PEGrid) -> Ints:
        """Return the bits of each block's part on chip: a bitmask beside the values."""
        return self.positions + grid.operand_bits * self.nonzeros

    def moved(self, grid: PEGrid) -> list[Packed | None]:
        """Return what main memory gives each block: plain or with a bitmask, if that is less."""
        bits = grid.operand_bits
        return [
            least_packed(p, n, bits) if loaded else None
            for p, n, loaded in zip(
                self.positions.tolist(), self.nonzeros.tolist(), self.loaded, strict=True
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocking:
    """Blocks in order, int64[blocks] each: cycles of the first tile and of the others, and parts.

    `busy` are cycles in which some PE multiplies, of the first tile and of the others.
    """

    shape: str
    first: Ints
    others: Ints
    first_busy: Ints
    others_busy: Ints
    outputs: Ints
    act: Part
    weight: Part

    @property
    def size(self) -> int:
        """Number of blocks."""
        return self.first.size

    def misfit(self, grid: PEGrid) -> str | None:
        """Say which buffer is too small for the largest block, None if all fit."""
        out_slots = 1 + (self.size > 1)
        needs = (
            ("act_buffer", int(self.act.held_bits(grid).max()) * self.act.slots),
            ("weight_buffer", int(self.weight.held_bits(grid).max()) * self.weight.slots),
            ("out_buffer", grid.operand_bits * int(self.outputs.max()) * out_slots),
        )
        for name, bits in needs:
            capacity = getattr(grid, name).capacity_bytes
            if bits > 8 * capacity:
                return f"its smallest block needs {-(-bits // 8)} bytes of {name}, not {capacity}"
        return None


def _between(stored: Stored, groups: tuple[Ints, Ints], lanes: tuple[Ints, Ints]) -> Ints:
    """Return the non-zeros of ranges of groups and lanes, and in [1] their positions."""
    sums = np.pad(stored.nonzeros.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    first, last = stored.units_of(lanes[0], lanes[1] - 1)
    (g0, g1) = groups
    nonzeros = sums[g1, last] - sums[g0, last] - sums[g1, first] + sums[g0, first]
    return np.stack([nonzeros, (g1 - g0) * (last - first) * stored.unit_positions])


def _part(stored: Stored, groups: tuple[Ints, Ints], lanes: tuple[Ints, Ints]) -> Part:
    nonzeros, positions = _between(stored, groups, lanes)
    key = np.stack([*groups, *lanes])
    changed = (key[:, 1:] != key[:, :-1]).any(axis=0)
    return Part(positions=positions, nonzeros=nonzeros, loaded=np.concatenate([[True], changed]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed:
    """A product with its time, and its operands as they lie in memory."""

    gemm: Gemm
    cells: Cells
    act: Stored
    weight: Stored


def _ranges(borders: Ints, at: Ints) -> tuple[Ints, Ints]:
    return borders[at], borders[at + 1]


def blocking(
    grid: PEGrid, timed: Timed, parts: tuple[int, int, int], *, rows_outer: bool
) -> Blocking:
    """Return the blocks of a product cut in so many parts along groups, row and column tiles."""
    cells, g = timed.cells, timed.gemm
    edges = [cut(extent, n) for extent, n in zip(cells.cell.shape, parts, strict=True)]
    order = (0, 1, 2) if rows_outer else (0, 2, 1)
    index = np.indices([parts[axis] for axis in order]).reshape(3, -1)
    at = index[np.argsort(order)]
    first = cells.cell[tuple(e[i] for e, i in zip(edges, at, strict=True))]

    def summed(name: str) -> Ints:
        values = cells.cell[name]
        for axis, edge in enumerate(edges):
            values = np.add.reduceat(values, edge[:-1], axis=axis)
        found: Ints = values[tuple(at)]
        return found

    borders = [c[e] for c, e in zip(cells.cuts, edges, strict=True)]
    groups = _ranges(borders[0], at[0])
    rows = tuple(np.minimum(t * grid.rows, g.m) for t in _ranges(borders[1], at[1]))
    cols = tuple(np.minimum(t * grid.cols, g.n) for t in _ranges(borders[2], at[2]))
    return Blocking(
        shape=f"{parts[0]}x{parts[1]}x{parts[2]} {'mn' if rows_outer else 'nm'}",
        first=first["first_span"],
        others=summed("interval") - first["first_interval"],
        first_busy=first["first_busy"],
        others_busy=summed("busy") - first["first_busy"],
        outputs=(groups[1] - groups[0]) * (rows[1] - rows[0]) * (cols[1] - cols[0]),
        act=_part(timed.act, groups, (rows[0], rows[1])),
        weight=_part(timed.weight, groups, (cols[0], cols[1])),
    )


def _counts(extent: int) -> list[int]:
    """Return powers of two below `extent`, and it."""
    return [*(1 << n for n in range((extent - 1).bit_length())), extent]


def blockings(grid: PEGrid, timed: Timed) -> list[Blocking]:
    """Return the blockings that fit the buffers, empty if none does.

    Those of MOST_BLOCKS blocks or fewer, or else the fewest that fit.
    """
    u, d, a = map(_counts, timed.cells.cell.shape)
    cuts = sorted(product(u, d, a), key=lambda parts: int(np.prod(parts)))
    found: list[Blocking] = []
    for parts in cuts:
        if found and int(np.prod(parts)) > max(MOST_BLOCKS, found[0].size):
            break
        orders = (True, False) if parts[1] > 1 and parts[2] > 1 else (True,)
        tried = (blocking(grid, timed, parts, rows_outer=outer) for outer in orders)
        found += [b for b in tried if b.misfit(grid) is None]
    return found
