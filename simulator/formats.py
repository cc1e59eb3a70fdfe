"""Exact encoding, decoding and size of tensors in the storage formats of `simulator.arch.formats`.

An element is zero if it compares equal to zero; a negative zero therefore decodes as zero.
"""

import math
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from simulator.arch.formats import (
    RLE,
    Bitmask,
    CoordPayload,
    Format,
    Level,
    OffsetPair,
    Uncompressed,
    coord_bits_for,
)
from workloads.canonical import Spec

__all__ = ["Encoded", "bits", "decode", "encode"]

Array = NDArray[Any]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded(Spec):
    """A tensor in a storage format.

    values: the stored elements, one axis, in storage order. metadata: one integer or boolean
    array for every rank, each entry of `metadata_widths()` bits; empty where a rank has none.
    """

    format: Format
    values: Array
    metadata: tuple[Array, ...]

    def metadata_widths(self) -> tuple[int, ...]:
        """Return the bits of one metadata entry of every rank."""
        return tuple(_width(level) for level in self.format.levels)

    @property
    def value_bits(self) -> int:
        """Bits of the stored elements, explicit zeros included."""
        return int(self.values.size) * self.format.element_bits

    @property
    def metadata_bits(self) -> int:
        """Bits of masks, coordinates, runs and offsets."""
        return sum(a.size * w for a, w in zip(self.metadata, self.metadata_widths(), strict=True))

    @property
    def bits(self) -> int:
        """Bits of the whole tensor."""
        return self.value_bits + self.metadata_bits


def _width(level: Level) -> int:
    match level:
        case Uncompressed():
            return 0
        case Bitmask():
            return 1
        case CoordPayload(coord_bits=width) | RLE(run_bits=width) | OffsetPair(offset_bits=width):
            return width
        case _:
            assert_never(level)


def _axis_order(fmt: Format) -> tuple[int, ...]:
    used = tuple(axis for rank in fmt.ranks for axis in rank)
    return used + tuple(a for a in range(len(fmt.split_shape)) if a not in used)


def _interleaved(fmt: Format) -> list[int]:
    """Return the split axes as they lie in memory: block 0, inside 0, block 1, inside 1, ..."""
    ndim = len(fmt.shape)
    return [axis for i in range(ndim) for axis in (i, ndim + i)]


def _to_ranks(array: Array, fmt: Format) -> Array:
    """Pad, split and permute `array` into the linear order of the ranks."""
    blocks = fmt.split_shape
    ndim = len(fmt.shape)
    pad = [(0, blocks[i] * fmt.block[i] - fmt.shape[i]) for i in range(ndim)]
    memory = _interleaved(fmt)
    split = np.pad(array, pad).reshape([blocks[a] for a in memory])
    return split.transpose([memory.index(a) for a in _axis_order(fmt)]).reshape(-1)


def _from_ranks(flat: Array, fmt: Format) -> Array:
    """Undo `_to_ranks`."""
    order = _axis_order(fmt)
    padded = [fmt.split_shape[i] * fmt.block[i] for i in range(len(fmt.shape))]
    split = flat.reshape([fmt.split_shape[a] for a in order])
    joined = split.transpose([order.index(a) for a in _interleaved(fmt)]).reshape(padded)
    return np.ascontiguousarray(joined[tuple(slice(size) for size in fmt.shape)])


def _pack(coords: Ints, shape: tuple[int, ...]) -> Ints:
    """Return linear coordinates of `shape` as one bit field an axis, last axis lowest."""
    packed = np.zeros_like(coords)
    for size, index in zip(shape, np.unravel_index(coords, shape), strict=True):
        packed = (packed << coord_bits_for(size)) | index
    return packed


def _unpack(packed: Ints, shape: tuple[int, ...]) -> Ints:
    """Undo `_pack`."""
    fields: list[Ints] = []
    for size in reversed(shape):
        width = coord_bits_for(size)
        fields.append(packed & ((1 << width) - 1))
        packed = packed >> width
    linear = np.zeros_like(packed)
    for size, index in zip(shape, reversed(fields), strict=True):
        linear = linear * size + index
    return linear


def _ragged_arange(counts: Ints) -> Ints:
    """Return 0..c-1 for every c of `counts`, end to end."""
    starts = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(starts, counts)


def _slot_coords(present: NDArray[np.bool_], slots: int, fmt: Format, rank: int) -> Ints:
    """Return int64[fibres, slots]: the non-zero coordinates of each fibre, then -1."""
    counts = present.sum(axis=1)
    if (counts > slots).any():
        fibre = int(np.argmax(counts > slots))
        outer = tuple(s for r in range(rank) for s in fmt.rank_shape(r))
        at = tuple(int(i) for i in np.unravel_index(fibre, outer))
        raise ValueError(
            f"Format {fmt.name!r}: group {at} holds {int(counts[fibre])} non-zeros, "
            f"at most {slots} of {fmt.sizes[rank]} fit"
        )
    coords = np.full((present.shape[0], slots), -1, dtype=np.int64)
    fibres, where = np.nonzero(present)
    coords[fibres, _ragged_arange(counts)] = where
    return coords


def _runs(present: NDArray[np.bool_], run_bits: int) -> tuple[Ints, Ints, Ints]:
    """Return the (fibre, coordinate, run) of every stored entry, explicit zeros included."""
    fibres, coords = np.nonzero(present)
    previous = np.concatenate([[-1], coords[:-1]])
    first = np.concatenate([[True], fibres[1:] != fibres[:-1]])[: coords.size]
    previous = np.where(first, -1, previous[: coords.size])
    span = 1 << run_bits  # an explicit zero covers a full run and itself
    extra = (coords - previous - 1) // span
    entry = _ragged_arange(extra + 1)
    stop = np.repeat(extra, extra + 1) == entry
    at = np.repeat(previous, extra + 1) + (entry + 1) * span
    at = np.where(stop, np.repeat(coords, extra + 1), at)
    run = np.where(stop, np.repeat((coords - previous - 1) % span, extra + 1), span - 1)
    return np.repeat(fibres, extra + 1), at, run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """One encoded rank: its metadata, the subtrees it stores and how many each fibre has."""

    metadata: Array
    subtrees: Array  # (entries, elements below)
    counts: Ints  # (fibres,)


def _encode_slots(
    tree: Array, present: NDArray[np.bool_], slots: int, fmt: Format, rank: int
) -> _Stored:
    """Encode a rank with a fixed number of slots a fibre; unused ones hold zeros."""
    slot = _slot_coords(present, slots, fmt, rank)
    coords = np.maximum(slot, 0)
    kept = np.take_along_axis(tree, coords[:, :, None], axis=1)
    kept[slot < 0] = 0
    return _Stored(
        metadata=_pack(coords.reshape(-1), fmt.rank_shape(rank)),
        subtrees=kept.reshape(-1, tree.shape[2]),
        counts=np.full(tree.shape[0], slots, dtype=np.int64),
    )


def _encode_rank(tree: Array, fmt: Format, rank: int) -> _Stored:
    """Encode one rank of `tree` (fibres, coordinates, elements below)."""
    fibres, size, below = tree.shape
    present = (tree != 0).any(axis=2)
    everything = np.full(fibres, size, dtype=np.int64)
    occupied = present.sum(axis=1, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    level = fmt.levels[rank]
    match level:
        case Uncompressed() | OffsetPair():  # offsets follow once the rank below is known
            return _Stored(metadata=nothing, subtrees=tree.reshape(-1, below), counts=everything)
        case Bitmask():
            return _Stored(metadata=present.reshape(-1), subtrees=tree[present], counts=occupied)
        case CoordPayload(slots=slots) if slots is not None:
            return _encode_slots(tree, present, slots, fmt, rank)
        case CoordPayload():
            coords = _pack(np.nonzero(present)[1], fmt.rank_shape(rank))
            return _Stored(metadata=coords, subtrees=tree[present], counts=occupied)
        case RLE(run_bits=run_bits):
            fibre, at, run = _runs(present, run_bits)
            counts = np.bincount(fibre, minlength=fibres).astype(np.int64)
            return _Stored(metadata=run, subtrees=tree[fibre, at], counts=counts)
        case _:
            assert_never(level)


def _offsets(counts: Ints, size: int) -> Ints:
    """Return size + 1 running totals for every `size` fibres of `counts`."""
    per_parent = counts.reshape(-1, size)
    totals = np.cumsum(per_parent, axis=1)
    return np.concatenate([np.zeros_like(totals[:, :1]), totals], axis=1).reshape(-1)


def encode(array: Array, fmt: Format) -> Encoded:
    """Return `array` in format `fmt`, exactly.

    Raises ValueError if shape or element width differ from the format's, or if a group holds
    more non-zeros than the format has slots.
    """
    if array.shape != fmt.shape:
        raise ValueError(f"Format {fmt.name!r} is for shape {fmt.shape}, not {array.shape}")
    if array.dtype.itemsize * 8 != fmt.element_bits:
        raise ValueError(
            f"Format {fmt.name!r} holds {fmt.element_bits}-bit elements, not {array.dtype}"
        )
    values = _to_ranks(array, fmt).reshape(1, -1)
    metadata: list[Array] = []
    for rank, size in enumerate(fmt.sizes):
        below = math.prod(fmt.sizes[rank + 1 :])
        stored = _encode_rank(values.reshape(-1, size, below), fmt, rank)
        if rank and isinstance(fmt.levels[rank - 1], OffsetPair):
            metadata[-1] = _offsets(stored.counts, fmt.sizes[rank - 1])
        metadata.append(stored.metadata)
        values = stored.subtrees
    return Encoded(format=fmt, values=values.reshape(-1), metadata=tuple(metadata))


def _fibre_counts(encoded: Encoded, rank: int, entries: int) -> Ints:
    """Return how many entries each fibre of a variable `rank` stores."""
    if rank == 0:
        return np.array([entries])
    offsets = encoded.metadata[rank - 1].reshape(-1, encoded.format.sizes[rank - 1] + 1)
    return np.diff(offsets, axis=1).reshape(-1)


def _decode_rank(fibres: int, encoded: Encoded, rank: int) -> tuple[Ints, Ints]:
    """Return the (fibre, coordinate) of every entry that `rank` stores."""
    fmt, metadata = encoded.format, encoded.metadata[rank]
    level, size = fmt.levels[rank], fmt.sizes[rank]
    match level:
        case Uncompressed() | OffsetPair():
            return np.repeat(np.arange(fibres), size), np.tile(np.arange(size), fibres)
        case Bitmask():
            fibre, coord = np.nonzero(metadata.reshape(fibres, size))
            return fibre, coord
        case CoordPayload(slots=slots):
            counts = (
                _fibre_counts(encoded, rank, metadata.size)
                if slots is None
                else np.full(fibres, slots)
            )
            return np.repeat(np.arange(fibres), counts), _unpack(metadata, fmt.rank_shape(rank))
        case RLE():
            counts = _fibre_counts(encoded, rank, metadata.size)
            total = np.cumsum(metadata + 1)
            before = np.concatenate([[0], total])[np.cumsum(counts) - counts]
            return np.repeat(np.arange(fibres), counts), total - 1 - np.repeat(before, counts)
        case _:
            assert_never(level)


def decode(encoded: Encoded) -> Array:
    """Return the tensor that `encode` was given."""
    fmt = encoded.format
    position = np.zeros(1, dtype=np.int64)
    for rank, size in enumerate(fmt.sizes):
        fibre, coord = _decode_rank(position.size, encoded, rank)
        position = position[fibre] * size + coord
    flat = np.zeros(math.prod(fmt.sizes), dtype=encoded.values.dtype)
    stored = encoded.values != 0  # padding slots point at coordinate 0, which may be taken
    flat[position[stored]] = encoded.values[stored]
    return _from_ranks(flat, fmt)


def bits(fmt: Format, *, nnz: int | None = None) -> int:
    """Return the exact size in bits of any tensor with `nnz` non-zeros in format `fmt`.

    Closed form for dense, bitmask, nm-index, csr, csc and coo; `nnz` may be left out where it
    does not matter. Raises ValueError for formats whose size depends on where non-zeros lie.
    """
    entries, metadata = 1, 0
    for rank, (level, size) in enumerate(zip(fmt.levels, fmt.sizes, strict=True)):
        leaf = rank + 1 == len(fmt.levels)
        match level:
            case Uncompressed():
                entries *= size
            case OffsetPair(offset_bits=width):
                metadata += entries * (size + 1) * width
                entries *= size
            case CoordPayload(coord_bits=width, slots=int() as slots):
                entries *= slots
                metadata += entries * width
            case Bitmask() if leaf:
                metadata += entries * size
                entries = _known(nnz, fmt)
            case CoordPayload(coord_bits=width) if leaf:
                entries = _known(nnz, fmt)
                metadata += entries * width
            case Bitmask() | CoordPayload() | RLE():
                raise ValueError(
                    f"The size of format {fmt.name!r} depends on where the non-zeros lie; encode it"
                )
            case _:
                assert_never(level)
    return entries * fmt.element_bits + metadata


def _known(nnz: int | None, fmt: Format) -> int:
    if nnz is None or not 0 <= nnz <= math.prod(fmt.shape):
        raise ValueError(
            f"The size of format {fmt.name!r} needs nnz from 0 to {math.prod(fmt.shape)}, not {nnz}"
        )
    return nnz
