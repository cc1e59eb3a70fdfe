"""Jobs of a machine that moves in slots, with two operand streams: stalls and exact cycles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.units.handshake import Flow, Passage, pass_slots

__all__ = ["BeatSlots", "SlotJob", "SlotPassage", "SlotStalls", "no_stalls", "pass_jobs"]

Ints = NDArray[np.int64]


class SlotJob(Protocol):
    """A job whose slots are closed form: the next job's slot 0 is `slots` after its own."""

    @property
    def slots(self) -> int:
        """Slots until the next job."""


class BeatSlots(NamedTuple):
    """The slots of a job's beats from its slot 0, rising; results may lie after its last slot."""

    side: Ints
    top: Ints
    out: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotStalls:
    """Delays in cycles of every beat over all jobs, int64[beats] each.

    A source offers beat i `delay` cycles after the cycle that follows the previous acceptance and
    then holds it; the sink accepts `out[j]` cycles after beat j becomes visible.
    """

    side: Ints
    top: Ints
    out: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotPassage:
    """int64 cycles of every acceptance, cycle 0 being the first in which a beat can be taken.

    A job is accepted in the last slot of the one before, the first in cycle -1. `cycles` is the
    sum over jobs from slot 0 to the last slot, stalls in between included and charged to one
    cause.
    """

    accept_job: Ints
    accept_side: Ints
    accept_top: Ints
    emit: Ints
    cycles: int
    stall_side: int
    stall_top: int
    stall_out: int


Job = TypeVar("Job", bound=SlotJob)


def no_stalls(jobs: Sequence[Job], slots: Callable[[Job], BeatSlots]) -> SlotStalls:
    """Return stalls that never hold the machine."""
    tables = [slots(job) for job in jobs]
    side, top, out = (np.zeros(sum(map(len, each)), np.int64) for each in zip(*tables, strict=True))
    return SlotStalls(side=side, top=top, out=out)


def pass_jobs(
    jobs: Sequence[Job], slots: Callable[[Job], BeatSlots], stalls: SlotStalls | None
) -> SlotPassage:
    """Return the exact cycles of jobs run back to back; without `stalls` nothing holds them.

    Raises ValueError for delays that do not match.
    """
    stalls = stalls or no_stalls(jobs, slots)
    ends = np.cumsum([job.slots for job in jobs])
    starts = ends - [job.slots for job in jobs]
    tables = [slots(job) for job in jobs]
    side, top, out = (
        np.concatenate([beats + start for beats, start in zip(each, starts, strict=True)])
        for each in zip(*tables, strict=True)
    )
    passage = pass_slots(
        int(max(ends[-1], out[-1] + 1)),
        Flow(slots=side, delays=stalls.side),
        Flow(slots=top, delays=stalls.top),
        Flow(slots=out, delays=stalls.out),
    )
    return _summed(passage, starts, ends - 1)


def _summed(passage: Passage, first: Ints, last: Ints) -> SlotPassage:
    def held(cause: Ints) -> int:
        # A window opens with its first operand, so the wait for that one is not the job's.
        sums = np.concatenate([[0], np.cumsum(cause)])
        return int((sums[last + 1] - sums[first + 1]).sum())

    return SlotPassage(
        accept_job=np.concatenate([[-1], passage.cycle[last[:-1]]]),
        accept_side=passage.side,
        accept_top=passage.top,
        emit=passage.out,
        cycles=int((passage.cycle[last] - passage.cycle[first] + 1).sum()),
        stall_side=held(passage.held_side),
        stall_top=held(passage.held_top),
        stall_out=held(passage.held_out),
    )
