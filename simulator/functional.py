"""Values, not time: a GEMM's results by the very beats the array receives.

Operands are compressed, packed into the array's operand beats, multiplied as its PEs select
them, and unpacked again; so the result depends on the storage format, the indices and the fold
order exactly as the hardware's does: int8 sums equal a plain integer product bit for bit, fp32
sums have the hardware's order of addition.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.arch import NMArray
from simulator.nm_tile import NMSetting, Tile, tile_job
from simulator.units.nm_array import respond
from simulator.units.nm_beats import pack, unpack
from workloads.graph import Window

__all__ = ["im2col", "patches", "product"]

Operands = NDArray[Any]
"""int8 or float16, as the array's precision says; sums are int32 or float32."""

BEAT_ITEMS = 1 << 22
"""Operand items unrolled into beats at a time: bounds memory, not results."""


def im2col(window: Window, image: Operands) -> Operands:
    """Return the GEMM's activations [m, k] of an image [batch, h, w, channels], of its type.

    m runs over (batch, out h, out w), k over (kh, kw, channel) with the channel fastest; border
    positions are zero.
    """
    seen = patches(window, image)
    return np.ascontiguousarray(seen).reshape(-1, seen[0, 0, 0].size)


def patches(window: Window, image: Operands) -> Operands:
    """Return the windows of an image, [batch, out h, out w, kh, kw, channels].

    They are a view of the padded image: memory grows when they are copied, a part at a time.
    """
    top, left, bottom, right = window.padding
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)))
    span = [d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    (sh, sw), (dh, dw) = window.stride, window.dilation
    return seen[:, ::sh, ::sw, :, ::dh, ::dw].transpose(0, 1, 2, 4, 5, 3)


def product(arch: NMArray, setting: NMSetting, act: Operands, weight: Operands) -> NDArray[Any]:
    """Return act [m, k] times weight [k, n] as `arch` computes it, its sums [m, n].

    Raises ValueError if a group of the weights holds more than N non-zeros.
    """
    (m, k), n = act.shape, weight.shape[1]
    rows = max(1, BEAT_ITEMS // (k * -(-n // arch.cols)))
    parts = []
    for start in range(0, m, rows):
        part = act[start : start + rows]
        job = tile_job(arch, setting, Tile(groups=1, m=len(part), k=k, n=n))
        beats = respond(job, pack(job, part, weight))
        parts.append(unpack(job, beats, m=len(part), n=n))
    return np.concatenate(parts)
