"""Operands of a product as the PEGrid takes them: vectors along the reduction, tile by tile.

Masks are drawn a part at a time: of a convolution's windows no more exists than the tiles at
hand, and an operand without a zero has no mask at all, since all its vectors are alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.pe_grid import Balance
from simulator.functional import patches
from simulator.units.pe_balance import feature_order
from simulator.units.pe_chunks import pack_words
from workloads.graph import Op, TensorSpec, WorkloadGraph
from workloads.pruning import mask_of
from workloads.sparsity import Dense, Explicit

__all__ = ["Lanes", "Packed", "Stored", "act_lanes", "elements", "packed", "weight_lanes"]

Bool = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

WORD_BITS, OCTET = 64, 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """An operand as it lies in memory: units in order, each of `unit_positions`.

    `nonzeros` int64[groups, units]; a unit is an image row of one group's channels, or a vector.
    `units_of` turns the first and the last lane of a range into the units it needs, [from, to).
    """

    nonzeros: Ints
    unit_positions: int
    units_of: Callable[[Ints, Ints], tuple[Ints, Ints]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lanes:
    """`lanes` vectors of `k` for each of `groups`, or of one group that all others are like.

    `pack(groups, lanes, chunk)` returns two ranges as chunk words, uint64[chunks, groups * lanes],
    and how many of the lanes have each position, int64[groups, k]; without it nothing is zero.
    """

    groups: int
    lanes: int
    k: int
    stored: Stored
    pack: Callable[[slice, slice, int], tuple[Words, Ints]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """Chunk words of some tiles, uint64[chunks, tiles * size], and which tile stands where.

    `at` int64[groups, tiles] gives each tile's place among the words; `present` int64[groups, k]
    counts the lanes with each position.
    """

    words: Words
    at: Ints
    present: Ints


def _vectors(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    return first, last + 1


def _known(graph: WorkloadGraph, spec: TensorSpec) -> bool:
    return spec.name in graph.values or not isinstance(spec.sparsity, Dense)


def _sampled(
    graph: WorkloadGraph, spec: TensorSpec, shape: tuple[int, ...], axis: int, seed: int
) -> Bool | None:
    """Return the mask of a tensor in a product's `shape`, None if nothing is known to be zero.

    Raises ValueError if a given mask or known values have another size.
    """
    if not _known(graph, spec):
        return None
    if spec.size == math.prod(shape):
        return mask_of(graph, spec.name, seed=seed).reshape(shape)
    if isinstance(spec.sparsity, Explicit) or spec.name in graph.values:
        raise ValueError(
            f"Mask of {spec.name!r} has shape {spec.shape}, but its product takes {shape}"
        )
    # A cache that holds more than this product reads: the same structure, drawn for its part.
    return spec.sparsity.sample(shape, np.random.default_rng(seed), axis=axis)


def weight_lanes(
    graph: WorkloadGraph, op: Op, balance: Balance = Balance.NONE, *, seed: int = 0
) -> Lanes:
    """Return the second operand's vectors: one for each output feature, in balanced order."""
    assert op.gemm is not None
    g, spec = op.gemm, graph.tensors[op.inputs[1]]
    mask = _sampled(graph, spec, (g.groups, g.k, g.n), -2, seed)
    if mask is None:
        return _alike(g.groups, g.n, g.k)
    nonzeros = np.count_nonzero(mask, axis=1).astype(np.int64)
    order = feature_order(balance, nonzeros)

    def pack(chosen: slice, part: slice, chunk: int) -> tuple[Words, Ints]:
        own, lanes = mask[chosen], order[chosen][:, part]
        words = np.take_along_axis(_column_words(own, chunk), lanes[None], axis=2)
        if lanes.shape[1] < g.n:
            own = np.take_along_axis(own, lanes[:, None], axis=2)
        return words.reshape(len(words), -1), np.count_nonzero(own, axis=2)

    stored = Stored(
        nonzeros=np.take_along_axis(nonzeros, order, axis=1),
        unit_positions=g.k,
        units_of=_vectors,
    )
    return Lanes(groups=g.groups, lanes=g.n, k=g.k, stored=stored, pack=pack)


def act_lanes(graph: WorkloadGraph, op: Op, *, seed: int = 0) -> Lanes:
    """Return the first operand's vectors: one for each row of the product, windows unrolled."""
    assert op.gemm is not None
    g, spec = op.gemm, graph.tensors[op.inputs[0]]
    if op.window is None:
        mask = _sampled(graph, spec, (g.groups, g.m, g.k), -1, seed)
        return _alike(g.groups, g.m, g.k) if mask is None else _masked(mask)
    return _window_lanes(graph, op, spec, seed)


def _alike(groups: int, lanes: int, k: int) -> Lanes:
    stored = Stored(
        nonzeros=np.broadcast_to(np.int64(k), (groups, lanes)), unit_positions=k, units_of=_vectors
    )
    return Lanes(groups=1, lanes=lanes, k=k, stored=stored)


def _masked(mask: Bool) -> Lanes:
    """Return the lanes of bool[groups, lanes, k]."""
    groups, lanes, k = mask.shape
    stored = Stored(
        nonzeros=np.count_nonzero(mask, axis=2).astype(np.int64),
        unit_positions=k,
        units_of=_vectors,
    )

    def pack(chosen: slice, part: slice, chunk: int) -> tuple[Words, Ints]:
        return _row_words(mask[chosen, part], chunk)

    return Lanes(groups=groups, lanes=lanes, k=k, stored=stored, pack=pack)


def _row_words(mask: Bool, chunk: int) -> tuple[Words, Ints]:
    """Return bool[groups, lanes, k] as `Lanes.pack` does."""
    return pack_words(mask.reshape(-1, mask.shape[2]), chunk), np.count_nonzero(mask, axis=1)


def _column_words(mask: Bool, chunk: int) -> Words:
    """Return bool[groups, k, lanes] as chunk words, uint64[chunks, groups, lanes].

    Rows of the mask, which are long, are put together bit by bit: it is never transposed.
    """
    groups, k, lanes = mask.shape
    chunks = -(-k // chunk)
    if chunk == WORD_BITS:  # whole words: in octets, which are an eighth as large
        octets = np.zeros((groups, OCTET * chunks, lanes), np.uint8)
        for bit in range(OCTET):
            rows = mask[:, bit::OCTET].view(np.uint8)
            octets[:, : rows.shape[1]] |= rows << np.uint8(bit)
        apart = octets.reshape(groups, chunks, OCTET, lanes).transpose(1, 0, 3, 2)
        whole: Words = np.ascontiguousarray(apart).view("<u8")[..., 0]
        return whole
    words = np.zeros((chunks, groups, lanes), np.uint64)
    for position in range(min(chunk, k)):
        bits = mask[:, position::chunk].swapaxes(0, 1)
        words[: len(bits)] |= bits.astype(np.uint64) << np.uint64(position)
    return words


def _window_lanes(graph: WorkloadGraph, op: Op, spec: TensorSpec, seed: int) -> Lanes:
    """Return the windows of an image; border positions are zeros like any other."""
    assert op.gemm is not None
    assert op.window is not None
    g, w = op.gemm, op.window
    image = (w.batch, *w.image, g.groups, w.channels)
    mask = _sampled(graph, spec, image, -1, seed)
    # One channel of one image stands for all where nothing but the border is zero.
    whole = np.ones((1, *w.image, 1, 1), np.bool_) if mask is None else mask
    groups, copies = whole.shape[3], w.channels // whole.shape[4]
    rows = copies * np.count_nonzero(whole, axis=(2, 4)).reshape(-1, groups).T.astype(np.int64)
    seen = patches(w, whole.reshape(*whole.shape[:3], -1))
    across = w.out[1]

    def pack(chosen: slice, part: slice, chunk: int) -> tuple[Words, Ints]:
        first, last = part.start // across, -(-part.stop // across)
        images, lines = np.divmod(np.arange(first, last), w.out[0])
        some = seen[images % len(seen), lines].reshape(-1, *w.kernel, *whole.shape[3:])
        pixels = some[part.start - first * across : part.stop - first * across, ..., chosen, :]
        lanes = pixels.transpose(3, 0, 1, 2, 4).repeat(copies, axis=4)
        return _row_words(lanes.reshape(len(lanes), part.stop - part.start, -1), chunk)

    stored = Stored(
        nonzeros=np.broadcast_to(
            np.tile(rows, (1, w.batch // len(whole))), (g.groups, w.batch * w.image[0])
        ),
        unit_positions=w.image[1] * w.channels,
        units_of=_image_rows(op),
    )
    zeros = mask is not None or any(w.padding)
    return Lanes(groups=groups, lanes=g.m, k=g.k, stored=stored, pack=pack if zeros else None)


def _image_rows(op: Op) -> Callable[[Ints, Ints], tuple[Ints, Ints]]:
    """Return what finds the image rows behind a range of output pixels."""
    assert op.window is not None
    w = op.window
    span = w.dilation[0] * (w.kernel[0] - 1) + 1
    height, lines = w.image[0], w.out[0]

    def rows(first: Ints, last: Ints) -> tuple[Ints, Ints]:
        image, line = np.divmod(first // w.out[1], lines)
        start = np.clip(line * w.stride[0] - w.padding[0], 0, height)
        image_to, line_to = np.divmod(last // w.out[1], lines)
        stop = np.clip(line_to * w.stride[0] - w.padding[0] + span, 0, height)
        return image * height + start, image_to * height + np.maximum(stop, 1)

    return rows


def _padded(words: Words, groups: int, size: int) -> Words:
    """Return words [chunks, groups * lanes] with every group's lanes filled up to whole tiles."""
    chunks = len(words)
    apart = words.reshape(chunks, groups, -1)
    lanes = apart.shape[2]
    return np.pad(apart, ((0, 0), (0, 0), (0, -lanes % size))).reshape(chunks, -1)


def packed(lanes: Lanes, size: int, chunk: int, groups: range, tiles: range) -> Packed:
    """Return the tiles of `size` lanes in two ranges as chunk words.

    Vectors that are all alike fill two tiles at most, a whole one and the ragged one.
    """
    part = slice(tiles.start * size, min(tiles.stop * size, lanes.lanes))
    count = part.stop - part.start
    own = slice(groups.start, groups.stop) if lanes.groups > 1 else slice(0, 1)
    if lanes.pack is None:
        least = min(count, size + count % size)
        words = pack_words(np.ones((least, lanes.k), np.bool_), chunk)
        at = np.zeros(len(tiles), np.int64)
        at[-1] = -(-least // size) - 1
        present = np.full((1, lanes.k), count)
    else:
        words, present = lanes.pack(own, part, chunk)
        at = np.arange(len(present) * len(tiles))
    return Packed(
        words=_padded(words, len(present), size),
        at=np.broadcast_to(at.reshape(-1, len(tiles)), (len(groups), len(tiles))),
        present=np.broadcast_to(present, (len(groups), lanes.k)),
    )


def elements(lanes: Lanes) -> int:
    """Return the mask elements that one lane of all its groups takes while it is packed."""
    return 0 if lanes.pack is None else lanes.groups * lanes.k
