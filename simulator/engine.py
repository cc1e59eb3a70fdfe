"""Exact time of a folded schedule, by max-plus algebra.

A program of in-order units and token channels is a timed event graph: every time in it is the
maximum of sums of earlier times. Two facts make the time of a loop exact for any trip count
(Baccelli et al., Synchronization and Linearity, 1992, sections 2 and 3):

- A body that starts later by d ends later by d. So once a pass has moved every time it touches
  by the same d, one or two passes after another, all further passes do too; loops fall into such
  a rhythm after a few passes.
- One pass is a matrix over (max, +), and n passes are that matrix to the n-th power, found by
  squaring. This covers loops without a common rhythm, such as units that drift apart.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from simulator.recent import PerProgram
from simulator.schedule import Block, OpSchedule, Repeat, Step, Unit

__all__ = ["Transfer", "program_cycles", "transfer", "unit_cycles", "without"]

Times = NDArray[np.int64]

NEVER = -(2**60)
"""Minus infinity of the algebra: sums of a few of them still fit int64."""

MOST_PASSES = 24
"""Passes of a loop after which it is taken as a matrix instead."""

LONGEST_RHYTHM = 2
"""Passes after which times may repeat: double buffers alternate."""

_CYCLES: PerProgram[int] = PerProgram()


@dataclass(slots=True)
class _State:
    """Times at a point of the program: one row per unit and per token, any number of columns."""

    units: dict[StrEnum, Times]
    channels: dict[str, list[Times]]

    def rows(self) -> Times:
        waiting = [token for channel in sorted(self.channels) for token in self.channels[channel]]
        return np.array([*self.units.values(), *waiting], dtype=np.int64)

    def load(self, rows: Times) -> None:
        it = iter(rows)
        for unit in self.units:
            self.units[unit] = next(it)
        for channel in sorted(self.channels):
            self.channels[channel] = [next(it) for _ in self.channels[channel]]

    def identity(self) -> "_State":
        """Return the same layout with every row its own variable."""
        copy = _State(dict(self.units), {c: list(q) for c, q in self.channels.items()})
        size = len(self.units) + sum(map(len, self.channels.values()))
        eye = np.full((size, size), NEVER, dtype=np.int64)
        np.fill_diagonal(eye, 0)
        copy.load(eye)
        return copy


def _product(a: Times, b: Times) -> Times:
    out = (a[:, :, None] + b[None, :, :]).max(axis=1)
    return np.maximum(out, NEVER, out=out)  # type: ignore[no-any-return]


def _apply_power(a: Times, times: int, rows: Times) -> Times:
    """Return a^times applied to rows."""
    while True:
        if times & 1:
            rows = _product(a, rows)
        times >>= 1
        if not times:
            return rows
        a = _product(a, a)


def _run(block: Block, state: _State) -> None:
    for item in block:
        if isinstance(item, Step):
            _step(item, state)
        elif item.times == 1:
            _run(item.body, state)
        else:
            _power(item, state)


def _power(loop: Repeat, state: _State) -> None:
    body = state.identity()
    _run(loop.body, body)
    state.load(_apply_power(body.rows(), loop.times, state.rows()))


def _step(step: Step, state: _State) -> None:
    start = state.units[step.unit]
    for channel in step.waits:
        start = np.maximum(start, state.channels[channel].pop(0))
    end = start + step.cycles
    state.units[step.unit] = end
    for channel in step.releases:
        state.channels.setdefault(channel, []).append(end + step.latency)


@dataclass(slots=True)
class _Clock:
    """Times at a point of the program, as numbers."""

    units: dict[StrEnum, int]
    channels: dict[str, list[int]]

    def run(self, block: Block) -> None:
        units, channels = self.units, self.channels
        for item in block:
            if isinstance(item, Repeat):
                self._loop(item)
                continue
            time = units[item.unit]
            for channel in item.waits:
                ready = channels[channel].pop(0)
                if ready > time:
                    time = ready
            units[item.unit] = time = time + item.cycles
            for channel in item.releases:
                channels.setdefault(channel, []).append(time + item.latency)

    def _loop(self, loop: Repeat) -> None:
        """Run a loop pass by pass until it has a rhythm, then leap; without one, as a matrix."""
        units, names = _touched(loop.body)
        seen: list[list[int]] = []
        for passed in range(min(loop.times, MOST_PASSES)):
            left = loop.times - passed
            now = self._times(units, names)
            for period, before in enumerate(reversed(seen[-LONGEST_RHYTHM:]), 1):
                if left >= period and (shift := _shift(before, now)) is not None:
                    self._advance(units, names, left // period * shift)
                    for _ in range(left % period):
                        self.run(loop.body)
                    return
            seen.append(now)
            self.run(loop.body)
        if loop.times > MOST_PASSES:
            self._as_matrix(replace(loop, times=loop.times - MOST_PASSES))

    def _times(self, units: list[StrEnum], names: list[str]) -> list[int]:
        times = [self.units[unit] for unit in units]
        for name in names:
            times += self.channels.get(name, ())
        return times

    def _advance(self, units: list[StrEnum], names: list[str], by: int) -> None:
        for unit in units:
            self.units[unit] += by
        for name in names:
            self.channels[name] = [time + by for time in self.channels.get(name, ())]

    def _as_matrix(self, loop: Repeat) -> None:
        state = _State(
            {unit: np.array([time]) for unit, time in self.units.items()},
            {name: [np.array([time]) for time in q] for name, q in self.channels.items()},
        )
        _power(loop, state)
        self.units.update((unit, int(time[0])) for unit, time in state.units.items())
        self.channels.update((name, [int(t[0]) for t in q]) for name, q in state.channels.items())


def _touched(block: Block) -> tuple[list[StrEnum], list[str]]:
    """Return the units and channels that `block` uses."""
    units: dict[StrEnum, None] = {}
    names: dict[str, None] = {}
    for item in block:
        if isinstance(item, Repeat):
            inner = _touched(item.body)
            units.update(dict.fromkeys(inner[0]))
            names.update(dict.fromkeys(inner[1]))
        else:
            units[item.unit] = None
            names.update(dict.fromkeys((*item.waits, *item.releases)))
    return list(units), list(names)


def _shift(before: list[int], now: list[int]) -> int | None:
    """Return by how much all times moved, None if not all by the same."""
    if len(before) != len(now):
        return None
    shift = now[0] - before[0]
    return shift if all(b + shift == n for b, n in zip(before, now, strict=True)) else None


def program_cycles(
    program: Block, tokens: Mapping[str, int], units: Iterable[StrEnum] = Unit
) -> int:
    """Return the cycle in which the last step of `program` ends, all units free at cycle 0.

    `tokens` are the initial tokens by channel; the schedule must satisfy `verify_schedule`.
    """
    return _CYCLES.get(program, tokens, lambda: _end(program, tokens, units))


def _end(program: Block, tokens: Mapping[str, int], units: Iterable[StrEnum]) -> int:
    clock = _Clock(dict.fromkeys(units, 0), {name: [0] * n for name, n in tokens.items()})
    clock.run(program)
    return max(clock.units.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a program does to time: the (max, +) matrix from the times before to those after.

    Rows and columns are the units in their order, then every channel's tokens by name; `tokens`
    are the channels' tokens after the program.
    """

    matrix: Times
    tokens: Mapping[str, int]

    def __call__(self, times: Times) -> Times:
        """Return the times after the program, int64[rows], from those before, int64[columns]."""
        return _product(self.matrix, times[:, None])[:, 0]


def transfer(program: Block, units: Iterable[StrEnum], tokens: Mapping[str, int]) -> Transfer:
    """Return the transfer of `program` on `units` with `tokens` in the channels before it."""
    zero = np.zeros(1, dtype=np.int64)
    channels = {channel: [zero] * count for channel, count in tokens.items() if count}
    state = _State(dict.fromkeys(units, zero), channels).identity()
    _run(program, state)
    left = {channel: len(queue) for channel, queue in state.channels.items() if queue}
    return Transfer(matrix=state.rows(), tokens=left)


def without(program: Block, change: Callable[[Step], Step]) -> Block:
    """Return `program` with every step changed, to ask what one cost is worth."""
    return tuple(
        change(item) if isinstance(item, Step) else replace(item, body=without(item.body, change))
        for item in program
    )


def unit_cycles(op: OpSchedule) -> dict[StrEnum, int]:
    """Return the busy cycles of every unit in one execution of `op`."""
    units: Iterable[StrEnum] = Unit
    busy = dict.fromkeys(units, 0)
    for step, times in op.steps():
        busy[step.unit] += step.cycles * times
    return busy
