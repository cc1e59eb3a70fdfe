"""Marking distinct positions at random, in the order of numpy's `Generator.choice`.

The draw is that of `choice(size, kept, replace=False, shuffle=False)`, mark for mark and with the
generator left in the same state. Large draws run compiled, without an array of all positions.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["mark"]

Mask = NDArray[np.bool_]

LARGE: Final = 1 << 20
"""Positions from which compiling pays: loading the compiler takes as long as drawing some."""


def mark(mask: Mask, kept: int, rng: np.random.Generator) -> None:
    """Set `kept` positions of an empty bool[size], each set of so many equally likely."""
    size = mask.size
    if size < LARGE or not size // 20 < kept < size:
        # Sparser draws are numpy's own again: they go another way there, by sets.
        mask[rng.choice(size, kept, replace=False, shuffle=False)] = True
        return
    _kernel()(mask, rng.integers(0, _falling(size)[:kept], endpoint=True, dtype=np.uint32))


@lru_cache(maxsize=1)
def _falling(size: int) -> NDArray[np.uint32]:
    return np.arange(size - 1, -1, -1, dtype=np.uint32)


@lru_cache
def _kernel() -> Callable[[Mask, NDArray[np.uint32]], None]:
    from numba import njit

    try:
        compiled: Callable[[Mask, NDArray[np.uint32]], None] = njit(cache=True)(_shuffle)
    except RuntimeError:  # no folder can be written
        compiled = njit(_shuffle)
    return compiled


def _shuffle(mask: Any, drawn: Any) -> None:
    """Mark the tail of a shuffle of all positions that swaps the last one left with one drawn.

    A position that was never drawn still holds itself, so `mask` says which have moved.
    """
    moved = np.empty(mask.size, np.uint32)
    last = mask.size - 1
    for place in drawn:
        found = moved[place] if mask[place] else place
        moved[place] = moved[last] if mask[last] else last
        mask[found] = True
        last -= 1
