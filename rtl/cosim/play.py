"""The testbench protocol, free of any simulator: what to drive in a cycle, given what was seen.

A unit takes jobs and operands from streams, known by the names of their ports, and has one result
stream, `out`. A source offers beat i `delay` cycles after the cycle that follows the previous
acceptance and holds it; the sink accepts `delay` cycles after a beat becomes visible. Cycle 0
follows the acceptance of the first job; jobs are a source like the operands.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "QUIET_CYCLES",
    "Drive",
    "Feed",
    "Observation",
    "Offer",
    "Player",
    "Sample",
    "Stimulus",
    "feed",
    "play",
]

QUIET_CYCLES = 6
"""Cycles watched after all else, in which nothing more may happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Port words of one stream and, for each, its delay in cycles."""

    words: tuple[int, ...]
    delays: tuple[int, ...]


def feed(words: Sequence[int], delays: Sequence[int] | None = None) -> Feed:
    """Return a feed; without `delays` every word is offered at once."""
    return Feed(words=tuple(words), delays=tuple(delays or (0,) * len(words)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stimulus:
    """A point as port words and delays in cycles; every simulator plays the same one.

    `feeds` has the streams `job` and operands by port. The unit is watched for `quiet_cycles`
    after its last result has left, and given up after `limit_cycles`.
    """

    feeds: Mapping[str, Feed]
    out_delays: tuple[int, ...]
    limit_cycles: int
    quiet_cycles: int = QUIET_CYCLES


class Offer(NamedTuple):
    """Inputs of one stream; a word of None leaves the port as it is."""

    valid: bool
    word: int | None


class Drive(NamedTuple):
    """Inputs for one cycle: an offer by stream, and the result port's."""

    offers: Mapping[str, Offer]
    out_ready: bool


class Sample(NamedTuple):
    """Outputs at the end of one cycle: ready by stream, and the result port."""

    ready: Mapping[str, int]
    out_valid: int
    out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a unit did: result words, the cycle of each acceptance by stream, and its counters."""

    outputs: tuple[int, ...]
    accept: Mapping[str, tuple[int, ...]]
    emit: tuple[int, ...]
    counters: Mapping[str, int]


IDLE = Offer(False, None)


@dataclass(slots=True)
class _Source:
    feed: Feed
    cycles: list[int] = field(default_factory=list)
    waited: int = 0

    def offer(self) -> Offer:
        done = len(self.cycles)
        if done < len(self.feed.words) and self.waited >= self.feed.delays[done]:
            return Offer(True, self.feed.words[done])
        return IDLE

    def step(self, accepted: int, cycle: int) -> None:
        if accepted:
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

    The counters of the observation are left empty for the simulator to read. A unit that hangs
    is given up after the stimulus' limit of cycles.
    """
    sources = {name: _Source(each) for name, each in stimulus.feeds.items()}
    sink = _Sink(stimulus.out_delays)
    cycle, quiet = -1, 0
    while cycle < stimulus.limit_cycles and quiet < stimulus.quiet_cycles:
        # Jobs are offered one cycle before operands.
        live = sources if cycle >= 0 else {"job": sources["job"]}
        offers = {
            name: source.offer() if name in live else IDLE for name, source in sources.items()
        }
        seen = yield Drive(offers, sink.ready)
        sink.step(seen.out_valid, seen.out, cycle)
        for name, source in live.items():
            source.step(offers[name].valid and seen.ready[name], cycle)
        quiet = quiet + 1 if len(sink.cycles) >= len(sink.delays) else 0
        cycle += 1
    return Observation(
        outputs=tuple(sink.words),
        accept={name: tuple(source.cycles) for name, source in sources.items()},
        emit=tuple(sink.cycles),
        counters={},
    )
