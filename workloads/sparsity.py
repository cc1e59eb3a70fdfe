"""The closed union of sparsity structures: what share of a tensor is zero, and where.

Every type draws an exact boolean mask from an explicit random generator and counts its non-zeros
in closed form. `axis` is the reduction axis of the tensor at hand: -2 for weights of shape
(k, n) or (g, k, n), -1 for activations.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workloads.canonical import Spec, digest
from workloads.patterns import Pattern
from workloads.sampling import choose, choose_groups, choose_rows

__all__ = [
    "SPARSITY_FORMS",
    "Balanced",
    "Block",
    "ConstantFanIn",
    "Dense",
    "Explicit",
    "NofM",
    "Positional",
    "Sparsity",
    "Unstructured",
    "check_sparsity",
    "parse",
]

Mask = NDArray[np.bool_]
Shape: TypeAlias = tuple[int, ...]

SPARSITY_FORMS: Final = "dense, N:M, unstructured:D, block:RxC:D or balanced:B:D"
"""The forms `parse` reads, as error messages list them."""


def _rest(shape: Shape, axis: int) -> tuple[Shape, int]:
    """Split a shape into the sizes off the reduction axis and the reduction's length."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"Reduction axis {axis} lies outside a tensor of shape {shape}")
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :], shape[axis]


def _along(rows: Mask, shape: Shape, axis: int) -> Mask:
    """Undo `_rest`: bool[rest, length] back to `shape`."""
    rest, length = _rest(shape, axis)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(*rest, length), -1, axis))


def _check_density(density: float) -> None:
    if not 0 <= density <= 1:
        raise ValueError(f"Density must lie between 0 and 1, not {density}")


def _integer(value: object, name: str) -> int:
    if not isinstance(value, int | np.integer):
        raise ValueError(f"N:M sparsity needs a whole {name}, not {value}")
    return int(value)


def _matrix(shape: Shape, kind: str) -> tuple[int, int, int]:
    """Split a shape into leading elements, rows and columns."""
    if len(shape) < 2:
        raise ValueError(f"{kind} sparsity needs at least two axes, not shape {shape}")
    return math.prod(shape[:-2]), shape[-2], shape[-1]


class _Counted(Spec, ABC):
    """What every structure derives from its `nnz`."""

    __slots__ = ()

    @abstractmethod
    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the exact number of non-zeros of every mask of `shape`, without drawing one."""

    def density_for(self, shape: Shape, *, axis: int = -2) -> float:
        """Return the exact share of non-zeros in a tensor of `shape`."""
        return self.nnz(shape, axis=axis) / math.prod(shape)


@dataclass(frozen=True, slots=True)
class Dense(_Counted):
    """Nothing is zero."""

    def __str__(self) -> str:
        return "dense"

    @property
    def density(self) -> float:
        """Share of non-zeros."""
        return 1.0

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the number of elements."""
        return math.prod(shape)

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape], all True; `rng` is not used."""
        return np.ones(shape, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class NofM(_Counted):
    """`n` non-zeros in each `m` consecutive positions along the reduction.

    `n` is one int, or one per output feature (the last axis that is not the reduction; for
    grouped weights either n or g*n of them). `axis` overrides the reduction axis of the tensor.
    A last group of q < m positions is zero-padded and keeps min(n, q).
    """

    n: int | tuple[int, ...]
    m: int
    axis: int | None = None

    def __post_init__(self) -> None:
        kept = tuple(_integer(v, "N") for v in np.atleast_1d(self.n))
        object.__setattr__(self, "n", kept if np.ndim(self.n) else kept[0])
        object.__setattr__(self, "m", _integer(self.m, "M"))
        if not kept:
            raise ValueError("N:M sparsity needs at least one N, not an empty tuple")
        worst = min(kept) if min(kept) < 0 else max(kept)
        if not 0 <= worst <= self.m or self.m < 1:
            raise ValueError(f"N:M sparsity needs 0 <= N <= M and M >= 1, not {worst}:{self.m}")

    def __str__(self) -> str:
        n = self.n if isinstance(self.n, int) else "{" + ",".join(map(str, self.n)) + "}"
        return f"{n}:{self.m}"

    @property
    def density(self) -> float:
        """Share of non-zeros in a reduction that `m` divides."""
        kept = (self.n,) if isinstance(self.n, int) else self.n
        return sum(kept) / (self.m * len(kept))

    def kept_per_vector(self, rest: Shape) -> int | NDArray[np.int64]:
        """Return N for every vector along the reduction; `rest` is the shape of the other axes."""
        if isinstance(self.n, int):
            return self.n
        rows, features = math.prod(rest), rest[-1] if rest else 1
        if len(self.n) not in (features, rows):
            raise ValueError(
                f"N:M sparsity gives {len(self.n)} values of N for {features} output features"
            )
        return np.tile(np.array(self.n, dtype=np.int64), rows // len(self.n))

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the exact number of non-zeros of every mask of `shape`."""
        rest, length = _rest(shape, axis if self.axis is None else self.axis)
        full, tail = divmod(length, self.m)
        n = self.kept_per_vector(rest)
        if isinstance(n, int):
            return math.prod(rest) * (full * n + min(n, tail))
        return int((full * n + np.minimum(n, tail)).sum())

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape]; within each group every choice is equally likely."""
        axis = axis if self.axis is None else self.axis
        rest, length = _rest(shape, axis)
        n = self.kept_per_vector(rest)
        if isinstance(n, int):
            rows = choose_groups(math.prod(rest), length, n, self.m, rng)
            return _along(rows, shape, axis)
        rows = np.empty((math.prod(rest), length), dtype=np.bool_)
        for kept in np.unique(n):
            chosen = n == kept
            count = int(np.count_nonzero(chosen))
            rows[chosen] = choose_groups(count, length, int(kept), self.m, rng)
        return _along(rows, shape, axis)


@dataclass(frozen=True, slots=True)
class Unstructured(_Counted):
    """Exactly round(density * size) non-zeros anywhere (half rounds to even)."""

    density: float

    def __post_init__(self) -> None:
        _check_density(self.density)

    def __str__(self) -> str:
        return f"unstructured:{self.density}"

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return round(density * size)."""
        return round(self.density * math.prod(shape))

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape], every mask of that many non-zeros equally likely."""
        return choose(math.prod(shape), self.nnz(shape), rng).reshape(shape)


@dataclass(frozen=True, slots=True)
class Block(_Counted):
    """Whole blocks of `shape` over the last two axes, round(density * blocks) of them kept.

    Blocks cut off by the tensor's edge count as blocks. Interior, right-edge, bottom-edge and
    corner blocks are kept in proportion, so the number of non-zeros does not depend on the draw.
    """

    shape: tuple[int, int]
    density: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"Block shape must be two sizes of at least 1, not {self.shape}")
        _check_density(self.density)

    def __str__(self) -> str:
        return f"block:{self.shape[0]}x{self.shape[1]}:{self.density}"

    def strata(self, shape: Shape) -> list[tuple[slice, slice, int, int]]:
        """Return (grid rows, grid columns, blocks kept, elements per block) of each block class."""
        lead, rows, cols = _matrix(shape, "Block")
        parts = [
            (down, across, lead * (down.stop - down.start) * (across.stop - across.start), h * w)
            for down, h in _edges(rows, self.shape[0])
            for across, w in _edges(cols, self.shape[1])
        ]
        kept = _apportion([count for _, _, count, _ in parts], self.density)
        return [(d, a, k, area) for (d, a, _, area), k in zip(parts, kept, strict=True)]

    def grid(self, shape: Shape) -> Shape:
        """Return the shape of the tensor counted in blocks: leading axes as one, rows, columns."""
        lead, rows, cols = _matrix(shape, "Block")
        return lead, -(-rows // self.shape[0]), -(-cols // self.shape[1])

    def expand(self, kept: Mask, shape: Shape) -> Mask:
        """Turn a mask over blocks, bool[grid], into one over elements, bool[shape]."""
        _, rows, cols = _matrix(shape, "Block")
        tall = np.repeat(kept, self.shape[0], axis=1)[:, :rows]
        return np.repeat(tall, self.shape[1], axis=2)[:, :, :cols].reshape(shape)

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the exact number of elements in kept blocks."""
        return sum(kept * area for _, _, kept, area in self.strata(shape))

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape]; within each class of blocks every choice is equally likely."""
        grid = np.zeros(self.grid(shape), dtype=np.bool_)
        for down, across, kept, _ in self.strata(shape):
            part = grid[:, down, across]
            grid[:, down, across] = choose(part.size, kept, rng).reshape(part.shape)
        return self.expand(grid, shape)


def _edges(length: int, step: int) -> list[tuple[slice, int]]:
    """Return (block indices, block length) of the whole blocks and of the cut one, if any."""
    full, tail = divmod(length, step)
    edges = [(slice(0, full), step)] if full else []
    return [*edges, (slice(full, full + 1), tail)] if tail else edges


def _apportion(counts: list[int], density: float) -> list[int]:
    """Split round(density * sum) over classes by largest remainder (ties: the earlier class)."""
    shares = [density * count for count in counts]
    kept = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda i: kept[i] - shares[i])
    for i in by_remainder[: round(density * sum(counts)) - sum(kept)]:
        kept[i] += 1
    return kept


@dataclass(frozen=True, slots=True)
class Balanced(_Counted):
    """round(density * bank) non-zeros in every `bank` positions along the reduction (S4-like).

    A last bank of q positions is zero-padded and keeps min of that number and q. The realised
    density is that of `density_for`, since banks hold whole non-zeros.
    """

    bank: int
    density: float

    def __post_init__(self) -> None:
        if self.bank < 1:
            raise ValueError(f"Balanced bank must be at least 1, not {self.bank}")
        _check_density(self.density)

    def __str__(self) -> str:
        return f"balanced:{self.bank}:{self.density}"

    @property
    def as_nofm(self) -> NofM:
        """The same structure as N non-zeros of each M = bank."""
        return NofM(round(self.density * self.bank), self.bank)

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the exact number of non-zeros of every mask of `shape`."""
        return self.as_nofm.nnz(shape, axis=axis)

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape]; within each bank every choice is equally likely."""
        return self.as_nofm.sample(shape, rng, axis=axis)


@dataclass(frozen=True, slots=True)
class ConstantFanIn(_Counted):
    """Exactly min(k, reduction) non-zeros for every output feature, anywhere in its reduction."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"ConstantFanIn k must be at least 0, not {self.k}")

    def __str__(self) -> str:
        return f"fan-in:{self.k}"

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the exact number of non-zeros of every mask of `shape`."""
        rest, length = _rest(shape, axis)
        return math.prod(rest) * min(self.k, length)

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape]; every choice of a feature's inputs is equally likely."""
        rest, length = _rest(shape, axis)
        rows = choose_rows(math.prod(rest), length, min(self.k, length), rng)
        return _along(rows, shape, axis)


@dataclass(frozen=True, slots=True)
class Positional(_Counted):
    """A pattern of indices over the last two axes, the same for every leading index."""

    pattern: Pattern

    def __str__(self) -> str:
        return f"positional:{type(self.pattern).__name__}"

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the exact number of non-zeros of the mask of `shape`."""
        lead, rows, cols = _matrix(shape, "Positional")
        return lead * int(self.pattern.row_counts(rows, cols).sum())

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return bool[shape]; `rng` is not used."""
        lead, rows, cols = _matrix(shape, "Positional")
        return np.tile(self.pattern.mask(rows, cols), (lead, 1, 1)).reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Explicit(_Counted):
    """A given mask, copied, read-only and True where the tensor may be non-zero.

    Equality and hash follow the mask's shape and bits.
    """

    mask: Mask

    def __init__(self, mask: ArrayLike) -> None:
        array = np.array(mask)
        if array.dtype.kind not in "buif":
            raise ValueError(f"An explicit mask must hold booleans or 0 and 1, not {array.dtype}")
        odd = array[(array != 0) & (array != 1)]
        if odd.size:
            raise ValueError(
                f"An explicit mask must hold booleans or 0 and 1, not {odd.flat[0]}; "
                "the mask of a tensor is `tensor != 0`"
            )
        if array.size == 0:
            raise ValueError(
                f"An explicit mask needs at least one element, not shape {array.shape}"
            )
        array = np.ascontiguousarray(array != 0)
        array.flags.writeable = False
        object.__setattr__(self, "mask", array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Explicit) and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash(digest(self.mask))

    def __str__(self) -> str:
        return f"explicit:{'x'.join(map(str, self.mask.shape))}:{digest(self.mask)[:12]}"

    @property
    def density(self) -> float:
        """Share of non-zeros."""
        return int(np.count_nonzero(self.mask)) / self.mask.size

    def _check(self, shape: Shape) -> None:
        if self.mask.shape != tuple(shape):
            raise ValueError(
                f"Explicit mask has shape {self.mask.shape}, but its tensor has shape {shape}"
            )

    def nnz(self, shape: Shape, *, axis: int = -2) -> int:
        """Return the mask's non-zeros; raises ValueError when `shape` is not the mask's."""
        self._check(shape)
        return int(np.count_nonzero(self.mask))

    def sample(self, shape: Shape, rng: np.random.Generator, *, axis: int = -2) -> Mask:
        """Return the read-only mask itself; raises ValueError when `shape` is not the mask's."""
        self._check(shape)
        return self.mask


Sparsity: TypeAlias = (
    Dense | NofM | Unstructured | Block | Balanced | ConstantFanIn | Positional | Explicit
)


def check_sparsity(found: object) -> None:
    """Raise ValueError unless `found` is a sparsity; text and masks are none yet."""
    if not isinstance(found, Sparsity):
        raise ValueError(
            "A sparsity is a value such as NofM(2, 4) or Explicit(mask), "
            f"not {type(found).__name__}"
        )


_SIZE: Final = r"([+-]?\d{1,9})"
_SHARE: Final = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"

_FORMS: Final[tuple[tuple[str, Callable[..., Sparsity]], ...]] = (
    ("dense", Dense),
    (f"{_SIZE}:{_SIZE}", lambda n, m: NofM(int(n), int(m))),
    (f"unstructured:{_SHARE}", lambda d: Unstructured(float(d))),
    (f"block:{_SIZE}x{_SIZE}:{_SHARE}", lambda r, c, d: Block((int(r), int(c)), float(d))),
    (f"balanced:{_SIZE}:{_SHARE}", lambda b, d: Balanced(int(b), float(d))),
)


def parse(text: str) -> Sparsity:
    """Read a sparsity from its command-line form; `str` of the result gives the form back.

    Raises ValueError that lists the forms, or names the value that is out of range.
    """
    for form, build in _FORMS:
        if found := re.fullmatch(form, text.strip().lower(), re.ASCII):
            return build(*found.groups())
    raise ValueError(f"Unknown sparsity {text!r}: use {SPARSITY_FORMS}")
