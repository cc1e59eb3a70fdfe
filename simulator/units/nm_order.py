"""fp32 sums in a stated order: what an adder that takes one term after the other returns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_order"]

Single = NDArray[np.float32]


def in_order(terms: Single, start: Single | Any = 0.0) -> Single:
    """Return start + terms[0] + terms[1] + ... in fp32, strictly from left to right.

    terms: float32[..., terms, items], contiguous and overwritten; start: float32[..., items] or
    +0; returns float32[..., items]. A NaN keeps whatever bits the processor gives it.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        terms[..., 0, :] += start
        if terms.shape[-1] > 1:
            # numpy sums pairwise along the fastest axis only; along any other it adds row to row.
            summed: Single = np.add.reduce(terms, axis=-2)
            return summed
        running: Single = np.add.accumulate(terms, axis=-2)
        return running[..., -1, :]
