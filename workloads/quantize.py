"""Symmetric per-tensor int8 quantisation."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["quantize"]

LIMIT = 127
"""-128 stays unused, so that a value and its negative are equally far from zero."""


def quantize(values: NDArray[np.floating]) -> tuple[NDArray[np.int8], float]:
    """Return int8 codes of the same shape and the scale with values ~ codes * scale.

    scale = max|values| / 127, or 1 when every value is zero; codes round half to even. Raises
    ValueError when a value is not finite.

    >>> codes, scale = quantize(np.array([-254.0, 3.0, 1.0]))
    >>> codes.tolist(), scale
    ([-127, 2, 0], 2.0)
    """
    wide = np.asarray(values, dtype=np.float64)
    largest = float(np.abs(wide).max(initial=0.0))
    if not np.isfinite(largest):
        raise ValueError(f"Only finite values can be quantised, and the largest is {largest}")
    scale = largest / LIMIT or 1.0
    return np.clip(np.rint(wide / scale), -LIMIT, LIMIT).astype(np.int8), scale
