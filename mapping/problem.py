"""What the NMArray mapper is asked: one GEMM, its window and its setting, and tile footprints.

A tile covers `units` outer units, and of each unit `m` rows of the product, `k` of the reduction
and `n` output features. An outer unit is one group of a grouped or batched product, or one image
of a convolution's batch; several units share a tile only when the tile holds them whole.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator.nm_tile import NMSetting, Tile, encoded_bits
from workloads.canonical import Spec
from workloads.graph import Gemm, Window

__all__ = ["Problem", "TileShape", "input_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileShape(Spec):
    """Tile sizes, and whether m or n is the outer loop around the reduction."""

    units: int
    m: int
    k: int
    n: int
    order: str = "mn"


def input_rows(window: Window, rows: "int | NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return the image rows a DMA descriptor fetches for `rows` output rows of one image.

    The descriptor has a fixed height with its start clamped to the image, so border tiles fetch
    as much as inner ones. Overlapping rows of one tile are fetched once; a stride wider than the
    kernel skips the rows between.
    """
    span = window.dilation[0] * (window.kernel[0] - 1) + 1
    stride = window.stride[0]
    rows = np.asarray(rows, dtype=np.int64)
    need = (rows - 1) * stride + span if span >= stride else rows * span
    return np.minimum(need, window.image[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Spec):
    """One GEMM-like operator to be mapped; operators that compare equal map alike."""

    gemm: Gemm
    window: Window | None
    compressed: tuple[int, int] | None  # (N, M) the array can skip by, else dense

    def __post_init__(self) -> None:
        # A 1 x 1 window over contiguous pixels is a plain product: no rows, no halo.
        w = self.window
        if w and w.kernel == w.stride == (1, 1) and not any(w.padding):
            object.__setattr__(self, "window", None)

    @property
    def shared_weights(self) -> bool:
        """Whether all outer units use the same weights (images of a batch)."""
        return self.gemm.groups == 1

    @property
    def units(self) -> int:
        """Number of outer units."""
        return self.gemm.groups * (self.window.batch if self.window else 1)

    @property
    def unit_m(self) -> int:
        """Rows of the product in one unit."""
        return self.gemm.m // (self.window.batch if self.window else 1)

    @property
    def row(self) -> int:
        """Quantum of m: output pixels of one image row, whose input a descriptor fetches."""
        return self.window.out[1] if self.window else 1

    def packed(self, groups: int) -> "Problem":
        """Return the same operator with `groups` neighbouring groups as one product.

        Its weights are block-diagonal: of the groups * cin channels at one kernel position, which
        are neighbours along k, an output feature keeps its own group's cin. That is N:M with
        N = cin and M = groups * cin, which the array skips by; so a depthwise convolution fills
        M columns where one group alone fills one.
        """
        g, w = self.gemm, self.window
        channels = w.channels if w else g.k
        return Problem(
            gemm=replace(g, groups=g.groups // groups, k=g.k * groups, n=g.n * groups),
            window=replace(w, channels=channels * groups) if w else None,
            compressed=(channels, channels * groups),
        )

    @property
    def whole(self) -> TileShape:
        """The whole problem as one tile."""
        return TileShape(units=self.units, m=self.unit_m, k=self.gemm.k, n=self.gemm.n)

    def array_tile(self, shape: TileShape) -> Tile:
        """Return what the array sees: images join in m, groups stay apart."""
        if self.shared_weights:
            return Tile(groups=1, m=shape.units * shape.m, k=shape.k, n=shape.n)
        return Tile(groups=shape.units, m=shape.m, k=shape.k, n=shape.n)

    def act_bytes(self, units: int, m: int, k: int) -> int:
        """Bytes of activations fetched for a tile; a window's tile holds the whole reduction."""
        if self.window is None:
            return units * m * k
        rows = int(input_rows(self.window, m // self.row))
        return units * rows * self.window.image[1] * self.window.channels

    def weight_bits(self, setting: NMSetting, units: int, k: int, n: int) -> tuple[int, int]:
        """Return (value bits, index bits) of the weights stored for a tile."""
        groups = 1 if self.shared_weights else units
        return encoded_bits(setting, Tile(groups=groups, m=1, k=k, n=n))
