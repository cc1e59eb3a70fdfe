"""fp32 results of the fp16 NMArray, every addition in the order of the hardware.

A PE adds exact products of kept values, ascending groups and ascending kept pairs, to a sum that
starts at +0: over all of k for OS, over its own group for WS and IS, where the column's rows then
add their sums to the passing one from the top row downwards. A product of a zero kept value, or of
an operand lane that does not exist, is +0 whatever the other operand is. NaN is canonical.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from simulator.arch import ArrayJob, Dataflow
from simulator.arch.nm_job import fold_rows
from simulator.units.float32 import canonical32
from simulator.units.nm_beats import Beats, Lanes, streamed_pair_beats
from simulator.units.nm_order import in_order

__all__ = ["respond_floats"]

Single = NDArray[np.float32]
Ints = NDArray[np.int64]
Bool = NDArray[np.bool_]

CHUNK_ITEMS = 1 << 22
"""Products formed at a time: bounds memory, not results."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pairs:
    """Kept values float32[..., k] and the rows int64[..., k] of candidates that they select."""

    value: Single
    row: Ints

    def cut(self, part: tuple[Any, ...]) -> "_Pairs":
        return _Pairs(value=self.value[part], row=self.row[part])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Candidates float32[..., rows, items], 0 where they do not exist, and which exist."""

    value: Single
    there: Bool

    def cut(self, part: tuple[Any, ...]) -> "_Rows":
        return replace(self, value=self.value[part], there=self.there[part])


def _lanes(lanes: Lanes) -> tuple[Single, Bool]:
    """Return the values float32[beats, lanes, items], 0 where invalid, and their validity."""
    there = np.broadcast_to(lanes.valid[..., None], lanes.value.shape)
    with np.errstate(invalid="ignore"):
        return np.where(there, lanes.value, np.float16(0)).astype(np.float32), there


def _index(lanes: Lanes) -> Ints:
    if lanes.index is None:
        raise ValueError("Streamed or loaded kept pairs need an index for every value")
    return lanes.index.astype(np.int64)


def _products(rows: _Rows, pairs: _Pairs, lead: tuple[Any, ...]) -> Single:
    """Return float32[..., k, items]; `lead` picks the candidates' leading positions."""
    at = (*lead, pairs.row)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        products: Single = rows.value[at] * pairs.value[..., None]
    if not (np.isfinite(rows.value).all() and np.isfinite(pairs.value).all()):
        # Only then does a product that must not count differ from a zero of either sign.
        np.copyto(products, 0, where=~rows.there[at] | (pairs.value == 0)[..., None])
    return products


def _slices(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, max(step, 1)):
        yield slice(start, start + max(step, 1))


def _grid(*sizes: int, extra: int) -> tuple[Ints, ...]:
    """Return open index arrays of the sizes, followed by `extra` axes of length 1."""
    grid = np.ix_(*(np.arange(size) for size in sizes))
    return tuple(axis.reshape(*axis.shape, *(1,) * extra) for axis in grid)


def _respond_os(job: ArrayJob, beats: Beats) -> Single:
    """Return the final sums float32[folds, sums * rows, cols]."""
    folds, cols, held = job.folds, job.arch.cols, fold_rows(job.arch)
    depth = job.length * job.group

    def candidates(array: NDArray[Any]) -> NDArray[Any]:
        split = array.reshape(folds, job.length, held, job.group).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(split).reshape(folds, depth, held)

    def columns(array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(folds, job.length * job.kept, cols).transpose(0, 2, 1)

    rows = _Rows(**dict(zip(("value", "there"), map(candidates, _lanes(beats.side)), strict=True)))
    base = np.repeat(np.arange(job.length) * job.group, job.kept)
    pairs = _Pairs(value=columns(_lanes(beats.top)[0]), row=columns(_index(beats.top)) + base)
    total = np.zeros((folds, cols, held), np.float32)
    together = max(1, CHUNK_ITEMS // (cols * held * base.size))
    for fold in _slices(folds, together):
        chunk, sums = rows.cut((fold,)), total[fold]
        lead = _grid(len(sums), extra=2)
        for part in _slices(base.size, CHUNK_ITEMS // (cols * held * together)):
            products = _products(chunk, pairs.cut((fold, slice(None), part)), lead)
            sums[...] = in_order(products, sums)
    return total.transpose(0, 2, 1)


def _loaded(job: ArrayJob, array: NDArray[Any]) -> NDArray[Any]:
    """Return loads [beats, cols] as they settle, [folds, rows, depth, cols]."""
    depth = job.load_slots // job.arch.rows
    return array.reshape(job.folds, job.arch.rows, depth, job.arch.cols)[:, ::-1, ::-1]


def _down_the_column(local: Single) -> Single:
    """Return the sums of local sums float32[..., rows, items] from the top row downwards."""
    return in_order(np.ascontiguousarray(local))


def _respond_ws(job: ArrayJob, beats: Beats) -> Single:
    """Return the final sums float32[folds, length, cols]."""
    folds, rows, cols = job.folds, job.arch.rows, job.arch.cols

    def vectors(array: NDArray[Any]) -> NDArray[Any]:
        split = array.reshape(folds, job.length, rows, job.group)
        return np.ascontiguousarray(split.transpose(0, 2, 3, 1))

    streamed = _Rows(**dict(zip(("value", "there"), map(vectors, _lanes(beats.side)), strict=True)))
    value, index = (_loaded(job, a[..., 0]) for a in (_lanes(beats.top)[0], _index(beats.top)))
    held = _Pairs(value=value.swapaxes(2, 3), row=index.swapaxes(2, 3))
    total = np.empty((folds, job.length, cols), np.float32)
    together = max(1, CHUNK_ITEMS // (rows * cols * job.kept * job.length))
    for fold in _slices(folds, together):
        pairs = held.cut((fold,))
        lead = _grid(len(pairs.value), rows, extra=2)
        for part in _slices(job.length, CHUNK_ITEMS // (rows * cols * job.kept * together)):
            local = in_order(_products(streamed.cut((fold, ..., part)), pairs, lead))
            passed = _down_the_column(local.reshape(*local.shape[:2], -1))
            total[fold, part] = passed.reshape(len(local), cols, -1).swapaxes(1, 2)
    return total


def _respond_is(job: ArrayJob, beats: Beats) -> Single:
    """Return the final sums float32[folds, length, cols]."""
    folds, rows, cols = job.folds, job.arch.rows, job.arch.cols
    order = streamed_pair_beats(job)

    def vectors(array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(folds, -1, rows)[:, order].swapaxes(2, 3)

    streamed = _Pairs(value=vectors(_lanes(beats.side)[0]), row=vectors(_index(beats.side)))
    value, there = (_loaded(job, array[..., 0]) for array in _lanes(beats.top))
    # A column takes part when its last loaded candidate, row 0's first, exists.
    there = np.broadcast_to(there[:, :1, :1], there.shape)
    held = _Rows(value=np.where(there, value, np.float32(0)), there=there)
    total = np.empty((folds, job.length, cols), np.float32)
    together = max(1, CHUNK_ITEMS // (rows * cols * job.kept * job.length))
    for fold in _slices(folds, together):
        loaded = held.cut((fold,))
        lead = _grid(len(loaded.value), 1, rows, extra=1)
        for part in _slices(job.length, CHUNK_ITEMS // (rows * cols * job.kept * together)):
            local = in_order(_products(loaded, streamed.cut((fold, part)), (lead[0], lead[2])))
            total[fold, part] = _down_the_column(local)
    return total


def respond_floats(job: ArrayJob, beats: Beats) -> Single:
    """Return the result beats float32[beats, cols] of one job of an fp16 array."""
    cols = job.arch.cols
    match job.dataflow:
        case Dataflow.OS:
            sets = _respond_os(job, beats).reshape(-1, job.arch.interleave, job.arch.rows, cols)
            return canonical32(sets[:, :, ::-1].reshape(-1, cols))
        case Dataflow.WS:
            return canonical32(_respond_ws(job, beats).reshape(-1, cols))
        case Dataflow.IS:
            return canonical32(_respond_is(job, beats).reshape(-1, cols))
        case _:
            assert_never(job.dataflow)
