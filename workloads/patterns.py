"""Positional sparsity: masks that follow from the indices of a matrix alone.

A pattern decides on element (i, j) of a matrix of `rows` by `cols`; in an attention map i is the
query and j the key. Each pattern states its mask and, without building it, its non-zeros per row.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from workloads.canonical import Spec

__all__ = [
    "AShape",
    "Band",
    "BlockWindow",
    "Diagonal",
    "MultiDiagonal",
    "Pattern",
    "Radial",
    "VerticalSlash",
    "VerticalStripe",
]

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


def _indices(rows: int, cols: int) -> tuple[Counts, Counts]:
    i, j = np.ogrid[:rows, :cols]
    return i, j


def _at_least(pattern: object, name: str, least: int) -> None:
    value = getattr(pattern, name)
    if value < least:
        kind = type(pattern).__name__
        raise ValueError(f"{kind} {name} must be at least {least}, not {value}")


def _span(low: Counts, high: Counts, cols: int) -> Counts:
    """Columns of [low, high] that exist, per row."""
    width = np.minimum(high, cols - 1) - np.maximum(low, 0) + 1
    return np.asarray(np.maximum(width, 0))


@dataclass(frozen=True, slots=True)
class Band(Spec):
    """The main diagonal with `below` diagonals under it and `above` over it (sliding window)."""

    below: int
    above: int = 0

    def __post_init__(self) -> None:
        _at_least(self, "below", 0)
        _at_least(self, "above", 0)

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        i, j = _indices(rows, cols)
        return np.asarray((j - i >= -self.below) & (j - i <= self.above))

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        i = np.arange(rows)
        return _span(i - self.below, i + self.above, cols)


@dataclass(frozen=True, slots=True)
class MultiDiagonal(Spec):
    """The diagonals j - i in `offsets`; negative offsets lie under the main diagonal."""

    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.offsets:
            raise ValueError("MultiDiagonal needs at least one offset, not an empty tuple")
        object.__setattr__(self, "offsets", tuple(sorted(set(self.offsets))))

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        i, j = _indices(rows, cols)
        return np.isin(j - i, self.offsets)

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        i = np.arange(rows)[:, None]
        j = i + np.array(self.offsets)
        return np.asarray(np.count_nonzero((j >= 0) & (j < cols), axis=1))


@dataclass(frozen=True, slots=True)
class Diagonal(Spec):
    """The single diagonal j - i = `offset`."""

    offset: int = 0

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        return MultiDiagonal((self.offset,)).mask(rows, cols)

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        return MultiDiagonal((self.offset,)).row_counts(rows, cols)


@dataclass(frozen=True, slots=True)
class VerticalStripe(Spec):
    """`width` full columns at the start of every `period` columns."""

    period: int
    width: int = 1

    def __post_init__(self) -> None:
        _at_least(self, "period", 1)
        if not 0 <= self.width <= self.period:
            raise ValueError(
                f"VerticalStripe width must be 0 to period = {self.period}, not {self.width}"
            )

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        return np.tile(np.arange(cols) % self.period < self.width, (rows, 1))

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        full, tail = divmod(cols, self.period)
        return np.full(rows, full * self.width + min(tail, self.width), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class AShape(Spec):
    """Causal attention to the first `sink` keys and the last `window` keys (MInference)."""

    sink: int
    window: int

    def __post_init__(self) -> None:
        _at_least(self, "sink", 0)
        _at_least(self, "window", 1)

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        i, j = _indices(rows, cols)
        return np.asarray((j <= i) & ((j < self.sink) | (i - j < self.window)))

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        i = np.arange(rows)
        sink = _span(np.zeros_like(i), np.minimum(i, self.sink - 1), cols)
        return sink + _span(np.maximum(i - self.window + 1, self.sink), i, cols)


@dataclass(frozen=True, slots=True)
class VerticalSlash(Spec):
    """Causal attention to chosen key `columns` and at chosen distances `slashes` (MInference)."""

    columns: tuple[int, ...]
    slashes: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("columns", "slashes"):
            values = tuple(sorted(set(getattr(self, name))))
            if values and values[0] < 0:
                raise ValueError(f"VerticalSlash {name} must be at least 0, not {values[0]}")
            object.__setattr__(self, name, values)

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        i, j = _indices(rows, cols)
        chosen = np.isin(j, self.columns) | np.isin(i - j, self.slashes)
        return np.asarray((j <= i) & chosen)

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        i = np.arange(rows)
        columns = np.array([c for c in self.columns if c < cols], dtype=np.int64)
        j = i[:, None] - np.array(self.slashes, dtype=np.int64)
        slashes = (j >= 0) & (j < cols) & ~np.isin(j, columns)
        vertical = np.searchsorted(columns, i, side="right")
        return np.asarray(vertical + np.count_nonzero(slashes, axis=1))


@dataclass(frozen=True, slots=True)
class BlockWindow(Spec):
    """Non-overlapping windows of `width` tokens, each dense inside and blind outside."""

    width: int

    def __post_init__(self) -> None:
        _at_least(self, "width", 1)

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        i, j = _indices(rows, cols)
        return np.asarray(i // self.width == j // self.width)

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]."""
        first = np.arange(rows) // self.width * self.width
        return _span(first, first + self.width - 1, cols)


@dataclass(frozen=True, slots=True)
class Radial(Spec):
    """Spatial reach that halves with every doubling of temporal distance (arXiv 2506.19852).

    Tokens come in frames of `frame`. Between frames d apart, with p the largest power of two up
    to max(d, 1), position k sees position l when |k - l| + 1 <= frame / p; once p exceeds `frame`
    only equal positions of every ceil(p / frame)-th frame remain.
    """

    frame: int

    def __post_init__(self) -> None:
        _at_least(self, "frame", 1)

    def _widths(self, distance: Counts) -> Counts:
        """Return w so that |k - l| < w is kept; 0 drops the pair of frames."""
        power = 1 << (np.frexp(np.maximum(distance, 1))[1].astype(np.int64) - 1)
        far = distance % -(-power // self.frame) == 0
        return np.where(power <= self.frame, self.frame // power, far)

    def mask(self, rows: int, cols: int) -> Mask:
        """Return bool[rows, cols]."""
        i, j = _indices(rows, cols)
        width = self._widths(np.abs(i // self.frame - j // self.frame))
        return np.asarray(np.abs(i % self.frame - j % self.frame) < width)

    def row_counts(self, rows: int, cols: int) -> Counts:
        """Return the non-zeros of each row, int64[rows]; needs rows x frames memory."""
        i = np.arange(rows)[:, None]
        first = np.arange(0, cols, self.frame)
        width = self._widths(np.abs(i // self.frame - first // self.frame))
        centre = i % self.frame
        last = np.minimum(self.frame, cols - first) - 1
        span = np.minimum(centre + width - 1, last) - np.maximum(centre - width + 1, 0) + 1
        return np.asarray(np.maximum(span, 0).sum(axis=1))


Pattern: TypeAlias = (
    Diagonal | MultiDiagonal | VerticalStripe | AShape | VerticalSlash | Band | BlockWindow | Radial
)
