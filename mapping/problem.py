"""What the NMArray mapper is asked: one GEMM, its window and its tiles' footprints.

A tile covers `units` outer units, and of each unit `m` rows of the product, `k` of the reduction
and `n` output features. An outer unit is one group of a grouped or batched product, or one image
of a convolution's batch; a tile of several units holds all their rows.

A window ties one dimension of the product to image rows: a forward convolution gathers its
activations' rows along m, a weight gradient along the reduction, and an input gradient scatters
its results into image rows along m, or along n if it is computed transposed. That tile then is
image rows with all their columns and channels, whatever part of the others the tile covers.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.nm_tile import NMSetting, Tile, kept_values
from workloads.canonical import Spec
from workloads.graph import Gemm, Window, WindowUse

__all__ = ["Problem", "TileShape", "image_rows"]

Ints = NDArray[np.int64]
IntLike = TypeVar("IntLike", int, Ints)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileShape(Spec):
    """Tile sizes, and the loops around the reduction from the outside in."""

    units: int
    m: int
    k: int
    n: int
    order: str = "umn"


def _least(value: IntLike, limit: int) -> IntLike:
    return np.minimum(value, limit) if isinstance(value, np.ndarray) else min(value, limit)


def _choose(rows: IntLike, least: int, then: IntLike, other: IntLike) -> IntLike:
    """Return `then` where rows >= least, else `other`."""
    if isinstance(rows, np.ndarray):
        return np.where(rows >= least, then, other)
    return then if rows >= least else other


def _span(window: Window, rows: IntLike) -> IntLike:
    """Return the image rows that `rows` output rows of one image span."""
    span = window.dilation[0] * (window.kernel[0] - 1) + 1
    stride = window.stride[0]
    need = (rows - 1) * stride + span if span >= stride else rows * span
    return _least(need, window.image[0])


def image_rows(window: Window, rows: IntLike) -> IntLike:
    """Return the image rows that `rows` output rows span, of one image or of several whole ones.

    A DMA descriptor has a fixed height with its start clamped to the image, so border tiles fetch
    as much as inner ones. Overlapping rows of one tile are fetched once; a stride wider than the
    kernel skips the rows between.
    """
    out = window.out[0]
    return _choose(rows, out, rows // out * _span(window, out), _span(window, rows))


def _stored_rows(window: Window, rows: IntLike) -> IntLike:
    """Return the image rows that are final after `rows` output rows: the rest is still added to."""
    height, out = window.image[0], window.out[0]
    return _choose(rows, out, rows // out * height, _least(rows * window.stride[0], height))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Spec):
    """One GEMM-like operator to be mapped; operators that compare equal map alike."""

    gemm: Gemm
    window: Window | None = None
    window_use: WindowUse = WindowUse.GATHER_M
    compressed: tuple[int, int] | None = None  # (N, M) the array can skip by, else dense
    select: bool = False  # stored dense: SORE compresses on the way to the buffer
    turned: bool = False  # selected along the axis that memory stores contiguously
    saved: bool = False  # results meet a tensor of their own shape on the way out
    kept_in: int = 0  # bits of the activations that are in their buffer, 0: tiles are loaded
    kept_out: int = 0  # bits of the results that stay in the activation buffer, 0: they are stored

    def __post_init__(self) -> None:
        # A 1 x 1 window over contiguous pixels is a plain product: no rows, no halo.
        w = self.window
        if w and w.kernel == w.stride == (1, 1) and not any(w.padding):
            object.__setattr__(self, "window", None)
        if self.window is None:
            object.__setattr__(self, "window_use", WindowUse.GATHER_M)
        object.__setattr__(self, "turned", self.turned and self.select)

    @property
    def shared_weights(self) -> bool:
        """Whether all outer units use the same weights (images of a batch)."""
        return self.gemm.groups == 1

    @property
    def _images(self) -> int:
        """Images that are outer units: those along m; along k and n they follow each other."""
        return self.window.batch if self.window and self.rowed == "m" else 1

    @property
    def _use(self) -> WindowUse | None:
        return self.window_use if self.window else None

    @property
    def units(self) -> int:
        """Number of outer units."""
        return self.gemm.groups * self._images

    @property
    def unit_m(self) -> int:
        """Rows of the product in one unit."""
        return self.gemm.m // self._images

    @property
    def rowed(self) -> str:
        """The dimension that is cut in whole image rows: "m", "k" or none."""
        along = {None: "", WindowUse.GATHER_K: "k", WindowUse.SCATTER_N: "n"}
        return along.get(self._use, "m")

    @property
    def row(self) -> int:
        """Output pixels of one image row: the quantum of the `rowed` dimension."""
        return self.window.out[1] if self.window else 1

    @property
    def indices(self) -> dict[str, str]:
        """The tile loops that change each operand's tile."""
        gathers = {WindowUse.GATHER_M: "um", WindowUse.GATHER_K: "uk"}
        act = gathers.get(self._use, "umk") if self._use else "umk"
        scatters = {WindowUse.SCATTER: "um", WindowUse.SCATTER_N: "un"}
        return {
            "act": act,
            "weight": "kn" if self.shared_weights else "ukn",
            "out": scatters.get(self._use, "umn") if self._use else "umn",
        }

    def packed(self, groups: int) -> "Problem":
        """Return the same operator with `groups` neighbouring groups as one product.

        Its weights are block-diagonal: of the channels of all these groups at one kernel position,
        which are neighbours along k, an output feature keeps its own group's. That is N:M with
        N = channels and M = groups * channels, which the array skips by; so a depthwise
        convolution fills M columns where one group alone fills one.
        """
        g, w = self.gemm, self.window
        return Problem(
            gemm=replace(g, groups=g.groups // groups, k=g.k * groups, n=g.n * groups),
            window=replace(w, channels=w.channels * groups) if w else None,
            window_use=self.window_use,
            compressed=(self.pack_channels, self.pack_channels * groups),
            saved=self.saved,
            kept_in=self.kept_in,
            kept_out=self.kept_out,
        )

    @property
    def pack_channels(self) -> int:
        """Neighbours along k that belong to one group; 0 if groups cannot be packed."""
        if self.window is None or self.gemm.groups == 1 or self.rowed != "m":
            return 0
        return self.gemm.k if self._use is WindowUse.SCATTER else self.window.channels

    @property
    def kept_bytes(self) -> int:
        """Bytes of the activation buffer that tensors kept on chip take."""
        return -(-self.kept_in // 8) - (-self.kept_out // 8)

    @property
    def whole(self) -> TileShape:
        """The whole problem as one tile."""
        return TileShape(units=self.units, m=self.unit_m, k=self.gemm.k, n=self.gemm.n)

    def array_tile(self, shape: TileShape) -> Tile:
        """Return what the array sees: images join in m, groups stay apart."""
        if self.shared_weights:
            return Tile(groups=1, m=shape.units * shape.m, k=shape.k, n=shape.n)
        return Tile(groups=shape.units, m=shape.m, k=shape.k, n=shape.n)

    def _image_elements(self, units: IntLike, size: IntLike, *, final: bool = False) -> IntLike:
        """Return the elements of the image rows behind `size` of the rowed dimension.

        With `final`, of those that no later tile adds to.
        """
        assert self.window is not None
        rows = (_stored_rows if final else image_rows)(self.window, size // self.row)
        return units * rows * (self.window.image[1] * self.window.channels)

    def act_elements(self, units: IntLike, m: IntLike, k: IntLike) -> IntLike:
        """Return the activations fetched for a tile."""
        match self._use:
            case WindowUse.GATHER_M:
                return self._image_elements(units, m)
            case WindowUse.GATHER_K:
                return self._image_elements(units, k)
            case _:
                return units * m * k

    def weight_values(self, setting: NMSetting, units: IntLike, k: IntLike, n: IntLike) -> IntLike:
        """Return the weight values stored for a tile, each with its index if compressed."""
        values = n * kept_values(setting, k)
        return values if self.shared_weights else units * values

    def out_elements(self, units: IntLike, m: IntLike, n: IntLike) -> IntLike:
        """Return the sums a tile accumulates in the output buffer."""
        return self._results(units, m, n, final=False)

    def stored_elements(self, units: IntLike, m: IntLike, n: IntLike) -> IntLike:
        """Return the results a tile writes to memory."""
        return self._results(units, m, n, final=True)

    def _results(self, units: IntLike, m: IntLike, n: IntLike, *, final: bool) -> IntLike:
        match self._use:
            case WindowUse.SCATTER:
                return self._image_elements(units, m, final=final)
            case WindowUse.SCATTER_N:
                return self._image_elements(units, n, final=final)
            case _:
                return units * m * n
