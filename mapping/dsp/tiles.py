"""Tiles of a projection: what one MM or MV instruction of one core holds and computes."""

import collections.abc as abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from typing import NamedTuple

from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa import Code, Instruction, Loop
from simulator.units.dsp_timing import passes
from workloads.canonical import Spec

__all__ = [
    "ROW_BYTES",
    "TILE_AXIS",
    "At",
    "Tile",
    "Unit",
    "core_rows",
    "core_share",
    "split_groups",
    "tiles",
    "unrolled",
]

ROW_BYTES = 4
"""Bias (24 bits) and exponent of the scale (8 bits) of an output row."""

TILE_AXIS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit(Spec):
    """The matrix unit as one instruction sees it: columns of a tile, chains, half a buffer."""

    tile_columns: int
    chains: int
    half_bytes: int
    group: int

    @staticmethod
    def of(arch: DspChain, *, matrix: bool) -> "Unit":
        """Return the unit in MM (`matrix`) or MV use."""
        buffer = arch.weight_buffer if matrix else arch.mv_buffer
        return Unit(
            tile_columns=arch.mm_tile_columns if matrix else arch.mv_tile_columns,
            chains=arch.mm_columns if matrix else arch.mv_columns,
            half_bytes=buffer.capacity_bytes // 2,
            group=arch.group,
        )

    @property
    def row_bytes(self) -> int:
        """Buffer bytes of one pass, and operands the chains take in a cycle."""
        return self.chains * self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile(Spec):
    """`passes` a group of candidates, and what memory holds of a group of its rows.

    rows_8, rows_4 and rows_2 are those of its rows that keep as many of 16.
    """

    rows: int
    passes: int
    values: int
    indexed: int
    rows_8: int = 0
    rows_4: int = 0
    rows_2: int = 0

    def bytes_of(self, groups: int, bits: int) -> tuple[int, int]:
        """Return bytes of the weights of `groups` groups, and of their indices."""
        return -(-groups * self.values * bits // 8), -(-groups * self.indexed * INDEX_BITS // 8)


class At(NamedTuple):
    """Which of an operator's tiles: its number, the line where it lies, the first, the last.

    In a loop, number and line are those of the loop's first tile.
    """

    number: int
    line: int
    first: bool
    last: bool


def core_share(rows: int, cores: int, granule: int = 1) -> int:
    """Return the rows of the core with most, when cores divide whole granules.

    >>> core_share(4096, 3), core_share(4096, 3, 128)
    (1366, 1408)
    """
    return min(rows, -(-rows // (granule * cores)) * granule)


def core_rows(kept_rows: abc.Mapping[int, int], cores: int, granule: int = 1) -> dict[int, int]:
    """Return the output rows by N of the core with most work, `core_share` of them in all."""
    order = sorted(kept_rows, reverse=True)
    totals = list(accumulate(kept_rows[kept] for kept in order))
    most = core_share(totals[-1], cores, granule)
    upto = [-(-most * total // totals[-1]) for total in totals]
    return {kept: end - start for kept, start, end in zip(order, [0, *upto], upto, strict=False)}


def tiles(unit: Unit, rows: abc.Mapping[int, int]) -> list[tuple[int, Tile]]:
    """Return runs of equal tiles: how many, and the tile.

    Rows are ordered by N, largest first; rows with N = 0 have no weights and come in no tile,
    unless there are no others: then one tile without passes emits the bias. A ragged last tile
    is computed as if its last row repeated to the tile's width.
    """
    return list(_tiles(unit, tuple(sorted(rows.items(), reverse=True))))


@cache
def _tiles(unit: Unit, rows: tuple[tuple[int, int], ...]) -> list[tuple[int, Tile]]:
    order = [kept for kept, count in rows for _ in range(count) if kept]
    width = unit.tile_columns
    if not order:
        least = min(width, sum(count for _, count in rows))
        return [(1, Tile(rows=least, passes=0, values=0, indexed=0))]
    cut = [tuple(order[i : i + width]) for i in range(0, len(order), width)]
    return [(len(list(same)), _tile(unit, kept)) for kept, same in groupby(cut)]


def _tile(unit: Unit, kept: tuple[int, ...]) -> Tile:
    full = kept + kept[-1:] * (unit.tile_columns - len(kept))
    counted = {n: full.count(n) for n in set(full)}
    return Tile(
        rows=len(kept),
        passes=passes(counted, unit.chains, unit.group),
        values=sum(kept),
        indexed=sum(n for n in kept if n < unit.group),
        rows_8=kept.count(8),
        rows_4=kept.count(4),
        rows_2=kept.count(2),
    )


def split_groups(unit: Unit, groups: int, tile_passes: int) -> list[int]:
    """Return `groups` cut into the fewest equal parts that fit half the unit's buffer."""
    most = max(1, unit.half_bytes // (max(tile_passes, 1) * unit.row_bytes))
    parts = -(-groups // most)
    base, longer = divmod(groups, parts)
    return [base + (i < longer) for i in range(parts)]


def unrolled(
    runs: list[tuple[int, Tile]],
    body: Callable[[Tile, At], Code],
    lines_of: Callable[[Tile], int] = lambda tile: 0,
) -> Code:
    """Return `body` of every tile, equal ones in a loop; each takes `lines_of` it in memory.

    The first and the last tile of all stand outside the loops: their tokens differ.
    """
    total = sum(times for times, _ in runs)
    code: list[Instruction | Loop] = []
    done = line = 0
    for times, tile in runs:
        size = lines_of(tile)
        head = 1 if done == 0 else 0
        tail = 1 if done + times == total and done + times > head else 0
        if head:
            code += body(tile, At(0, 0, True, total == 1))
        middle = times - head - tail
        if middle:
            inner = body(tile, At(done + head, line + head * size, False, False))
            code.append(Loop(axis=TILE_AXIS, times=middle, body=inner))
        if tail:
            code += body(tile, At(total - 1, line + (times - 1) * size, False, True))
        done += times
        line += times * size
    return tuple(code)
