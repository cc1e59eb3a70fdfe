"""Blocks of a product on the PEGrid: what is loaded, worked on and stored together.

A block is a range of cells along groups, row tiles and column tiles, and one job of the
controller: its first tile starts from nothing, and waits for the drain of the block before. Blocks
run one after the other, groups outermost; an operand is loaded when its part changes, into the
other half of its buffer if that happens more than once.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mapping.grid_cells import Cells, cut
from mapping.grid_lanes import Stored
from mapping.problem import TileShape
from simulator.arch.pe_grid import PEGrid
from simulator.models.product import Packed
from workloads.graph import Gemm

__all__ = ["MOST_BLOCKS", "Blocking", "Part", "Timed", "blocking", "blockings", "misfit"]

Ints = NDArray[np.int64]
Parts = tuple[int, int, int]

MOST_BLOCKS = 64
"""Most blocks of an operator, unless the buffers need more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Timed:
    """A product with its time, its operands as they lie in memory, and its results as `written`."""

    grid: PEGrid
    gemm: Gemm
    cells: Cells
    act: Stored
    weight: Stored
    written: Packed
    _held: dict[tuple[int, int, int], tuple[Ints, Ints]] = field(default_factory=dict, repr=False)

    @cached_property
    def sums(self) -> dict[str, Ints]:
        """Sums of the cells' cycles, and of non-zeros by group and unit, over all before."""
        found = {name: _prefix(self.cells.cell[name]) for name in ("interval", "busy")}
        return found | {"act": _prefix(self.act.nonzeros), "weight": _prefix(self.weight.nonzeros)}

    def borders(self, axis: int, parts: int) -> Ints:
        """Return where `parts` of the groups, the rows or the columns (axis 0, 1, 2) meet."""
        tiles = self.cells.cuts[axis][cut(self.cells.cell.shape[axis], parts)]
        size = (1, self.grid.rows, self.grid.cols)[axis]
        return np.minimum(tiles * size, (self.gemm.groups, self.gemm.m, self.gemm.n)[axis])

    def held(self, axis: int, groups: int, lanes: int) -> tuple[Ints, Ints]:
        """Return positions and non-zeros of each part of an operand, int64[groups, lanes].

        The operand is the one with the rows (axis 1) or the columns (axis 2).
        """
        key = axis, groups, lanes
        if key not in self._held:
            self._held[key] = self._parts(*key)
        return self._held[key]

    def _parts(self, axis: int, groups: int, lanes: int) -> tuple[Ints, Ints]:
        stored, name = ((self.act, "act"), (self.weight, "weight"))[axis - 1]
        g, at = self.borders(0, groups), self.borders(axis, lanes)
        first, last = stored.units_of(at[:-1], at[1:] - 1)
        sums = np.diff(self.sums[name][g], axis=0)
        positions = np.diff(g)[:, None] * (last - first) * stored.unit_positions
        return positions, sums[:, last] - sums[:, first]


def _prefix(values: Ints) -> Ints:
    """Return sums over all that stands before each place, one place more along every axis."""
    for axis in range(values.ndim):
        values = values.cumsum(axis=axis)
    return np.pad(values, (1, 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What each block needs of one operand, int64[blocks], and whether it is loaded for it.

    `value_bits` and `metadata_bits` are what main memory gives if so: plain or with a bitmask.
    """

    positions: Ints
    nonzeros: Ints
    value_bits: Ints
    metadata_bits: Ints
    loaded: NDArray[np.bool_]

    @property
    def slots(self) -> int:
        """Parts of its buffer: two if blocks replace each other's."""
        return 1 + (int(self.loaded.sum()) > 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocking:
    """Blocks in order, int64[blocks] each: cycles of the first tile and of the others, and parts.

    `tile` is the largest block. `busy` are cycles in which some PE multiplies, of the first tile
    and of the others.
    """

    timed: Timed
    parts: Parts
    tile: TileShape
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

    @property
    def shape(self) -> str:
        """Parts along groups, row tiles and column tiles, and the loops from the outside in."""
        return f"{'x'.join(map(str, self.parts))} {self.tile.order[1:]}"

    def load_bits(self) -> tuple[Ints, Ints]:
        """Return the bits that each block loads of activations, and of weights."""
        act, weight = (part.value_bits + part.metadata_bits for part in (self.act, self.weight))
        return act, weight

    def store_bits(self) -> Ints:
        """Return the bits that each block writes, in proportion to its results."""
        ends: Ints = self.timed.written.bits * self.outputs.cumsum() // self.outputs.sum()
        return np.diff(ends, prepend=0)


def _part(timed: Timed, axis: int, parts: Parts, at: tuple[Ints, ...]) -> Part:
    """Return what each block needs of the operand with the rows (axis 1) or columns (axis 2)."""
    bits = timed.grid.operand_bits
    which = at[0] * parts[axis] + at[axis]
    loaded = np.concatenate([[True], which[1:] != which[:-1]])
    positions, nonzeros = (
        values.ravel()[which] for values in timed.held(axis, parts[0], parts[axis])
    )
    plain = bits * positions <= bits * nonzeros + positions  # as `least_packed` has it
    return Part(
        positions=positions,
        nonzeros=nonzeros,
        value_bits=bits * np.where(plain, positions, nonzeros) * loaded,
        metadata_bits=np.where(plain, 0, positions) * loaded,
        loaded=loaded,
    )


def blocking(timed: Timed, parts: Parts, *, rows_outer: bool) -> Blocking:
    """Return the blocks of a product cut in so many parts along groups, row and column tiles."""
    loops = (0, 1, 2) if rows_outer else (0, 2, 1)
    index = np.unravel_index(np.arange(math.prod(parts)), [parts[axis] for axis in loops])
    at = tuple(index[axis] for axis in loops)
    edges = [cut(n, count) for n, count in zip(timed.cells.cell.shape, parts, strict=True)]
    first = timed.cells.cell[tuple(edge[i] for edge, i in zip(edges, at, strict=True))]

    def summed(name: str) -> Ints:
        found = timed.sums[name][np.ix_(*edges)]
        found = found[1:] - found[:-1]
        found = found[:, 1:] - found[:, :-1]
        return (found[..., 1:] - found[..., :-1])[at]

    u, m, n = (np.diff(timed.borders(axis, count)) for axis, count in enumerate(parts))
    return Blocking(
        timed=timed,
        parts=parts,
        tile=TileShape(
            units=int(u.max()),
            m=int(m.max()),
            k=timed.gemm.k,
            n=int(n.max()),
            order="umn" if rows_outer else "unm",
        ),
        first=first["first_span"],
        others=summed("interval") - first["first_interval"],
        first_busy=first["first_busy"],
        others_busy=summed("busy") - first["first_busy"],
        outputs=u[at[0]] * m[at[1]] * n[at[2]],
        act=_part(timed, 1, parts, at),
        weight=_part(timed, 2, parts, at),
    )


def _needs(timed: Timed, parts: Parts) -> dict[str, int]:
    """Return the bits that the largest block takes of each buffer, in all its slots."""
    grid, slots = timed.grid, 1 + (math.prod(parts) > 1)
    outputs = math.prod(int(np.diff(timed.borders(i, n)).max()) for i, n in enumerate(parts))
    needs = {"out_buffer": grid.operand_bits * outputs * slots}
    for axis, name in ((1, "act_buffer"), (2, "weight_buffer")):
        positions, nonzeros = timed.held(axis, parts[0], parts[axis])
        held = int((positions + grid.operand_bits * nonzeros).max())  # beside a bitmask
        needs[name] = held * (1 + (positions.size > 1))
    return needs


def misfit(timed: Timed, parts: Parts) -> str | None:
    """Say which buffer is too small for the largest of so many parts, None if all fit."""
    for name, bits in sorted(_needs(timed, parts).items()):
        capacity = getattr(timed.grid, name).capacity_bytes
        if bits > 8 * capacity:
            return f"its smallest block needs {-(-bits // 8)} bytes of {name}, not {capacity}"
    return None


def _counts(extent: int) -> list[int]:
    """Return powers of two and three times powers of two below `extent`, and it.

    >>> _counts(13)
    [1, 2, 3, 4, 6, 8, 12, 13]
    """
    twos = [1 << n for n in range(extent.bit_length())]
    return sorted({extent, *(n for two in twos for n in (two, 3 * two) if n < extent)})


def blockings(timed: Timed) -> list[Blocking]:
    """Return the space of a product: the blockings that fit the buffers, fewest blocks first.

    Groups, row tiles and column tiles are cut into `_counts` parts each, and rows or columns loop
    outside. Of these, blockings of MOST_BLOCKS blocks or fewer count, or of up to three times the
    fewest that fit if that is more.
    """
    u, d, a = map(_counts, timed.cells.cell.shape)
    cuts = [parts for parts in product(u, d, a) if not misfit(timed, parts)]
    most = max(MOST_BLOCKS, 3 * min(map(math.prod, cuts), default=0))
    return [
        blocking(timed, parts, rows_outer=outer)
        for parts in sorted(cuts, key=math.prod)
        if math.prod(parts) <= most
        for outer in ((True, False) if parts[1] > 1 and parts[2] > 1 else (True,))
    ]
