"""The slots in which an ArrayJob accepts operand beats and presents result beats.

Everything follows from the closed forms of `simulator.arch.ArrayJob`; slots count from the job's
slot 0. Result slots may lie after `job.slots`: those beats leave while the next job already runs.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.arch import ArrayJob, Dataflow

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


def side_slots(job: ArrayJob) -> Slots:
    """Return the slot of every side beat: one a group for OS and WS, one a slot for IS."""
    step = 1 if job.dataflow is Dataflow.IS else job.slots_per_group
    within = np.arange(0, job.stream_slots, step, dtype=np.int64)
    return (stream_starts(job)[:, None] + within).ravel()


def top_slots(job: ArrayJob) -> Slots:
    """Return the slot of every top beat: one a stream slot for OS, the load beats otherwise."""
    if job.dataflow is not Dataflow.OS:
        return load_slot_table(job)
    within = np.arange(job.stream_slots, dtype=np.int64)
    return (stream_starts(job)[:, None] + within).ravel()


def out_slots(job: ArrayJob) -> Slots:
    """Return the slot in which each result beat is first presented.

    OS presents `rows` beats a fold after its last stream slot has crossed the array; WS and IS
    present one beat for every streamed vector.
    """
    if job.dataflow is Dataflow.OS:
        within = job.stream_slots + np.arange(job.arch.rows, dtype=np.int64)
    else:
        within = job.slots_per_group * np.arange(1, job.length + 1, dtype=np.int64)
    return (stream_starts(job)[:, None] + within + job.skew_slots).ravel()
