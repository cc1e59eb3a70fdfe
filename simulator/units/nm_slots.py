"""The slots in which an ArrayJob accepts operand beats and presents result beats.

Everything follows from the closed forms of `simulator.arch.ArrayJob`; slots count from the job's
slot 0. Result slots may lie after `job.slots`: those beats leave while the next job already runs.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.arch import ArrayJob, Dataflow
from simulator.arch.nm_job import fold_rows, sum_slots

__all__ = ["load_slot_table", "out_slots", "side_slots", "stream_starts", "top_slots"]

Slots = NDArray[np.int64]


def stream_starts(job: ArrayJob) -> Slots:
    """Return the slot of each fold's first stream slot at PE (0, 0), int64[folds]."""
    return job.start(0) + job.interval * np.arange(job.folds, dtype=np.int64)


def load_slot_table(job: ArrayJob) -> Slots:
    """Return the slots of every load beat in order, int64[folds * load_slots]."""
    first = np.array([job.load_start(0)], dtype=np.int64)
    # Folds after the first load one interval apart, so two closed-form points give them all.
    later = job.load_start(1) + job.interval * np.arange(job.folds - 1, dtype=np.int64)
    starts = np.concatenate([first, later])
    return (starts[:, None] + np.arange(job.load_slots, dtype=np.int64)).ravel()


def _product_slots(job: ArrayJob) -> Slots:
    """Return the slots of a fold in which PE (0, 0) multiplies, int64[blocks, g, sums].

    A ragged last block of WS and IS leaves the slots of its missing vectors idle; they are
    negative here.
    """
    sums = np.arange(job.arch.interleave, dtype=np.int64)
    values = np.arange(0, job.stream_slots, job.arch.issue_slots, dtype=np.int64)
    slots = (values[:, None] + sums).reshape(-1, job.slots_per_group, sums.size)
    if job.dataflow is not Dataflow.OS:
        vector = np.arange(len(slots))[:, None, None] * sums.size + sums
        slots[np.broadcast_to(vector, slots.shape) >= job.length] = -1
    return slots


def _every_fold(job: ArrayJob, within: Slots) -> Slots:
    """Return the non-negative ones of a fold's slots for all folds of the job, in order."""
    there = within[within >= 0]
    return (stream_starts(job)[:, None] + there).ravel()


def side_slots(job: ArrayJob) -> Slots:
    """Return the slot of every side beat: one a group and sum for OS and WS, one a slot for IS."""
    slots = _product_slots(job)
    return _every_fold(job, slots if job.dataflow is Dataflow.IS else slots[:, 0])


def top_slots(job: ArrayJob) -> Slots:
    """Return the slot of every top beat: one a kept value for OS, the load beats otherwise."""
    if job.dataflow is not Dataflow.OS:
        return load_slot_table(job)
    return _every_fold(job, _product_slots(job)[..., 0])


def out_slots(job: ArrayJob) -> Slots:
    """Return the slot in which each result beat is first presented.

    OS presents `rows` beats for each of its interleaved sums from the slot in which the first of
    them has crossed the array; WS and IS present one beat for every streamed vector.
    """
    last = _product_slots(job)[:, -1]
    lag = sum_slots(job.arch, job.dataflow) + job.skew_slots
    if job.dataflow is Dataflow.OS:
        last = last[-1, 0] + np.arange(fold_rows(job.arch), dtype=np.int64)
    return _every_fold(job, np.where(last >= 0, last + lag, -1))
