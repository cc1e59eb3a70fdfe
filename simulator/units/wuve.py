"""Functional and handshake model of WUVE: the RTL's bits, cycles and counts.

`update` is the arithmetic, in numpy float32 and in the RTL's order. `run` takes the same beats and
delays as the RTL testbench. WUVE moves in slots, all of it or none (`simulator.units.handshake`):
a job's first `beats` slots take a beat each, `latency - 1` more bring the last result out, and
the next job's slot 0 is then the slot in which that result is offered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.wuve import WuveJob
from simulator.units.float32 import add, multiply, narrow, widen
from simulator.units.handshake import Flow, pass_slots

__all__ = ["WuveBeats", "WuveResults", "WuveStalls", "WuveTrace", "run", "run_sequence", "update"]

Ints = NDArray[np.int64]
Half = NDArray[np.float16]
Single = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuveBeats:
    """Operand beats of one job, all [beats, lanes]: fp32 weights and momenta, fp16 gradients."""

    weight: Single
    velocity: Single
    gradient: Half

    def __post_init__(self) -> None:
        found = [(a.dtype, a.shape) for a in (self.weight, self.velocity, self.gradient)]
        dtypes = [np.dtype(np.float32), np.dtype(np.float32), np.dtype(np.float16)]
        if [dtype for dtype, _ in found] != dtypes or len({shape for _, shape in found}) > 1:
            listed = ", ".join(f"{dtype}{list(shape)}" for dtype, shape in found)
            raise ValueError(
                "Weight, velocity and gradient must be float32, float32 and float16 of one "
                f"shape, not {listed}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuveResults:
    """Updated fp32 weights and momenta and the fp16 copy of the weights, of one shape."""

    weight: Single
    velocity: Single
    copy: Half


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuveStalls:
    """Delays in cycles of every beat over all jobs, int64[beats] each.

    Source beat i is offered `side[i]` cycles after the cycle that follows the previous acceptance
    and then held; the sink accepts `out[j]` cycles after beat j becomes visible.
    """

    side: Ints
    out: Ints

    @classmethod
    def none(cls, jobs: Sequence[WuveJob]) -> "WuveStalls":
        """Return stalls that never hold WUVE."""
        beats = sum(job.beats for job in jobs)
        return cls(side=np.zeros(beats, np.int64), out=np.zeros(beats, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WuveTrace:
    """What WUVE does with its beats.

    `results` [beats, lanes] over all jobs; int64 cycles of every acceptance, cycle 0 being the
    first in which a beat can be taken (a job is accepted in the last slot of the one before, the
    first in cycle -1); `cycles` from the first beat taken to the last result handed over;
    `counts` by (component, action, variant).
    """

    results: WuveResults
    accept_job: Ints
    accept: Ints
    emit: Ints
    cycles: int
    counts: dict[tuple[str, str, str], int]


def update(job: WuveJob, beats: WuveBeats) -> WuveResults:
    """Return the updated weights, momenta and fp16 copies of arrays of any one shape."""
    lr, mu, wd = (
        np.asarray(setting, np.float32)
        for setting in (job.learning_rate, job.momentum, job.weight_decay)
    )
    gradient = add(widen(beats.gradient), multiply(wd, beats.weight))
    velocity = add(multiply(mu, beats.velocity), gradient)
    weight = add(beats.weight, np.negative(multiply(lr, velocity)))
    return WuveResults(weight=weight, velocity=velocity, copy=narrow(weight))


def _joined(results: Sequence[WuveResults]) -> WuveResults:
    return WuveResults(
        weight=np.concatenate([each.weight for each in results]),
        velocity=np.concatenate([each.velocity for each in results]),
        copy=np.concatenate([each.copy for each in results]),
    )


def _checked(jobs: Sequence[WuveJob], beats: Sequence[WuveBeats]) -> None:
    if not jobs or len(jobs) != len(beats) or any(job.params != jobs[0].params for job in jobs):
        raise ValueError(f"Need one set of beats for each of one WUVE's jobs, not {len(beats)}")
    for job, beat in zip(jobs, beats, strict=True):
        if beat.weight.shape != (job.beats, job.params.lanes):
            raise ValueError(
                f"Beats must be [{job.beats}, {job.params.lanes}], not {list(beat.weight.shape)}"
            )


def run_sequence(
    jobs: Sequence[WuveJob], beats: Sequence[WuveBeats], stalls: WuveStalls | None = None
) -> WuveTrace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Without `stalls` nothing holds WUVE. Raises ValueError for no jobs, jobs of different engines,
    or beats or delays that do not match.
    """
    _checked(jobs, beats)
    stalls = WuveStalls.none(jobs) if stalls is None else stalls
    ends = np.cumsum([job.slots for job in jobs])
    starts = ends - [job.slots for job in jobs]
    taken = np.concatenate(
        [np.arange(job.beats) + start for job, start in zip(jobs, starts, strict=True)]
    )
    none = np.zeros(0, np.int64)
    passage = pass_slots(
        int(ends[-1]) + 1,
        Flow(slots=taken, delays=stalls.side),
        Flow(slots=none, delays=none),
        Flow(slots=taken + jobs[0].params.latency, delays=stalls.out),
    )
    return WuveTrace(
        results=_joined([update(job, beat) for job, beat in zip(jobs, beats, strict=True)]),
        accept_job=np.concatenate([[-1], passage.cycle[ends[:-1] - 1]]),
        accept=passage.side,
        emit=passage.out,
        cycles=int(passage.out[-1] - passage.side[0]) + 1,
        counts=_counts(jobs),
    )


def _counts(jobs: Sequence[WuveJob]) -> dict[tuple[str, str, str], int]:
    elements = jobs[0].params.lanes * sum(job.beats for job in jobs)
    return {
        ("wuve", "multiply", "full"): 3 * elements,
        ("wuve", "add", "full"): 3 * elements,
        ("wuve", "convert", "full"): elements,
    }


def run(job: WuveJob, beats: WuveBeats, stalls: WuveStalls | None = None) -> WuveTrace:
    """Return the trace of a single job; without `stalls` nothing holds WUVE."""
    return run_sequence((job,), (beats,), stalls)
