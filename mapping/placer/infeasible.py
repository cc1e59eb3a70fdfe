"""Why there is no placement: which resource, what it would need, what the limit is."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final

from mapping.linear import Model, Row, Variable
from mapping.placer.device import Resource
from mapping.placer.layout import Layout
from mapping.placer.problem import Problem
from mapping.placer.program import build
from mapping.placer.variables import Over
from mapping.solver import solve
from workloads.canonical import Spec

__all__ = ["InfeasiblePlacement", "Shortage", "shortages"]

SHOWN: Final = 3
"""Most shortages that the message names; the report holds all."""

RELAX_S: Final = 10
"""Seconds that one relaxation of an infeasible problem may take."""

RELAXED: Final = (
    "pins",
    *(resource.value.upper() for resource in Resource),
    "chains",
    "wires between SLRs",
)
"""Families that hold limits; the others only define what a placement is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage(Spec):
    """A limit that cannot be kept: `demand` is the least that has to go over `limit`."""

    resource: str
    demand: int
    limit: int

    @property
    def gap(self) -> int:
        """How much is missing."""
        return self.demand - self.limit

    def __str__(self) -> str:
        """Return the shortage as a clause."""
        return f"{self.resource}: needs {self.demand:,}, has {self.limit:,}, {self.gap:,} too few"


class InfeasiblePlacement(ValueError):
    """No placement exists; `report` holds the shortages, the likeliest cause first."""

    def __init__(self, problem: str, device: str, report: tuple[Shortage, ...]) -> None:
        self.report = report
        shown = "; ".join(map(str, report[:SHOWN])) or "its limits contradict each other"
        more = f"; and {len(report) - SHOWN} more" if len(report) > SHOWN else ""
        super().__init__(f"{problem} does not fit on {device}: {shown}{more}")


def shortages(problem: Problem, layout: Layout) -> tuple[Shortage, ...]:
    """Return what stops an infeasible problem.

    First come totals and single units that no slot takes. Otherwise each family of limits in
    turn may be exceeded, at the least total excess over its rows; of the families that free the
    problem so, the one with the relatively smallest excess is reported, all together if none is
    enough. Each family has RELAX_S; a problem too large for that reports an excess that suffices.
    """
    plain = _totals(problem, layout)
    if plain:
        return plain
    found = [excess for family in RELAXED if (excess := _relax(problem, layout, (family,)))]
    if not found:
        return _relax(problem, layout, RELAXED)
    return min(found, key=lambda excess: sum(s.gap / max(s.limit, 1) for s in excess))


def _totals(problem: Problem, layout: Layout) -> tuple[Shortage, ...]:
    found = []
    for resource in Resource:
        name = resource.value.upper()
        limits = [slot.capacity[resource] for slot in layout.slots]
        needs = {unit.name: unit.demand(resource) for unit in problem.units}
        largest = max(needs, key=lambda unit: needs[unit])
        if sum(needs.values()) > sum(limits):
            what = f"{name} of all slots"
            found.append(Shortage(resource=what, demand=sum(needs.values()), limit=sum(limits)))
        elif needs[largest] > max(limits):
            what = f"{name} of the largest slot for unit {largest!r}"
            found.append(Shortage(resource=what, demand=needs[largest], limit=max(limits)))
    return tuple(found)


def _relax(problem: Problem, layout: Layout, families: tuple[str, ...]) -> tuple[Shortage, ...]:
    """Return the least excess over the rows of `families` that allows a placement; () if none."""
    model = build(problem, layout)
    rows: list[Row] = []
    costs: dict[Hashable, float] = {}
    limits: dict[Over, int] = {}
    for row in model.rows:
        if row.family in ("rounding", "order"):
            continue  # they follow from limits that may be exceeded here
        if row.family in families and row.high is not None:
            over = Over(row.label)
            limits[over] = int(row.high)
            costs[over] = 1.0 if len(families) == 1 else 1 / max(row.high, 1)
            row = replace(row, terms={**row.terms, over: -1})
        rows.append(row)
    variables = {**model.variables, **dict.fromkeys(costs, Variable(high=None))}
    solution = solve(
        Model(variables=variables, rows=tuple(rows), costs=costs), time_limit_s=RELAX_S
    )
    excess = {over: round(solution.values.get(over, 0)) for over in limits}
    return tuple(
        Shortage(resource=over.label, demand=limit + excess[over], limit=limit)
        for over, limit in limits.items()
        if excess[over]
    )
