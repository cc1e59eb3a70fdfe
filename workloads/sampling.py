"""Uniform random masks with an exact number of non-zeros, in bounded memory."""

import math
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose", "choose_groups", "choose_rows"]

Mask = NDArray[np.bool_]

CHUNK_ELEMENTS = 1 << 22
"""Elements drawn at a time, so that a large tensor needs little beyond its own mask."""

TABLE_ROWS = 1 << 14
"""Largest number of combinations kept as a look-up table."""


def choose(size: int, kept: int, rng: np.random.Generator) -> Mask:
    """Return bool[size] with exactly `kept` True, every such mask equally likely."""
    mask = np.zeros(size, dtype=np.bool_)
    for start in range(0, size, CHUNK_ELEMENTS):
        part = mask[start : start + CHUNK_ELEMENTS]
        rest = size - start - part.size
        # The share of one chunk follows the hypergeometric law: the draw stays exactly uniform.
        share = int(rng.hypergeometric(part.size, rest, kept)) if rest else kept
        part[rng.choice(part.size, share, replace=False, shuffle=False)] = True
        kept -= share
    return mask


@lru_cache(maxsize=64)
def _combination_table(length: int, kept: int) -> Mask:
    table = np.zeros((math.comb(length, kept), length), dtype=np.bool_)
    columns = np.array(list(combinations(range(length), kept)), dtype=np.intp)
    np.put_along_axis(table, columns.reshape(len(table), kept), True, axis=1)
    table.flags.writeable = False
    return table


def _choose_by_key(rows: int, length: int, kept: int, rng: np.random.Generator) -> Mask:
    mask = np.zeros((rows, length), dtype=np.bool_)
    step = max(1, CHUNK_ELEMENTS // length)
    for start in range(0, rows, step):
        part = mask[start : start + step]
        keys = rng.random(part.shape, dtype=np.float32)
        first = np.argpartition(keys, kept - 1, axis=1)[:, :kept]
        np.put_along_axis(part, first, True, axis=1)
    return mask


def choose_rows(rows: int, length: int, kept: int, rng: np.random.Generator) -> Mask:
    """Return bool[rows, length] with exactly `kept` True in every row, each row independent."""
    if kept in (0, length):
        return np.full((rows, length), kept > 0, dtype=np.bool_)
    if math.comb(length, kept) > TABLE_ROWS:
        return _choose_by_key(rows, length, kept, rng)
    table = _combination_table(length, kept)
    return table[rng.integers(len(table), size=rows, dtype=np.uint32)]


def choose_groups(rows: int, length: int, kept: int, group: int, rng: np.random.Generator) -> Mask:
    """Return bool[rows, length] with `kept` True in each `group` consecutive positions of a row.

    The last group is zero-padded when `group` does not divide `length`: its q real positions
    keep min(kept, q).
    """
    full, tail = divmod(length, group)
    body = choose_rows(rows * full, group, kept, rng).reshape(rows, full * group)
    if not tail:
        return body
    return np.concatenate([body, choose_rows(rows, tail, min(kept, tail), rng)], axis=1)
