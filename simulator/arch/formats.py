"""Storage formats: how a tensor lies in a memory, rank by rank, down to the bit.

A format splits the tensor's axes into blocks, orders and flattens the pieces into *ranks*
(outermost first) and gives every rank a level format, in the fibertree manner of Sparseloop
(Wu et al., MICRO 2022, section 3) and TeAAL (Nayak et al., MICRO 2023, section 2). The element
count of a tensor is part of its descriptor and is not counted in its size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from workloads.canonical import Spec

__all__ = [
    "FORMATS",
    "RLE",
    "Bitmask",
    "CoordPayload",
    "Format",
    "Level",
    "OffsetPair",
    "Uncompressed",
    "bitmask",
    "block_bitmap",
    "coo",
    "coord_bits_for",
    "csc",
    "csr",
    "dense",
    "nm_index",
    "rle",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompressed(Spec):
    """Every coordinate is stored, in order; no metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitmask(Spec):
    """One bit a coordinate tells whether it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordPayload(Spec):
    """Each stored coordinate is written out in `coord_bits`.

    With `slots` every fibre stores exactly that many (unused ones hold coordinate 0, value 0);
    without, as many as are not zero. A flattened rank writes one bit field per axis.
    """

    coord_bits: int
    slots: int | None = None

    def __post_init__(self) -> None:
        if self.coord_bits < 0:
            raise ValueError(f"coord_bits must be at least 0, not {self.coord_bits}")
        if self.slots is not None and self.slots < 0:
            raise ValueError(f"slots must be at least 0, not {self.slots}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RLE(Spec):
    """Each stored coordinate is written as the number of zeros since the last one.

    A longer run than `run_bits` can hold is cut by explicitly stored zeros; the zeros after the
    last stored coordinate of a fibre are not written.
    """

    run_bits: int

    def __post_init__(self) -> None:
        if self.run_bits < 1:
            raise ValueError(f"run_bits must be at least 1, not {self.run_bits}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetPair(Spec):
    """Every coordinate is stored with where its fibre starts and ends: size + 1 offsets."""

    offset_bits: int

    def __post_init__(self) -> None:
        if self.offset_bits < 1:
            raise ValueError(f"offset_bits must be at least 1, not {self.offset_bits}")


Level: TypeAlias = Uncompressed | Bitmask | CoordPayload | RLE | OffsetPair


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(Spec):
    """The storage of a tensor of `shape` with `element_bits` a value.

    Axis i is zero-padded to a multiple of `block[i]` and split in two: axis i counts blocks,
    axis `len(shape) + i` positions inside one. `ranks` lists, outermost first, the split axes
    each rank flattens (axes of size 1 may be left out); `levels` how each rank is stored.
    """

    name: str
    shape: tuple[int, ...]
    element_bits: int
    block: tuple[int, ...]
    ranks: tuple[tuple[int, ...], ...]
    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"Format {self.name!r}: sizes must be at least 1, not {self.shape}")
        if self.element_bits < 1:
            raise ValueError(
                f"Format {self.name!r}: element_bits must be at least 1, not {self.element_bits}"
            )
        if len(self.block) != len(self.shape) or any(size < 1 for size in self.block):
            raise ValueError(
                f"Format {self.name!r}: block needs {len(self.shape)} sizes of at least 1, "
                f"not {self.block}"
            )
        self._check_ranks()
        for rank in range(len(self.levels)):
            self._check_level(rank)

    def _check_ranks(self) -> None:
        used = [axis for rank in self.ranks for axis in rank]
        needed = {axis for axis, size in enumerate(self.split_shape) if size > 1}
        if len(used) != len(set(used)) or not needed <= set(used) <= set(
            range(len(self.split_shape))
        ):
            raise ValueError(
                f"Format {self.name!r}: ranks must use each of the split axes {sorted(needed)} "
                f"once, not {self.ranks}"
            )
        if len(self.levels) != len(self.ranks) or not self.levels:
            raise ValueError(
                f"Format {self.name!r} has {len(self.ranks)} ranks but {len(self.levels)} levels"
            )

    def _check_level(self, rank: int) -> None:
        level, outer = self.levels[rank], self.levels[:rank]
        where = f"Format {self.name!r}, rank {rank} of size {self.sizes[rank]}"
        match level:
            case CoordPayload(coord_bits=width, slots=slots):
                if width < self.coord_bits(rank):
                    raise ValueError(
                        f"{where}: coord_bits must be at least {self.coord_bits(rank)}, not {width}"
                    )
                if slots is not None and slots > self.sizes[rank]:
                    raise ValueError(f"{where}: it cannot fill {slots} slots")
                if slots is not None and not all(isinstance(o, Uncompressed) for o in outer):
                    raise ValueError(f"{where}: fixed slots need Uncompressed ranks around them")
            case OffsetPair(offset_bits=width):
                if rank + 1 == len(self.levels):
                    raise ValueError(f"{where}: an OffsetPair needs a rank below it")
                entries = self.sizes[rank] * self.sizes[rank + 1]
                if width < entries.bit_length():
                    raise ValueError(
                        f"{where}: offset_bits must be at least {entries.bit_length()} to count "
                        f"{entries} entries, not {width}"
                    )
            case Uncompressed() | Bitmask() | RLE():
                pass
        if self._variable(level) and outer and not isinstance(outer[-1], OffsetPair):
            raise ValueError(
                f"{where}: fibres of varying length must be outermost or under an OffsetPair"
            )

    @staticmethod
    def _variable(level: Level) -> bool:
        return isinstance(level, RLE) or (isinstance(level, CoordPayload) and level.slots is None)

    @property
    def split_shape(self) -> tuple[int, ...]:
        """Sizes of the split axes: blocks of every axis, then positions inside a block."""
        blocks = tuple(-(-size // b) for size, b in zip(self.shape, self.block, strict=True))
        return blocks + self.block

    @property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates of every rank."""
        return tuple(math.prod(self.rank_shape(rank)) for rank in range(len(self.ranks)))

    def rank_shape(self, rank: int) -> tuple[int, ...]:
        """Return the sizes of the split axes flattened into `rank`."""
        return tuple(self.split_shape[axis] for axis in self.ranks[rank])

    def coord_bits(self, rank: int) -> int:
        """Return the bits one coordinate of `rank` takes: a field for each flattened axis."""
        return sum(coord_bits_for(size) for size in self.rank_shape(rank))


def coord_bits_for(size: int) -> int:
    """Return the bits that tell `size` coordinates apart: ceil(log2(size))."""
    return (size - 1).bit_length()


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(shape)))


def _matrix(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the leading rank (axes before the last two, flattened) if there is one."""
    if len(shape) < 2:
        raise ValueError(f"Format {name!r} needs at least two axes, not shape {shape}")
    return (_axes(shape)[:-2],) if len(shape) > 2 else ()


def dense(shape: tuple[int, ...], *, element_bits: int = 8) -> Format:
    """Every element, in row-major order."""
    return Format(
        name="dense",
        shape=shape,
        element_bits=element_bits,
        block=(1,) * len(shape),
        ranks=(_axes(shape),),
        levels=(Uncompressed(),),
    )


def bitmask(shape: tuple[int, ...], *, element_bits: int = 8) -> Format:
    """One bit an element, then the non-zero values."""
    return Format(
        name="bitmask",
        shape=shape,
        element_bits=element_bits,
        block=(1,) * len(shape),
        ranks=(_axes(shape),),
        levels=(Bitmask(),),
    )


def nm_index(
    shape: tuple[int, ...], *, n: int, m: int, axis: int = -2, element_bits: int = 8
) -> Format:
    """N values and N in-group indices of ceil(log2 M) bits for every M positions along `axis`.

    The last group of an axis that M does not divide is padded with zeros. `axis` counts from
    the end; its default is the reduction of a (k, n) weight.
    """
    if not 0 <= n <= m or m < 1:
        raise ValueError(f"N:M sparsity needs 0 <= N <= M and M >= 1, not {n}:{m}")
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"Format 'nm-index': axis {axis} is outside shape {shape}")
    group = axis % len(shape)
    outer = tuple(a for a in _axes(shape) if a != group)
    return Format(
        name="nm-index",
        shape=shape,
        element_bits=element_bits,
        block=tuple(m if a == group else 1 for a in _axes(shape)),
        ranks=((*outer, group), (len(shape) + group,)),
        levels=(Uncompressed(), CoordPayload(coord_bits=coord_bits_for(m), slots=n)),
    )


def _compressed(
    name: str,
    shape: tuple[int, ...],
    major: int,
    minor: int,
    element_bits: int,
    coord_bits: int | None,
    offset_bits: int | None,
) -> Format:
    lead = _matrix(name, shape)
    minimum = (shape[major] * shape[minor]).bit_length()
    levels = (
        OffsetPair(offset_bits=minimum if offset_bits is None else offset_bits),
        CoordPayload(coord_bits=coord_bits_for(shape[minor]) if coord_bits is None else coord_bits),
    )
    return Format(
        name=name,
        shape=shape,
        element_bits=element_bits,
        block=(1,) * len(shape),
        ranks=(*lead, (major % len(shape),), (minor % len(shape),)),
        levels=(*(Uncompressed() for _ in lead), *levels),
    )


def csr(
    shape: tuple[int, ...],
    *,
    element_bits: int = 8,
    coord_bits: int | None = None,
    offset_bits: int | None = None,
) -> Format:
    """Row offsets, then a column index and a value for every non-zero (axes -2 and -1).

    Widths default to the smallest that fit; axes before the last two are stored one by one.
    """
    return _compressed("csr", shape, -2, -1, element_bits, coord_bits, offset_bits)


def csc(
    shape: tuple[int, ...],
    *,
    element_bits: int = 8,
    coord_bits: int | None = None,
    offset_bits: int | None = None,
) -> Format:
    """Column offsets, then a row index and a value for every non-zero; see `csr`."""
    return _compressed("csc", shape, -1, -2, element_bits, coord_bits, offset_bits)


def rle(shape: tuple[int, ...], *, element_bits: int = 8, run_bits: int = 5) -> Format:
    """Zero run before every stored value, in row-major order.

    Five bits a run is the choice of Eyeriss (Chen et al., JSSC 2017, section V-B).
    """
    return Format(
        name="rle",
        shape=shape,
        element_bits=element_bits,
        block=(1,) * len(shape),
        ranks=(_axes(shape),),
        levels=(RLE(run_bits=run_bits),),
    )


def coo(shape: tuple[int, ...], *, element_bits: int = 8, coord_bits: int | None = None) -> Format:
    """One coordinate for every axis and a value for every non-zero."""
    minimum = sum(coord_bits_for(size) for size in shape)
    return Format(
        name="coo",
        shape=shape,
        element_bits=element_bits,
        block=(1,) * len(shape),
        ranks=(_axes(shape),),
        levels=(CoordPayload(coord_bits=minimum if coord_bits is None else coord_bits),),
    )


def block_bitmap(
    shape: tuple[int, ...], *, block: tuple[int, int] = (4, 4), element_bits: int = 8
) -> Format:
    """One bit a block of the last two axes, then the blocks that hold a non-zero, dense.

    Blocks over the edge are padded with zeros and stored whole.
    """
    lead = _matrix("block-bitmap", shape)
    inner = (2 * len(shape) - 2, 2 * len(shape) - 1)
    return Format(
        name="block-bitmap",
        shape=shape,
        element_bits=element_bits,
        block=(*(1,) * (len(shape) - 2), *block),
        ranks=((*(lead[0] if lead else ()), len(shape) - 2, len(shape) - 1), inner),
        levels=(Bitmask(), Uncompressed()),
    )


FORMATS: Final[Mapping[str, Callable[..., Format]]] = {
    "dense": dense,
    "bitmask": bitmask,
    "nm-index": nm_index,
    "csr": csr,
    "csc": csc,
    "rle": rle,
    "coo": coo,
    "block-bitmap": block_bitmap,
}
"""Named formats; each takes a shape and its own options."""
