"""Operand and result beats of the NMArray: packing a GEMM into them and back.

Folds are ordered with output features fastest for OS (row tile, column tile), and with the
reduction fastest for WS (column tile, reduction tile) and IS (row tile, reduction tile). Load
beats carry the bottom row first and, within a PE, the highest group position (or kept pair)
first. Edges are ragged lanes: an invalid lane stands for an operand that does not exist.

An OS fold covers R * I rows of m: PE row r holds rows i * R + r of the fold in its sums i. WS and
IS take I vectors to a block: a block's kept values run outermost and its vectors innermost.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from simulator.arch import ArrayJob, Dataflow, NMArray, Precision
from simulator.arch.nm_job import fold_rows
from simulator.units.float32 import canonical32
from simulator.units.nm_order import in_order

__all__ = [
    "OPERANDS",
    "RESULTS",
    "Beats",
    "Lanes",
    "compress",
    "gemm_job",
    "pack",
    "streamed_pair_beats",
    "unpack",
]

Operands = NDArray[Any]
"""int8 or float16, as the array's precision says."""

Results = NDArray[Any]
"""int32 or float32, as the array's precision says."""

OPERANDS: Final = {
    Precision.INT8: np.dtype(np.int8),
    Precision.FP16: np.dtype(np.float16),
}
RESULTS: Final = {
    Precision.INT8: np.dtype(np.int32),
    Precision.FP16: np.dtype(np.float32),
}
"""Types of activations and weights, and of sums."""

Bool = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lanes:
    """Beats of one operand stream in order of acceptance.

    `valid` bool[beats, lanes]; `value` int8 or float16 [beats, lanes, items]; `index` uint8 of the
    same shape for kept pairs, None where the items are the group's candidates or plain values.
    """

    valid: Bool
    value: Operands
    index: NDArray[np.uint8] | None = None

    @property
    def beats(self) -> int:
        """Number of beats."""
        return len(self.valid)

    @property
    def valid_lanes(self) -> int:
        """Valid lanes of all beats together."""
        return int(self.valid.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beats:
    """All operand beats of one job."""

    side: Lanes
    top: Lanes


def _ceil(size: int, step: int) -> int:
    return -(-size // step)


def gemm_job(
    arch: NMArray,
    dataflow: Dataflow,
    *,
    m: int,
    k: int,
    n: int,
    kept: int,
    group: int,
) -> ArrayJob:
    """Return the job that computes the whole (m, k) by (k, n) product on `arch`.

    OS folds cover R * I of m and C of n; WS folds R * M of k and C of n; IS folds R * M of k and
    C of m (design 4.1). Ragged folds cost the same as full ones.
    """
    tiles_k = _ceil(k, arch.rows * group)
    match dataflow:
        case Dataflow.OS:
            length, folds = _ceil(k, group), _ceil(m, fold_rows(arch)) * _ceil(n, arch.cols)
        case Dataflow.WS:
            length, folds = m, tiles_k * _ceil(n, arch.cols)
        case Dataflow.IS:
            length, folds = n, tiles_k * _ceil(m, arch.cols)
    return ArrayJob(
        arch=arch, dataflow=dataflow, kept=kept, group=group, length=length, folds=folds
    )


def _padded(array: NDArray[Scalar], *sizes: int) -> NDArray[Scalar]:
    return np.pad(array, [(0, size - have) for size, have in zip(sizes, array.shape, strict=True)])


def compress(weight: Operands, kept: int, group: int) -> tuple[Operands, NDArray[np.uint8]]:
    """Keep the non-zeros of every group of `group` along k, in order.

    weight: int8 or float16 [k, n]; returns value of its type and index uint8, both
    [ceil(k / group), kept, n]. A zero of either sign is no non-zero, NaN is one. Groups with fewer
    non-zeros are padded with zeros of index 0. Raises ValueError when a group has more than `kept`
    non-zeros.
    """
    groups = _ceil(weight.shape[0], group)
    split = _padded(weight, groups * group, weight.shape[1]).reshape(groups, group, -1)
    most = int((split != 0).sum(axis=1).max(initial=0))
    if most > kept:
        raise ValueError(f"A group of {group} weights holds {most} non-zeros, at most {kept} fit")
    order = np.argsort(split == 0, axis=1, kind="stable")[:, :kept]
    value = np.take_along_axis(split, order, axis=1)
    return value, np.where(value != 0, order, 0).astype(np.uint8)


def _checked(job: ArrayJob, act: Operands, weight: Operands) -> None:
    wanted = OPERANDS[job.arch.precision]
    if act.dtype != wanted or weight.dtype != wanted:
        raise ValueError(f"Operands must be {wanted}, not {act.dtype} and {weight.dtype}")
    if act.ndim != 2 or weight.ndim != 2 or act.shape[1] != weight.shape[0] or 0 in act.shape:
        raise ValueError(f"Operands must be (m, k) and (k, n), not {act.shape} and {weight.shape}")
    m, k, n = *act.shape, weight.shape[1]
    whole = gemm_job(job.arch, job.dataflow, m=m, k=k, n=n, kept=job.kept, group=job.group)
    if whole != job:
        raise ValueError(
            f"A ({m}, {k}) by ({k}, {n}) product needs length {whole.length} and {whole.folds} "
            f"folds, not {job.length} and {job.folds}"
        )


def _slotted(job: ArrayJob, kept: NDArray[Scalar]) -> NDArray[Scalar]:
    """Split [groups, kept, n] kept pairs over a group's slots: [groups, g, macs_per_pe, n]."""
    groups, _, n = kept.shape
    slots, macs = job.slots_per_group, job.arch.macs_per_pe
    return _padded(kept, groups, slots * macs, n).reshape(groups, slots, macs, n)


def _exists(size: int, tiles: int, lanes: int) -> Bool:
    """Return which lanes of each tile hold one of `size` items, bool[tiles, lanes]."""
    there: Bool = np.arange(tiles * lanes).reshape(tiles, lanes) < size
    return there


def _spread(array: NDArray[Scalar], shape: tuple[int, ...], keep: int) -> NDArray[Scalar]:
    """Broadcast to `shape` and flatten all but the last `keep` axes into beats."""
    return np.broadcast_to(array, shape).reshape(-1, *shape[len(shape) - keep :])


def _pack_os(job: ArrayJob, act: Operands, weight: Operands) -> Beats:
    rows, cols, g, q = job.arch.rows, job.arch.cols, job.slots_per_group, job.arch.macs_per_pe
    (m, _), n, length, group = act.shape, weight.shape[1], job.length, job.group
    sums, held = job.arch.interleave, fold_rows(job.arch)
    mt, nt = _ceil(m, held), _ceil(n, cols)
    # act -> (mt, 1, length, sums, rows, group); kept -> (1, nt, length, g, cols, q)
    tiles = _padded(act, mt * held, length * group).reshape(mt, sums, rows, length, group)
    side_shape = (mt, nt, length, sums, rows, group)
    top_shape = (mt, nt, length, g, cols, q)

    def columns(kept: NDArray[Scalar]) -> NDArray[Scalar]:
        split = _padded(_slotted(job, kept), length, g, q, nt * cols)
        split = split.reshape(length, g, q, nt, cols).transpose(3, 0, 1, 4, 2)
        return _spread(split, top_shape, 2)

    value, index = compress(weight, job.kept, group)
    rows_exist = _exists(m, mt, held).reshape(mt, 1, 1, sums, rows)
    cols_exist = _exists(n, nt, cols)[None, :, None, None, :]
    return Beats(
        side=Lanes(
            valid=_spread(rows_exist, side_shape[:5], 1),
            value=_spread(tiles.transpose(0, 3, 1, 2, 4)[:, None], side_shape, 2),
        ),
        top=Lanes(
            valid=_spread(cols_exist, top_shape[:5], 1), value=columns(value), index=columns(index)
        ),
    )


def _pack_ws(job: ArrayJob, act: Operands, weight: Operands) -> Beats:
    rows, cols, kept, group = job.arch.rows, job.arch.cols, job.kept, job.group
    (m, k), n = act.shape, weight.shape[1]
    kt, nt = _ceil(k, rows * group), _ceil(n, cols)
    vectors = _padded(act, m, kt * rows * group).reshape(m, kt, rows, group)
    side_shape = (nt, kt, m, rows, group)
    top_shape = (nt, kt, rows, kept, cols)

    def columns(pairs: NDArray[Scalar]) -> NDArray[Scalar]:
        split = _padded(pairs, kt * rows, kept, nt * cols).reshape(kt, rows, kept, nt, cols)
        split = split.transpose(3, 0, 1, 2, 4)[:, :, ::-1, ::-1]
        return _spread(split, top_shape, 1)[..., None]

    value, index = compress(weight, kept, group)
    groups_exist = _exists(_ceil(k, group), kt, rows)
    loaded = groups_exist[None, :, ::-1, None, None] & _exists(n, nt, cols)[:, None, None, None]
    return Beats(
        side=Lanes(
            valid=_spread(groups_exist[:, None, :], side_shape[:4], 1),
            value=_spread(vectors.transpose(1, 0, 2, 3), side_shape, 2),
        ),
        top=Lanes(valid=_spread(loaded, top_shape, 1), value=columns(value), index=columns(index)),
    )


def streamed_pair_beats(job: ArrayJob) -> NDArray[np.int64]:
    """Return the side beat, within a fold, of an IS vector's slot of kept pairs, [length, g].

    Blocks of I vectors follow each other, the last one ragged; in a block the slot of the group
    runs outermost and the vector innermost.
    """
    sums, vector = job.arch.interleave, np.arange(job.length, dtype=np.int64)
    before = vector - vector % sums
    together = np.minimum(sums, job.length - before)
    values = np.arange(job.slots_per_group, dtype=np.int64)
    first = before * job.slots_per_group + vector % sums
    beats: NDArray[np.int64] = first[:, None] + together[:, None] * values
    return beats


def _pack_is(job: ArrayJob, act: Operands, weight: Operands) -> Beats:
    rows, cols, group = job.arch.rows, job.arch.cols, job.group
    g, q = job.slots_per_group, job.arch.macs_per_pe
    (m, k), n = act.shape, weight.shape[1]
    kt, mt = _ceil(k, rows * group), _ceil(m, cols)
    held = _padded(act, mt * cols, kt * rows * group).reshape(mt, cols, kt, rows, group)
    there = _exists(m, mt, cols)[:, :, None, None, None]
    there = there & (np.arange(kt * rows * group) < k).reshape(kt, rows, group)
    top_shape = (mt, kt, rows, group, cols)
    side_shape = (mt, kt, n * g, rows, q)
    order = np.argsort(streamed_pair_beats(job).ravel())

    def loads(array: NDArray[Scalar]) -> NDArray[Scalar]:
        return _spread(array.transpose(0, 2, 3, 4, 1)[:, :, ::-1, ::-1], top_shape, 1)

    def stream(pairs: NDArray[Scalar]) -> NDArray[Scalar]:
        split = _padded(_slotted(job, pairs), kt * rows, g, q, n).reshape(kt, rows, g, q, n)
        vectors = split.transpose(0, 4, 2, 1, 3).reshape(kt, n * g, rows, q)
        return _spread(vectors[:, order], side_shape, 2)

    value, index = compress(weight, job.kept, group)
    groups_exist = _exists(_ceil(k, group), kt, rows)[:, None, :]
    return Beats(
        side=Lanes(
            valid=_spread(groups_exist, side_shape[:4], 1), value=stream(value), index=stream(index)
        ),
        top=Lanes(valid=loads(there), value=loads(held)[..., None]),
    )


def pack(job: ArrayJob, act: Operands, weight: Operands) -> Beats:
    """Return the operand beats of act [m, k] times weight [k, n] for `job`.

    Both are int8 or float16, as the array's precision says. The weight's groups along k obey the
    job's N:M. Raises ValueError for other shapes, dtypes or a job that does not fit the product.
    """
    _checked(job, act, weight)
    match job.dataflow:
        case Dataflow.OS:
            return _pack_os(job, act, weight)
        case Dataflow.WS:
            return _pack_ws(job, act, weight)
        case Dataflow.IS:
            return _pack_is(job, act, weight)


def _total(job: ArrayJob, parts: Results) -> Results:
    """Return the sums over axis 1, the reduction tiles in fold order."""
    match job.arch.precision:
        case Precision.INT8:
            whole: Results = parts.sum(axis=1, dtype=np.int32)
            return whole
        case Precision.FP16:
            tiles = np.array(parts, order="C").reshape(*parts.shape[:2], -1)
            return canonical32(in_order(tiles).reshape(parts.shape[0], *parts.shape[2:]))
        case _:
            assert_never(job.arch.precision)


def unpack(job: ArrayJob, out: Results, *, m: int, n: int) -> Results:
    """Return the [m, n] product from its result beats [beats, cols], both int32 or float32.

    Partial sums of reduction tiles are added in fold order, with int32 wrapping or in fp32.
    """
    rows, cols, sums = job.arch.rows, job.arch.cols, job.arch.interleave
    across = _ceil(m if job.dataflow is Dataflow.IS else n, cols)
    match job.dataflow:
        case Dataflow.OS:
            tiles = out.reshape(-1, across, sums, rows, cols)[:, :, :, ::-1]
            return tiles.transpose(0, 2, 3, 1, 4).reshape(-1, across * cols)[:m, :n]
        case Dataflow.WS | Dataflow.IS:
            total = _total(job, out.reshape(across, -1, job.length, cols)).transpose(1, 0, 2)
            whole: Results = total.reshape(job.length, across * cols)
            return whole.T[:m, :n] if job.dataflow is Dataflow.IS else whole[:m, :n]
        case _:
            assert_never(job.dataflow)
