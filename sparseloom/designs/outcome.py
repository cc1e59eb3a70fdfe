"""What a choice of designs comes to: machines, their costs, the proof and the reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cost_models.fpga import SOURCES, FpgaResources
from mapping.placer.choose import Budget, Candidate, Choice
from mapping.placer.infeasible import Shortage
from simulator.arch import Accelerator
from sparseloom.sweeps.points import Point
from workloads.canonical import Spec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Design", "Machine", "parameter", "to_dataframe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Spec):
    """A candidate as it was simulated: what it takes, and each workload's figures by name.

    metrics and points: those of a sweep, by workload. lacks: the limits it exceeds on its own.
    """

    candidate: Candidate
    arch: Accelerator
    parameters: Mapping[str, Any] = field(hash=False)
    resources: FpgaResources
    metrics: Mapping[str, Mapping[str, float | int]] = field(hash=False)
    points: Mapping[str, Point] = field(hash=False)
    lacks: tuple[Shortage, ...] = ()

    @property
    def name(self) -> str:
        """Base and replaced parameters."""
        return self.candidate.name

    @property
    def cycles(self) -> int:
        """Cycles of all workloads, one after the other."""
        return self.candidate.total

    def total(self, metric: str) -> float | int:
        """Return a metric's sum over the workloads."""
        return sum(values[metric] for values in self.metrics.values())

    def to_json(self) -> dict[str, Any]:
        """Return the machine as plain JSON values."""
        return {
            "name": self.name,
            "parameters": dict(self.parameters),
            "digest": self.arch.digest(),
            "cycles": self.cycles,
            "energy_j": self.total("energy_j"),
            "cycles_by_workload": self.candidate.cycles,
            "takes": self.candidate.takes,
            "flip_flops": self.resources.ff,
            "lacks": [str(shortage) for shortage in self.lacks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Design(Spec):
    """The machines to build and why.

    machines: those chosen; reference: the machine they are compared with; front: candidates that
    no other beats in cycles, energy and everything limited; failures: candidates without a result
    by reason. saved: cycles of the reference less those of the choice, by cause, over all
    workloads. sentences: why the choice wins, from these figures.
    """

    name: str
    device: str
    budget: Budget
    choice: Choice
    machines: tuple[Machine, ...]
    reference: Machine
    front: tuple[Machine, ...]
    candidates: tuple[Machine, ...]
    failures: Mapping[str, int] = field(hash=False)
    saved: Mapping[str, int] = field(hash=False)
    sentences: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `place --json` prints and design.json holds."""
        choice = self.choice
        return {
            "problem": self.name,
            "device": self.device,
            "placed": len(self.machines),
            "objective": choice.cycles,
            "objective_is": "cycles until the last machine has run its workloads",
            "bound": choice.bound,
            "gap": choice.gap,
            "status": choice.status.value,
            "solver": choice.solver,
            "candidates": len(self.candidates),
            "failures": dict(self.failures),
            "machines": [machine.to_json() for machine in self.machines],
            "assignment": choice.assignment,
            "budget": {
                name: {"used": choice.used[name], "limit": limit}
                for name, limit in self.budget.limits.items()
            },
            "reference": self.reference.to_json(),
            "saved_by_cause": dict(self.saved),
            "why": list(self.sentences),
            "front": [machine.to_json() for machine in self.front],
            "resource_sources": SOURCES,
            "notes": list(self.notes),
        }


def parameter(arch: Accelerator, key: str) -> Any:
    """Return the value of a dotted key, None behind a part that the machine has not."""
    value: Any = arch
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def to_dataframe(design: Design) -> "pd.DataFrame":
    """Return one row a candidate: parameters, cycles, energy, and what it takes of every limit."""
    import pandas as pd

    varied = {key: None for machine in design.candidates for key in machine.parameters}
    return pd.DataFrame(
        [
            {
                "name": machine.name,
                **{key: parameter(machine.arch, key) for key in varied},
                "cycles": machine.cycles,
                **{f"cycles, {job}": n for job, n in machine.candidate.cycles.items()},
                "energy_j": machine.total("energy_j"),
                **machine.candidate.takes,
                "FF": machine.resources.ff,
                "fits": not machine.lacks,
                "chosen": machine.name in design.choice.machines,
            }
            for machine in design.candidates
        ]
    )
