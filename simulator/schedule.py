"""Schedule: a machine program of steps on in-order units, folded where it repeats.

Steps of one unit run in program order. Dependences between units are tokens: a step waits for
(consumes) and releases (produces) tokens of named channels, first in first out; a channel's
initial tokens are its free buffer slots. So double buffering is a channel that starts with two
tokens, and the whole program is a timed event graph whose exact time has a closed form per loop.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

from simulator.counts import Counts
from simulator.plan import GemmPlan, StreamPlan, Unit
from simulator.recent import PerProgram
from workloads.canonical import Spec, digest

__all__ = ["Block", "OpSchedule", "Repeat", "Schedule", "Step", "Unit", "verify_schedule"]

_BALANCED: PerProgram[None] = PerProgram()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Spec):
    """`cycles` of work on `unit`; its released tokens appear `latency` cycles after its end.

    `unit` is a `Unit`, or a module of another machine's own enumeration.

    `busy` counts the cycles of an array step in which some PE multiplies; `counts` are the
    events of one execution.
    """

    unit: StrEnum
    label: str
    cycles: int
    latency: int = 0
    busy: int = 0
    waits: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    counts: Counts = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.cycles < 0 or self.latency < 0:
            raise ValueError(f"Step {self.label!r}: cycles and latency must be at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat(Spec):
    """`body` run `times` times."""

    times: int
    body: "Block"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"A Repeat runs at least once, not {self.times} times")


Block = tuple[Step | Repeat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSchedule(Spec):
    """The program of one operator; operators run one after the other.

    `phase` is the pass of a training step. `plan` says what the program was lowered from; an
    operator without one costs nothing or was not made by a mapper. `tokens` gives each channel's
    initial tokens; `counts` the events of one execution that belong to no single step.
    `macs_effectual` counts products of one execution whose weight is not zero, `detail` what the
    mapper chose (for reports). A machine that looks at zeros of both operands says what each
    would leave alone: `macs_weight` products with a weight, `macs_act` with an activation, and
    `macs_effectual` with both. `array_waits` are the cycles of the array's steps that its PEs
    spend otherwise than multiplying, on average and by cause; without it they are those that
    are not `busy`.
    """

    name: str
    kind: str
    phase: str = ""
    program: Block
    plan: GemmPlan | StreamPlan | None = None
    tokens: Mapping[str, int] = field(default_factory=dict, hash=False)
    repeat: int = 1
    macs_dense: int = 0
    macs_effectual: int = 0
    macs_weight: int | None = None
    macs_act: int | None = None
    array_waits: Mapping[str, int] = field(default_factory=dict, hash=False)
    counts: Counts = field(default_factory=dict, hash=False)
    detail: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def steps(self) -> Iterator[tuple[Step, int]]:
        """Yield every distinct step with the number of times one execution runs it."""
        return _walk(self.program, 1)


def _walk(block: Block, times: int) -> Iterator[tuple[Step, int]]:
    for item in block:
        if isinstance(item, Step):
            yield item, times
        else:
            yield from _walk(item.body, times * item.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Spec):
    """Programs of a whole workload on the machine with digest `arch_digest`."""

    workload: str
    workload_digest: str
    arch_digest: str
    sparsity: str
    ops: tuple[OpSchedule, ...]
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the sha256 of the schedule; a program shared by operators is hashed once."""
        programs = {id(op.program): op.program for op in self.ops}
        known = {key: digest(program) for key, program in programs.items()}
        ops = [(known[id(op.program)], replace(op, program=())) for op in self.ops]
        return digest([self.workload_digest, self.arch_digest, self.sparsity, ops])


def _balance(block: Block, balance: dict[str, int], op: str) -> None:
    for item in block:
        if isinstance(item, Repeat):
            before = dict(balance)
            _balance(item.body, balance, op)
            changed = sorted(c for c in balance if balance[c] != before.get(c, 0))
            if item.times > 1 and changed:
                raise ValueError(f"Op {op!r}: a repeated body changes the tokens of {changed[0]!r}")
            continue
        for channel in item.waits:
            if balance.get(channel, 0) < 1:
                raise ValueError(f"Op {op!r}: step {item.label!r} waits for {channel!r} in vain")
            balance[channel] -= 1
        for channel in item.releases:
            balance[channel] = balance.get(channel, 0) + 1


def verify_schedule(schedule: Schedule) -> None:
    """Raise ValueError, naming the step, if a wait can never be satisfied in program order."""
    for op in schedule.ops:
        balance = partial(_balance, op.program, dict(op.tokens), op.name)
        _BALANCED.get(op.program, op.tokens, balance)
