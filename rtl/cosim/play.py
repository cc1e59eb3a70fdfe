"""The testbench protocol, free of any simulator: what to drive in a cycle, given what was seen.

A source offers beat i `delay` cycles after the cycle that follows the previous acceptance and
holds it; the sink accepts `delay` cycles after a beat becomes visible. Cycle 0 follows the
acceptance of the first job; jobs are a source like the operands.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from rtl.cosim.stimulus import Stimulus

__all__ = ["Drive", "Observation", "Player", "Sample", "play"]


class Drive(NamedTuple):
    """Inputs for one cycle; a word of None leaves the port as it is."""

    job_valid: int
    job: int | None
    side_valid: int
    side: int | None
    top_valid: int
    top: int | None
    out_ready: int


class Sample(NamedTuple):
    """Outputs at the end of one cycle."""

    job_ready: int
    side_ready: int
    top_ready: int
    out_valid: int
    out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an array did: result words and the cycle of each acceptance, and its counters."""

    outputs: tuple[int, ...]
    accept_job: tuple[int, ...]
    accept_side: tuple[int, ...]
    accept_top: tuple[int, ...]
    emit: tuple[int, ...]
    counters: dict[str, int]


@dataclass(slots=True)
class _Source:
    words: tuple[int, ...]
    delays: tuple[int, ...]
    cycles: list[int] = field(default_factory=list)
    waited: int = 0

    @property
    def offers(self) -> bool:
        done = len(self.cycles)
        return done < len(self.words) and self.waited >= self.delays[done]

    @property
    def word(self) -> int | None:
        return self.words[len(self.cycles)] if self.offers else None

    def step(self, ready: int, cycle: int) -> None:
        if self.offers and ready:
            self.cycles.append(cycle)
            self.waited = 0
        else:
            self.waited += 1


@dataclass(slots=True)
class _Sink:
    delays: tuple[int, ...]
    words: list[int] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)
    waited: int = 0

    @property
    def ready(self) -> bool:
        done = len(self.cycles)
        return done >= len(self.delays) or self.waited >= self.delays[done]

    def step(self, valid: int, word: int, cycle: int) -> None:
        if valid and self.ready:
            self.words.append(word)
            self.cycles.append(cycle)
            self.waited = 0
        elif valid:
            self.waited += 1


Player = Generator[Drive, Sample, Observation]
"""Yields each cycle's inputs, is sent its outputs, returns what happened."""


def play(stimulus: Stimulus) -> Player:
    """Play a stimulus.

    The counters of the observation are left empty for the simulator to read. An array that hangs
    is given up after the stimulus' limit of cycles.
    """
    job = _Source(stimulus.jobs, stimulus.job_delays)
    side = _Source(stimulus.side, stimulus.side_delays)
    top = _Source(stimulus.top, stimulus.top_delays)
    sink = _Sink(stimulus.out_delays)
    cycle, quiet = -1, 0
    while cycle < stimulus.limit_cycles and quiet < stimulus.quiet_cycles:
        begun = cycle >= 0
        seen = yield Drive(
            job.offers,
            job.word,
            begun and side.offers,
            side.word,
            begun and top.offers,
            top.word,
            sink.ready,
        )
        sink.step(seen.out_valid, seen.out, cycle)
        job.step(seen.job_ready, cycle)
        if begun:
            side.step(seen.side_ready, cycle)
            top.step(seen.top_ready, cycle)
        quiet = quiet + 1 if len(sink.cycles) >= len(sink.delays) else 0
        cycle += 1
    return Observation(
        outputs=tuple(sink.words),
        accept_job=tuple(job.cycles),
        accept_side=tuple(side.cycles),
        accept_top=tuple(top.cycles),
        emit=tuple(sink.cycles),
        counters={},
    )
