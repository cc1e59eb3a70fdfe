"""Routing bits of a Flex-DPE's distribution network: any row to any rows, in one pass.

Stage by stage every row keeps its own value or takes that of the row `distance` away. For S rows,
`FlexDpe.route_distances` are 1, 2 ... S/2 ... 2, 1 twice, which hold three classic networks:

1. concentrate: the rows in use move to the front, in order (distances 1 ... S/2);
2. copy: each of them spreads over as many neighbours as it has targets (S/2 ... 1);
3. permute: a Benes network sends each copy to its target (1 ... S/2 ... 1).

Neighbouring stages of equal distance are one. No two values ever need the same row: in 1 values
keep their order and never move apart, in 2 their order and never move together, in 3 the looping
algorithm sends the two values that meet in a first or last stage through different halves.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["distribute", "route"]

Bits = NDArray[np.bool_]
Ints = NDArray[np.int64]
Stages = list[tuple[int, Bits]]
"""Distance of every stage, and of each of its rows, whether it takes its partner's value."""


def _settle(now: Ints, target: Ints, rows: int, distances: Sequence[int]) -> Stages:
    """Move values from rows `now` to rows `target`, one bit of the row a stage."""
    stages = []
    for distance in distances:
        following = now & ~distance | target & distance
        bits = np.zeros(rows, np.bool_)
        bits[following] = now != following
        stages.append((distance, bits))
        now = following
    return stages


def _halves(target: Ints) -> Ints:
    """Return which half every row takes: neighbours, and those whose targets are, differ."""
    origin, half = np.argsort(target), np.full(target.size, -1)
    for first in range(target.size):
        row = first
        while half[row] < 0:
            half[row], half[row ^ 1] = 0, 1
            row = origin[target[row ^ 1] ^ 1]
    return half


def _permute(target: Ints, distance: int = 1) -> Stages:
    """Move row r to row `target[r]` through a Benes network of neighbours `distance` apart."""
    if target.size <= 2:
        return [(distance, target != np.arange(target.size))] if target.size == 2 else []
    half = _halves(target)
    entry, leave = np.arange(target.size) & ~1 | half, target & ~1 | half
    inner = [_permute(target[half == side] >> 1, 2 * distance) for side in (0, 1)]
    first, last = (np.zeros(target.size, np.bool_) for _ in range(2))
    first[entry], last[target] = entry != np.arange(target.size), leave != target
    middle = [
        (low[0], np.stack([low[1], high[1]], axis=1).ravel())
        for low, high in zip(*inner, strict=True)
    ]
    return [(distance, first), *middle, (distance, last)]


def _merged(stages: Stages) -> Stages:
    """Return fewer stages: two neighbours of equal distance become one that does what both do."""
    out: Stages = []
    for distance, bits in stages:
        if out and out[-1][0] == distance:
            before = out.pop()[1]
            partner = before[np.arange(bits.size) ^ distance]
            bits = np.where(bits, ~partner, before)
        out.append((distance, bits))
    return out


def route(source: Sequence[int] | Ints) -> Bits:
    """Return bool[stages, rows]: whether a row of a stage takes the value of its partner.

    After the last stage row p has the value of row `source[p]`; rows of source -1 may have any.
    The number of rows is a power of two.
    """
    wanted = np.asarray(source, np.int64)
    rows, rank = wanted.size, np.arange(wanted.size)
    wanted = np.where(wanted < 0, wanted.max(initial=0), wanted)
    order = np.argsort(wanted, kind="stable")
    used, copies = np.unique(wanted[order], return_inverse=True)
    up = [1 << bit for bit in range(rows.bit_length() - 1)]
    stages = [
        *_settle(used, rank[: used.size], rows, up),
        *_settle(copies, rank, rows, up[::-1]),
        *_permute(order),
    ]
    return np.array([bits for _, bits in _merged(stages)], np.bool_).reshape(-1, rows)


def distribute(bits: Bits, distances: Sequence[int], values: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return what the network makes of `values`, [..., rows], stage by stage."""
    rows = np.arange(values.shape[-1])
    for taken, distance in zip(bits, distances, strict=True):
        values = np.where(taken, values[..., rows ^ distance], values)
    return values
