"""Tiles of one product in memory and in the buffers: transfers and address tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from rtl.machine.program import Region
from simulator.plan import GemmPlan
from workloads.canonical import Spec
from workloads.graph import Window, WindowUse

__all__ = ["Entries", "Move", "ProductLayout", "Tile"]

Ints = NDArray[np.int64]
Span = tuple[int, int]
"""Start and size."""

Tile = Mapping[str, Span]
"""What a tile covers of units, m, k and n."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries(Spec):
    """Address table entries: item addresses and image coordinates, each int64[entries]."""

    address: Ints
    y: Ints
    x: Ints

    @classmethod
    def plain(cls, address: Ints) -> "Entries":
        """Return entries without an image."""
        none = np.zeros_like(address)
        return cls(address=address, y=none, x=none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Spec):
    """A transfer of `items`, in bits from a region's start: runs, then (count, stride) outwards."""

    items: int
    start: int
    run: int
    strides: tuple[Span, ...] = ()

    @property
    def bits(self) -> int:
        """Bits moved."""
        return self.run * int(np.prod([count for count, _ in self.strides], dtype=np.int64))


def _matrix(bits: int, width: int, rows: Span, cols: Span) -> Move:
    """Return the move of a block of a matrix of `width` columns; items are `bits` wide."""
    (row, height), (col, across) = rows, cols
    start = (row * width + col) * bits
    if across == width:
        return Move(items=height * across, start=start, run=height * across * bits)
    return Move(
        items=height * across, start=start, run=across * bits, strides=((height, width * bits),)
    )


@dataclass(frozen=True, slots=True)
class _Image:
    """Image rows of a tile: which output pixels it has, and where their windows begin."""

    window: Window
    images: Span
    out_rows: Span
    whole: bool  # all image rows are held, as results need them

    @property
    def rows(self) -> Span:
        """Image rows held of each image: a fixed number, its start clamped to the image."""
        w = self.window
        if self.whole:
            return 0, w.image[0]
        reach = w.dilation[0] * (w.kernel[0] - 1) + 1
        height = min((self.out_rows[1] - 1) * w.stride[0] + reach, w.image[0])
        start = self.out_rows[0] * w.stride[0] - w.padding[0]
        return min(max(start, 0), w.image[0] - height), height

    @property
    def line(self) -> int:
        return self.window.image[1] * self.window.channels

    def move(self, bits: int) -> Move:
        (first, images), (start, height) = self.images, self.rows
        size = self.window.image[0] * self.line
        run = height * self.line
        begin = (first * size + start * self.line) * bits
        if height == self.window.image[0]:
            return Move(items=images * run, start=begin, run=images * run * bits)
        return Move(
            items=images * run, start=begin, run=run * bits, strides=((images, size * bits),)
        )

    def pixels(self) -> Entries:
        """Return where the window of each output pixel begins."""
        w, (start, height) = self.window, self.rows
        oy = np.arange(*_ends(self.out_rows), dtype=np.int64) * w.stride[0] - w.padding[0]
        ox = np.arange(w.out[1], dtype=np.int64) * w.stride[1] - w.padding[1]
        image = np.arange(self.images[1], dtype=np.int64) * height - start
        shape = (image.size, oy.size, ox.size)
        rows = image[:, None, None] + oy[:, None]
        address = (rows * w.image[1] + ox) * w.channels
        y, x = (np.broadcast_to(a, shape).ravel() for a in (oy[:, None], ox))
        return Entries(address=address.ravel(), y=y, x=x)

    def taps(self, span: Span) -> Entries:
        """Return where positions of a window lie, counted (kernel row, kernel column, channel)."""
        w = self.window
        at = np.arange(*_ends(span), dtype=np.int64)
        tap, channel = np.divmod(at, w.channels)
        ky, kx = np.divmod(tap, w.kernel[1])
        y, x = ky * w.dilation[0], kx * w.dilation[1]
        return Entries(address=(y * w.image[1] + x) * w.channels + channel, y=y, x=x)


def _ends(span: Span) -> Span:
    return span[0], span[0] + span[1]


@dataclass(frozen=True, slots=True)
class ProductLayout:
    """Where the tiles of a planned product lie; `transposed` says what is stored the other way.

    `act`: a weight gradient's activations, stored (k, m). `weight`: an input gradient's dense
    weights, stored (n, k).
    """

    plan: GemmPlan
    act_transposed: bool
    weight_transposed: bool
    item_bits: int

    @property
    def images(self) -> int:
        """Outer units: images of a convolution whose rows are cut along m."""
        p = self.plan
        rowed = p.window and p.window_use in (WindowUse.GATHER_M, WindowUse.SCATTER)
        return p.window.batch if p.window and rowed else 1

    @property
    def unit_m(self) -> int:
        """Rows of the product in one unit."""
        return self.plan.gemm.m // self.images

    def visits(self, depth: int) -> list[Tile]:
        """Return the tiles in the order in which the loops down to `depth` come to them."""
        p = self.plan
        extents = {"u": self.images, "m": self.unit_m, "n": p.gemm.n, "k": p.gemm.k}
        sizes = {"u": p.units, "m": p.m, "n": p.n, "k": p.k}
        spans = {
            index: [(at, min(sizes[index], end - at)) for at in range(0, end, sizes[index])]
            for index, end in extents.items()
        }
        order = (*p.order, "k")[: depth + 1]
        first = {index: cut[0] for index, cut in spans.items()}
        return [
            first | dict(zip(order, choice, strict=True))
            for choice in product(*(spans[index] for index in order))
        ]

    def _rows(self, tile: Tile) -> Span:
        (unit, units), (m, size) = tile["u"], tile["m"]
        return unit * self.unit_m + m, units * size

    def _image(self, tile: Tile, *, whole: bool = False) -> _Image:
        """Return the image rows behind a tile's pixels."""
        window = self.plan.window
        assert window is not None
        if self.plan.window_use is WindowUse.GATHER_K:
            start, size = tile["k"]
        else:
            start, size = self._rows(tile)
        pixels = window.out[0] * window.out[1]
        first, rest = divmod(start, pixels)
        if size >= pixels:
            return _Image(window, (first, size // pixels), (0, window.out[0]), whole)
        lines = rest // window.out[1], size // window.out[1]
        return _Image(window, (first, 1), lines, whole)

    @property
    def bounds(self) -> dict[str, int]:
        """Image sizes by which operands and results are clipped."""
        image = self.plan.window.image if self.plan.window else (1, 1)
        scatters = self.plan.window_use is WindowUse.SCATTER
        gathers = self.plan.window and not scatters
        act, out = image if gathers else (1, 1), image if scatters else (1, 1)
        return {
            "act_height": act[0],
            "act_width": act[1],
            "out_height": out[0],
            "out_width": out[1],
        }

    def act_move(self, tile: Tile) -> Move:
        """Return the load of a tile's activations."""
        p = self.plan
        if p.window and p.window_use is not WindowUse.SCATTER:
            return self._image(tile).move(self.item_bits)
        if self.act_transposed:
            return _matrix(self.item_bits, p.gemm.m, tile["k"], tile["m"])
        return _matrix(self.item_bits, p.gemm.k, self._rows(tile), tile["k"])

    def act_tables(self, tile: Tile) -> tuple[Entries, Entries]:
        """Return row entries along m and column entries along k."""
        p, k = self.plan, np.arange(tile["k"][1], dtype=np.int64)
        m = np.arange(self._rows(tile)[1], dtype=np.int64)
        if p.window and p.window_use is WindowUse.GATHER_M:
            image = self._image(tile)
            return image.pixels(), image.taps(tile["k"])
        if p.window and p.window_use is WindowUse.GATHER_K:
            image = self._image(tile)
            return image.taps(tile["m"]), image.pixels()
        if self.act_transposed:
            return Entries.plain(m), Entries.plain(k * m.size)
        return Entries.plain(m * k.size), Entries.plain(k)

    def weight_move(self, tile: Tile, region: Region) -> Move:
        """Return the load of a tile's weights, dense or compressed as its region is."""
        s, (k, n) = self.plan.setting, (tile["k"], tile["n"])
        if region.layout == "dense":
            if self.plan.select:
                return self._selected_move(tile)
            if self.weight_transposed:
                return _matrix(self.item_bits, self.plan.gemm.k, n, k)
            return _matrix(self.item_bits, self.plan.gemm.n, k, n)
        groups = k[0] // s.group, -(-k[1] // s.group)
        pair = self.item_bits + s.index_bits
        width = s.kept * -(-self.plan.gemm.k // s.group)
        if region.layout == "bp":
            return _matrix(pair, width, n, (groups[0] * s.kept, groups[1] * s.kept))
        across = n[0] * s.kept, n[1] * s.kept
        return _matrix(pair, self.plan.gemm.n * s.kept, groups, across)

    def _selected_move(self, tile: Tile) -> Move:
        """Return the load of dense weights a beat at a time, as SORE's lanes take them."""
        s, ((k, deep), (n, across)) = self.plan.setting, (tile["k"], tile["n"])
        lanes, bits = s.group, self.item_bits
        run, items = lanes * bits, -(-deep // s.group) * s.kept * across
        if self.weight_transposed:  # stored (n, k): a block of rows, group after group
            line = self.plan.gemm.k * bits
            strides = ((lanes, line), (deep // lanes, run), (across // lanes, lanes * line))
            return Move(items=items, start=n * line + k * bits, run=run, strides=strides)
        line = self.plan.gemm.n * bits
        columns = ((deep, line), (across // lanes, run))
        return Move(items=items, start=k * line + n * bits, run=run, strides=columns)

    def weight_tables(self, tile: Tile, region: Region) -> tuple[Entries, Entries]:
        """Return row entries along the pairs of the reduction and column entries along n."""
        s, (deep, across) = self.plan.setting, (tile["k"][1], tile["n"][1])
        n = np.arange(across, dtype=np.int64)
        groups = -(-deep // s.group)
        pairs = np.arange(groups * s.kept, dtype=np.int64)
        group, place = np.divmod(pairs, s.kept)
        if self.plan.select:
            block, lane = np.divmod(n, s.group)
            return Entries.plain(pairs * s.group), Entries.plain(
                block * pairs.size * s.group + lane
            )
        if region.layout == "ff":
            return Entries.plain(group * across * s.kept + place), Entries.plain(n * s.kept)
        if region.layout == "bp":
            return Entries.plain(pairs), Entries.plain(n * pairs.size)
        k = np.arange(deep, dtype=np.int64)
        if self.weight_transposed:
            return Entries.plain(k), Entries.plain(n * deep)
        return Entries.plain(k * across), Entries.plain(n)

    def out_move(self, tile: Tile) -> Move:
        """Return the store of a tile's results, and the load of what is saved beside them."""
        if self.plan.window_use is WindowUse.SCATTER:
            return self._image(tile, whole=True).move(self.item_bits)
        return _matrix(self.item_bits, self.plan.gemm.n, self._rows(tile), tile["n"])

    def out_tables(self, tile: Tile) -> tuple[Entries, Entries]:
        """Return row entries along m and column entries along n."""
        if self.plan.window_use is WindowUse.SCATTER:
            image = self._image(tile, whole=True)
            return image.pixels(), image.taps(tile["n"])
        across = tile["n"][1]
        rows = np.arange(self._rows(tile)[1], dtype=np.int64)
        return Entries.plain(rows * across), Entries.plain(np.arange(across, dtype=np.int64))
