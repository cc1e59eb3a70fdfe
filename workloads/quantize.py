"""Real numbers as a machine stores them: symmetric per-tensor int8, or fp16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["quantize", "stored"]

INT8_BITS = 8
FP16_BITS = 16
"""Widths of the operands that machines compute with."""

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


def stored(values: NDArray[np.floating], bits: int) -> NDArray[Any]:
    """Return `values` as operands of `bits` hold them: int8 codes for 8, float16 for 16.

    Raises ValueError for another width, and when a value is not finite as stored.
    """
    if bits == INT8_BITS:
        return quantize(values)[0]
    if bits != FP16_BITS:
        raise ValueError(f"Operands are {INT8_BITS} or {FP16_BITS} bits wide, not {bits}")
    with np.errstate(over="ignore"):
        half = np.asarray(values).astype(np.float16)
    if not np.isfinite(half).all():
        largest = float(np.abs(values).max())
        raise ValueError(f"fp16 holds magnitudes up to 65504, and the largest is {largest}")
    return half
