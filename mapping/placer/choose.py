"""Choose which arrays to put on a device, and which workload runs on which of them.

Candidates are machines with exact cycles of every workload and what they take of each limit. An
integer program picks arrays within the limits and parts the workloads among them, so that the
last array to finish is done as early as possible.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mapping.linear import Model, Row, Variable
from mapping.placer.device import Device, Resource
from mapping.placer.infeasible import InfeasiblePlacement, Shortage
from mapping.placer.problem import Caps
from mapping.solver import Solution, Status, solve
from workloads.canonical import Spec

__all__ = ["BANDWIDTH", "POWER", "Budget", "Candidate", "Choice", "choose", "nearest", "shortages"]

BANDWIDTH: Final = "bandwidth (B/s)"
POWER: Final = "power (W)"
"""Limits beside the resources of a device, which are called DSP, BRAM, URAM and LUT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Spec):
    """A machine that could be built: cycles of every workload, and what it takes of each limit."""

    name: str
    cycles: dict[str, int]
    takes: dict[str, float]

    @property
    def total(self) -> int:
        """Cycles of all workloads, one after the other."""
        return sum(self.cycles.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Spec):
    """What all chosen machines may take together; what is not named is not limited."""

    name: str
    limits: dict[str, float]

    @classmethod
    def of(
        cls,
        device: Device,
        *,
        caps: Caps | None = None,
        bandwidth_bytes_per_s: int | None = None,
        power_w: float | None = None,
    ) -> "Budget":
        """Return the budget of a whole device under caps."""
        shares = caps or Caps()
        limits: dict[str, float] = {
            r.value.upper(): int(device.totals()[r.value] * shares.share(r)) for r in Resource
        }
        others = {BANDWIDTH: bandwidth_bytes_per_s, POWER: power_w}
        limits |= {name: limit for name, limit in others.items() if limit is not None}
        return cls(name=device.name, limits=limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Spec):
    """The arrays chosen, the workloads of each, and the proof.

    cycles: of the array that finishes last. used: what all of them take of every limit.
    """

    machines: tuple[str, ...]
    assignment: dict[str, str]
    cycles: int
    bound: int
    status: Status
    solver: str
    used: dict[str, float]

    @property
    def gap(self) -> float:
        """Relative distance of cycles and bound; 0 when the choice is proved best."""
        return (self.cycles - self.bound) / self.cycles if self.cycles else 0.0


@dataclass(frozen=True, slots=True)
class Built:
    """1 if the candidate is built."""

    candidate: str


@dataclass(frozen=True, slots=True)
class Runs:
    """1 if the workload runs on the candidate."""

    job: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Last:
    """Cycles until the last array is done, in units of the program's scale."""


def choose(
    candidates: Iterable[Candidate],
    budget: Budget,
    *,
    most: int | None = None,
    solver: str = "highs",
    time_limit_s: float = 60,
) -> Choice:
    """Return the arrays to build, `most` of them and each candidate once, and who runs what.

    Raises InfeasiblePlacement if no candidate fits the budget alone, RuntimeError if time runs
    out first.
    """
    everyone = tuple(candidates)
    known = {c.name: c for c in everyone if not shortages(c, budget)}
    if not known:
        raise InfeasiblePlacement(
            "Even the nearest candidate", budget.name, nearest(everyone, budget)
        )
    # Cycles are too large for a solver's tolerances as they are.
    scale = max(candidate.total for candidate in known.values()) or 1
    model = build(known, budget, most, scale)
    solution = solve(model, solver=solver, time_limit_s=time_limit_s, step=1 / scale)
    if not solution.values:
        raise RuntimeError(f"{budget.name}: no choice was found within {time_limit_s:g} s")
    return _decode(known, budget, solution, scale)


def shortages(candidate: Candidate, budget: Budget) -> tuple[Shortage, ...]:
    """Return the limits that the candidate alone exceeds."""
    return tuple(
        Shortage(
            resource=f"{name} of {candidate.name!r}",
            demand=math.ceil(candidate.takes[name]),
            limit=math.floor(limit),
        )
        for name, limit in budget.limits.items()
        if candidate.takes[name] > limit
    )


def nearest(candidates: Iterable[Candidate], budget: Budget) -> tuple[Shortage, ...]:
    """Return what the candidate lacks that comes nearest to fitting."""
    lacking = (shortages(candidate, budget) for candidate in candidates)
    return min(lacking, key=lambda found: sum(s.demand / max(s.limit, 1) for s in found))


def build(
    known: Mapping[str, Candidate], budget: Budget, most: int | None = None, scale: int = 1
) -> Model:
    """Return the program: every workload on one built array, limits kept, the last one early."""
    jobs = sorted({job for candidate in known.values() for job in candidate.cycles})
    rows = [
        Row(family="job", label=job, terms={Runs(job, n): 1.0 for n in known}, low=1, high=1)
        for job in jobs
    ]
    rows += [
        Row(family="built", label="", terms={Built(n): 1.0, Runs(job, n): -1.0}, low=0)
        for n in known
        for job in jobs
    ]
    rows += [
        Row(
            family="last",
            label=n,
            terms={Last(): 1.0, **{Runs(job, n): -c.cycles[job] / scale for job in jobs}},
            low=0,
        )
        for n, c in known.items()
    ]
    rows += [
        Row(
            family="limits",
            label=name,
            # In shares of the limit: bandwidths are too large for a solver's tolerances.
            terms={Built(n): c.takes[name] / max(limit, 1e-9) for n, c in known.items()},
            high=1,
        )
        for name, limit in budget.limits.items()
    ]
    if most is not None:
        rows.append(Row(family="most", label="", terms={Built(n): 1.0 for n in known}, high=most))
    variables: dict[Built | Runs | Last, Variable] = {Built(n): Variable() for n in known}
    variables |= {Runs(job, n): Variable() for job in jobs for n in known}
    variables |= {Last(): Variable(high=None, integer=False)}
    return Model(variables=variables, rows=tuple(rows), costs={Last(): 1.0})


def _decode(
    known: Mapping[str, Candidate], budget: Budget, solution: Solution, scale: int
) -> Choice:
    assignment = {
        key.job: key.candidate
        for key, value in solution.values.items()
        if isinstance(key, Runs) and value > 0.5
    }
    # What is built and runs nothing is not needed.
    machines = tuple(sorted(set(assignment.values())))
    busy = dict.fromkeys(machines, 0)
    for job, name in assignment.items():
        busy[name] += known[name].cycles[job]
    cycles = max(busy.values(), default=0)
    return Choice(
        machines=machines,
        assignment=assignment,
        cycles=cycles,
        bound=min(cycles, round(solution.bound * scale)),
        status=solution.status,
        solver=solution.solver,
        used={limit: sum(known[n].takes[limit] for n in machines) for limit in budget.limits},
    )
