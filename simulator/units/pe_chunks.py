"""Chunks of the PEGrid: bitmasks as words, and the operand and result beats of a GEMM.

Position p of chunk i is position i * chunk + p of the reduction; the mask bit of position p is
bit p. Positions, rows and columns beyond the operands are absent: their mask bits are 0.

Tiles are ordered with output features fastest (row tile, column tile). Row r of the grid receives
the chunks of row r of every tile in turn, column c those of column c.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.arch.pe_grid import PEGrid
from simulator.arch.pe_job import GridJob

__all__ = [
    "Chunks",
    "GridBeats",
    "PackedMask",
    "compress",
    "grid_job",
    "pack",
    "pack_mask",
    "pack_words",
    "unpack",
]

WORD_BITS = 64

Bool = NDArray[np.bool_]
Words = NDArray[np.uint64]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedMask:
    """A bool[lanes, k] mask as chunk words.

    `words` uint64[chunks, lanes]; `present` int64[k] is the number of lanes with each position.
    """

    words: Words
    present: NDArray[np.int64]

    @property
    def lanes(self) -> int:
        """Number of rows of m, or of columns of n."""
        return int(self.words.shape[1])

    @property
    def k(self) -> int:
        """Length of the reduction."""
        return self.present.size

    @property
    def lane_counts(self) -> NDArray[np.int64]:
        """Positions present in each lane, int64[lanes]."""
        counts: NDArray[np.int64] = np.bitwise_count(self.words).sum(axis=0, dtype=np.int64)
        return counts

    def take(self, order: NDArray[np.int64]) -> "PackedMask":
        """Return the mask with its lanes in another order."""
        return PackedMask(words=np.ascontiguousarray(self.words[:, order]), present=self.present)


def pack_mask(mask: Bool, chunk: int) -> PackedMask:
    """Pack bool[lanes, k] into chunk words; the last chunk is padded with absent positions."""
    return PackedMask(words=pack_words(mask, chunk), present=mask.sum(axis=0, dtype=np.int64))


def pack_words(mask: Bool, chunk: int) -> Words:
    """Return bool[lanes, k] as chunk words, uint64[chunks, lanes]."""
    return _whole_words(mask) if chunk == WORD_BITS else _part_words(mask, chunk)


def _whole_words(mask: Bool) -> Words:
    """Pack chunks that are whole machine words."""
    packed = np.packbits(mask, axis=1, bitorder="little")
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % (WORD_BITS // 8))))
    return np.ascontiguousarray(np.ascontiguousarray(padded).view("<u8").T)


def _part_words(mask: Bool, chunk: int) -> Words:
    """Pack chunks one position at a time, so that no more than the words is held."""
    lanes, k = mask.shape
    words = np.zeros((-(-k // chunk), lanes), np.uint64)
    for position in range(min(chunk, k)):
        bits = mask[:, position::chunk].T
        words[: len(bits)] |= bits.astype(np.uint64) << np.uint64(position)
    return words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunks:
    """Beats of all lanes of one side in order of acceptance.

    `mask` bool[beats, lanes, chunk]; `value` int8 of the same shape, only read where present.
    """

    mask: Bool
    value: NDArray[np.int8]

    @property
    def words(self) -> Words:
        """The masks as uint64[beats, lanes]."""
        weights = np.uint64(1) << np.arange(self.mask.shape[2], dtype=np.uint64)
        words: Words = (self.mask * weights).sum(axis=2, dtype=np.uint64)
        return words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridBeats:
    """All operand beats of one job: `side` has a lane for every row, `top` for every column."""

    side: Chunks
    top: Chunks


def grid_job(grid: PEGrid, *, m: int, k: int, n: int) -> GridJob:
    """Return the job that computes the whole (m, k) by (k, n) product on `grid`."""
    tiles = -(-m // grid.rows) * -(-n // grid.cols)
    return GridJob(arch=grid, chunks=-(-k // grid.chunk), tiles=tiles)


def compress(chunks: Chunks) -> NDArray[np.int8]:
    """Return the present values of every chunk moved to its front, zeros behind them."""
    order = np.argsort(~chunks.mask, axis=2, kind="stable")
    there = np.take_along_axis(chunks.mask, order, axis=2)
    packed: NDArray[np.int8] = np.take_along_axis(chunks.value, order, axis=2) * there
    return packed


def _tiled(array: NDArray[Scalar], lanes: int, chunk: int) -> NDArray[Scalar]:
    """Split [items, k] into [tiles, chunks, lanes, chunk], padded with zeros."""
    items, k = array.shape
    padded = np.pad(array, ((0, -items % lanes), (0, -k % chunk)))
    return padded.reshape(-1, lanes, padded.shape[1] // chunk, chunk).transpose(0, 2, 1, 3)


def _chunks(
    grid: PEGrid, lanes: int, value: NDArray[np.int8], mask: Bool, repeat: tuple[int, int]
) -> Chunks:
    """Return the beats of one side: every tile `repeat[1]` times, all of them `repeat[0]` times."""

    def beats(array: NDArray[Scalar]) -> NDArray[Scalar]:
        tiles = _tiled(array, lanes, grid.chunk).repeat(repeat[1], axis=0)
        return np.tile(tiles, (repeat[0], 1, 1, 1)).reshape(-1, lanes, grid.chunk)

    return Chunks(mask=beats(mask), value=beats(value))


def pack(
    job: GridJob,
    act: NDArray[np.int8],
    weight: NDArray[np.int8],
    act_mask: Bool | None = None,
    weight_mask: Bool | None = None,
) -> GridBeats:
    """Return the beats of act int8[m, k] times weight int8[k, n] for `job`.

    Masks default to the non-zeros; a value outside its mask is dropped. Raises ValueError for
    other shapes or dtypes, or a job that does not fit the product.
    """
    _check(job, act, weight)
    grid = job.arch
    act_mask = act != 0 if act_mask is None else act_mask
    weight_mask = weight != 0 if weight_mask is None else weight_mask
    down, across = -(-len(act) // grid.rows), -(-weight.shape[1] // grid.cols)
    return GridBeats(
        side=_chunks(grid, grid.rows, act, act_mask, (1, across)),
        top=_chunks(grid, grid.cols, weight.T, weight_mask.T, (down, 1)),
    )


def _check(job: GridJob, act: NDArray[Any], weight: NDArray[Any]) -> None:
    if act.dtype != np.int8 or weight.dtype != np.int8:
        raise ValueError(f"Operands must be int8, not {act.dtype} and {weight.dtype}")
    if act.ndim != 2 or weight.ndim != 2 or act.shape[1] != weight.shape[0] or 0 in act.shape:
        raise ValueError(f"Operands must be (m, k) and (k, n), not {act.shape} and {weight.shape}")
    m, k, n = *act.shape, weight.shape[1]
    whole = grid_job(job.arch, m=m, k=k, n=n)
    if (whole.chunks, whole.tiles) != (job.chunks, job.tiles):
        raise ValueError(
            f"A ({m}, {k}) by ({k}, {n}) product needs {whole.chunks} chunks and {whole.tiles} "
            f"tiles, not {job.chunks} and {job.tiles}"
        )


def unpack(job: GridJob, out: NDArray[np.int32], *, m: int, n: int) -> NDArray[np.int32]:
    """Return the int32[m, n] product from its result beats int32[out beats, drain_rows, cols]."""
    grid = job.arch
    across = -(-n // grid.cols)
    tiles = out.reshape(-1, across, grid.rows, grid.cols).transpose(0, 2, 1, 3)
    return tiles.reshape(-1, across * grid.cols)[:m, :n]
