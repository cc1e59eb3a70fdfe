"""What a mapper minimises, and what a lowered operator comes to under it.

Energy is dynamic energy at the default table's prices. The energy-delay product is taken by
operator: the energy of one execution times its own time, summed over executions. It is not the
energy of the run times the time of the run, which no sum over operators gives.
"""

import collections.abc as abc
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from cost_models import prices
from simulator.arch import Accelerator
from simulator.arch.accelerator import seconds
from simulator.counts import Event
from simulator.schedule import OpSchedule
from simulator.simulate import dram_bytes, op_cycles, op_events
from workloads.canonical import Spec

__all__ = ["Goal", "Number", "Objective", "cost_of", "energy_j", "op_cost", "prices_pj"]

Number = int | float


class Objective(StrEnum):
    """Cycles, dynamic energy, energy-delay product by operator, or main-memory traffic."""

    CYCLES = "cycles"
    ENERGY = "energy"
    EDP = "edp"
    DRAM_BYTES = "dram_bytes"

    @property
    def unit(self) -> str:
        """The unit costs and bounds are in."""
        return {"cycles": "cycles", "energy": "J", "edp": "J s", "dram_bytes": "B"}[self.value]

    @property
    def prices_events(self) -> bool:
        """Whether costs depend on what events cost."""
        return self in (Objective.ENERGY, Objective.EDP)

    @property
    def takes_time(self) -> bool:
        """Whether costs depend on cycles."""
        return self in (Objective.CYCLES, Objective.EDP)

    @property
    def takes_events(self) -> bool:
        """Whether costs depend on what happens in those cycles."""
        return self is not Objective.CYCLES

    @classmethod
    def of(cls, name: "str | Objective") -> "Objective":
        """Return the objective of that name; raise ValueError listing the known ones."""
        if name not in list(cls):
            raise ValueError(f"Unknown objective {str(name)!r}; known: {', '.join(cls)}")
        return cls(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal(Spec):
    """An objective for one execution of an operator, with what no mapping of it changes.

    Effectual products and vector operations on the output path only count where events are
    priced; otherwise they are 0, so that operators of one shape share a mapping.
    """

    objective: Objective = Objective.CYCLES
    macs_effectual: int = 0
    vector_ops: int = 0

    @classmethod
    def of(cls, objective: Objective, macs_effectual: int, vector_ops: int) -> "Goal":
        """Return the goal of an operator."""
        if not objective.prices_events:
            return cls(objective=objective)
        return cls(objective=objective, macs_effectual=macs_effectual, vector_ops=vector_ops)

    @property
    def fixed(self) -> dict[Event, int]:
        """Events of one execution that belong to no step."""
        return {("vector", "op", "full"): self.vector_ops} if self.vector_ops else {}


@lru_cache(maxsize=64)
def prices_pj(arch: Accelerator) -> abc.Mapping[Event, float]:
    """Return the picojoules of one count of every event of `arch`."""
    return {event: price.pj for event, price in prices(arch).items()}


def energy_j(arch: Accelerator, events: abc.Mapping[Event, int]) -> float:
    """Return the dynamic energy of `events` in joules."""
    known = prices_pj(arch)
    return math.fsum(n * known[event] for event, n in events.items()) * 1e-12


def cost_of(
    arch: Accelerator, objective: Objective, events: abc.Mapping[Event, int], cycles: int
) -> Number:
    """Return the cost of an execution that takes `events` and `cycles`, in the objective's unit."""
    match objective:
        case Objective.CYCLES:
            return cycles
        case Objective.ENERGY:
            return energy_j(arch, events)
        case Objective.EDP:
            return energy_j(arch, events) * seconds(arch, cycles)
        case Objective.DRAM_BYTES:
            return dram_bytes(events, "read") + dram_bytes(events, "write")


def op_cost(arch: Accelerator, objective: Objective, op: OpSchedule) -> Number:
    """Return the exact cost of one execution of `op` in the objective's unit."""
    cycles = op_cycles(arch, op) if objective.takes_time else 0
    return cost_of(arch, objective, op_events(op) if objective.takes_events else {}, cycles)
