"""The blocking of a product on the PEGrid: proved best of its space, or the one that looks best.

The space is what `mapping.grid_blocks.blockings` returns. That is a list of tens to hundreds, on
which an integer program would be the same enumeration with a detour: `integer` proves the optimum
by the search of `exhaustive`.
"""

import collections.abc as abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from mapping.grid_blocks import Blocking
from mapping.grid_program import least_cycles, moved, program, tokens
from mapping.objective import Number, Objective, cost_of
from simulator.counts import Event, add
from simulator.engine import program_cycles
from simulator.schedule import Block

__all__ = ["MAPPERS", "Choice", "exhaustive", "greedy"]

Key = tuple[Number, int, int]
"""What is minimised: the cost, then the bits loaded, then cycles."""

Events = abc.Mapping[Event, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """A blocking with its program and key, and what every blocking of the space costs at least."""

    blocking: Blocking
    program: Block
    key: Key
    bound: Number


def _key(objective: Objective, fixed: Events, b: Blocking, cycles: int) -> Key:
    """Return the key of a blocking that takes `cycles`, its events added to the `fixed` ones."""
    events = add([fixed, moved(b)]) if objective.takes_events else {}
    bits = sum(int(part.sum()) for part in b.load_bits())
    return cost_of(b.timed.grid, objective, events, cycles), bits, cycles


def _ranked(
    objective: Objective, fixed: Events, found: abc.Sequence[Blocking]
) -> list[tuple[Key, Blocking]]:
    """Return blockings by a key that their own never falls below, least first."""
    pairs = [(_key(objective, fixed, b, least_cycles(b)), b) for b in found]
    return sorted(pairs, key=lambda pair: pair[0])


def _chosen(objective: Objective, fixed: Events, b: Blocking) -> Choice:
    """Return a blocking with its exact key, and its cost for a bound."""
    block = program(b)
    key = _key(objective, fixed, b, program_cycles(block, tokens(b)))
    return Choice(blocking=b, program=block, key=key, bound=key[0])


def exhaustive(objective: Objective, fixed: Events, found: abc.Sequence[Blocking]) -> Choice:
    """Return the blocking with the least key: no bound left is below it.

    `fixed` are the events that no blocking changes; `found` is not empty.
    """
    (_, first), *others = _ranked(objective, fixed, found)
    best = _chosen(objective, fixed, first)
    for least, b in others:
        if least >= best.key:
            break
        best = min(best, _chosen(objective, fixed, b), key=lambda choice: choice.key)
    return best


def greedy(objective: Objective, fixed: Events, found: abc.Sequence[Blocking]) -> Choice:
    """Return the blocking with the least bound, and the next one's bound where that is lower."""
    (_, first), *others = _ranked(objective, fixed, found)
    best = _chosen(objective, fixed, first)
    return replace(best, bound=min([best.bound, *(least[0] for least, _ in others[:1])]))


Mapper = Callable[[Objective, Events, abc.Sequence[Blocking]], Choice]

MAPPERS: Final[abc.Mapping[str, Mapper]] = {
    "exhaustive": exhaustive,
    "integer": exhaustive,
    "greedy": greedy,
}
