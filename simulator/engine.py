"""Exact time of a folded schedule, by max-plus algebra.

A program of in-order units and token channels is a timed event graph: every time in it is the
maximum of sums of earlier times, so one pass of a loop body is a matrix over (max, +) and n
passes are that matrix to the n-th power, found by squaring. Time is therefore exact for any
trip count at a cost that grows with its logarithm (Baccelli et al., Synchronization and
Linearity, 1992, sections 2 and 3).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from simulator.schedule import Block, OpSchedule, Step, Unit

__all__ = ["Transfer", "program_cycles", "transfer", "unit_cycles", "without"]

Times = NDArray[np.int64]

NEVER = -(2**60)
"""Minus infinity of the algebra: sums of a few of them still fit int64."""


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
            body = state.identity()
            _run(item.body, body)
            state.load(_apply_power(body.rows(), item.times, state.rows()))


def _step(step: Step, state: _State) -> None:
    start = state.units[step.unit]
    for channel in step.waits:
        start = np.maximum(start, state.channels[channel].pop(0))
    end = start + step.cycles
    state.units[step.unit] = end
    for channel in step.releases:
        state.channels.setdefault(channel, []).append(end + step.latency)


def program_cycles(
    program: Block, tokens: Mapping[str, int], units: Iterable[StrEnum] = Unit
) -> int:
    """Return the cycle in which the last step of `program` ends, all units free at cycle 0.

    `tokens` are the initial tokens by channel; the schedule must satisfy `verify_schedule`.
    """
    zero = np.zeros(1, dtype=np.int64)
    channels = {channel: [zero] * count for channel, count in tokens.items()}
    state = _State(dict.fromkeys(units, zero), channels)
    _run(program, state)
    return int(max(time[0] for time in state.units.values()))


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
