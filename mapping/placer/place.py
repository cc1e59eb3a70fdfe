"""Place units on slots: build the integer program, solve it, decode the answer."""

import math
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Final

from mapping.placer.anneal import anneal
from mapping.placer.device import Resource
from mapping.placer.families import FAMILIES
from mapping.placer.infeasible import InfeasiblePlacement, Shortage
from mapping.placer.layout import Layout, coarsen, layout
from mapping.placer.model import At, Beyond, Chains, Model, Over, Row, Spread, Variable
from mapping.placer.problem import Placement, Problem, Spot, Status
from mapping.placer.solver import Solution, solve

__all__ = ["Cut", "build", "cuts", "decode", "place", "search", "shortages", "start", "step"]

Cut = tuple[tuple[int, ...], float]
"""Lines of a layout, and a lower bound of what all nets together cost over them."""

RELAX_S = 20
"""Seconds that one relaxation of an infeasible problem may take."""

SMALL = 60
"""Models of at most this many unit-slot pairs are solved as they are: cuts would take longer."""


def build(problem: Problem, layout: Layout, cuts: Iterable[Cut] = ()) -> Model:
    """Return the integer program: every family's rows, the cuts, width-weighted distance."""
    nets = problem.joined()
    rows = [row for family in FAMILIES.values() for row in family(problem, layout)]
    costs: dict[Hashable, float] = {
        Spread(n, index): net.bits * line.cost
        for n, net in enumerate(nets)
        for index, line in enumerate(layout.lines)
    }
    for lines, bound in cuts:
        terms = {key: cost for key, cost in costs.items() if key.line in lines}
        rows.append(Row(family="cuts", label="", terms=terms, low=bound))
    variables: dict[Hashable, Variable] = {
        At(unit.name, s): Variable(integer=False)
        for unit in problem.units
        for s in range(len(layout.slots))
    }
    variables |= {
        Beyond(unit.name, index): Variable()
        for unit in problem.units
        for index in range(len(layout.lines))
    }
    variables |= {key: Variable(integer=False) for key in costs}
    chains = (key for row in rows for key in row.terms if isinstance(key, Chains))
    variables |= {key: Variable(high=None) for key in chains}
    return Model(variables=variables, rows=tuple(rows), costs=costs)


def step(problem: Problem, layout: Layout) -> float:
    """Return a number that every objective is a multiple of; 0 if there is none to see."""
    costs = [n.bits * line.cost for n in problem.joined() for line in layout.lines]
    if not costs or any(cost != int(cost) for cost in costs):
        return 0
    return float(math.gcd(*map(int, costs)))


def start(problem: Problem, layout: Layout, slots: Mapping[str, int]) -> dict[Hashable, float]:
    """Return the variables' values for an assignment (column counts of chains left out)."""
    values: dict[Hashable, float] = {
        At(unit.name, s): float(slots[unit.name] == s)
        for unit in problem.units
        for s in range(len(layout.slots))
    }
    for unit in problem.units:
        for index, line in enumerate(layout.lines):
            values[Beyond(unit.name, index)] = float(line.beyond(layout.slots[slots[unit.name]]))
    for n, net in enumerate(problem.joined()):
        a, b = (layout.slots[slots[end]] for end in (net.source, net.sink))
        for index, line in enumerate(layout.lines):
            values[Spread(n, index)] = float(line.beyond(a) != line.beyond(b))
    return values


def place(problem: Problem, *, solver: str = "auto", time_limit_s: float = 60) -> Placement:
    """Return every unit's slot at the least width-weighted distance, with bound and gap.

    "auto" takes HiGHS, except CBC for models with so few units that cuts are not worth while.
    Half of the time may go into cuts. Raises InfeasiblePlacement naming what is short,
    RuntimeError if time runs out before anything is found.
    """
    began = time.perf_counter()
    grid = layout(problem)
    if len(grid.lines) < 2 or len(problem.units) * len(grid.slots) <= SMALL:
        chosen, bounds = "cbc" if solver == "auto" else solver, []
    else:
        chosen = "highs" if solver == "auto" else solver
        bounds = cuts(problem, grid, solver=chosen, time_limit_s=time_limit_s / 2)
    left = time_limit_s - (time.perf_counter() - began)
    solution = search(problem, grid, bounds, solver=chosen, time_limit_s=left)
    if solution.status is Status.INFEASIBLE:
        raise InfeasiblePlacement(problem.name, problem.device.name, shortages(problem, grid))
    if not solution.values:
        raise RuntimeError(f"{problem.name}: no placement was found within {time_limit_s:g} s")
    return decode(problem, grid, solution, seconds=time.perf_counter() - began)


def decode(
    problem: Problem, layout: Layout, solution: Solution, *, seconds: float
) -> Placement:
    """Return the placement that a solution of the program over `layout` stands for."""
    at = {
        unit.name: max(
            range(len(layout.slots)), key=lambda s, u=unit: solution.values[At(u.name, s)]
        )
        for unit in problem.units
    }
    wires = [0] * (len(problem.device.slrs) - 1)
    for net in problem.joined():
        a, b = (layout.slots[at[end]] for end in (net.source, net.sink))
        for line in layout.lines:
            if line.boundary is not None and line.beyond(a) != line.beyond(b):
                wires[line.boundary] += net.bits
    slots = {}
    for name, s in at.items():
        slr, row = divmod(layout.slots[s].y, problem.grid.rows)
        slots[name] = (slr, layout.slots[s].x, row)
    return Placement(
        problem=problem.name,
        device=problem.device.name,
        slots=slots,
        spots=_lay_chains(problem, layout, at, solution),
        objective=solution.objective,
        bound=solution.bound,
        status=solution.status,
        solver=solution.solver,
        crossing_wires=tuple(wires),
        crossing_registers=problem.registers_per_crossing * sum(wires),
        used={r.value: sum(unit.demand(r) for unit in problem.units) for r in Resource},
        available=problem.device.totals(),
        seconds=seconds,
    )


def _lay_chains(
    problem: Problem, layout: Layout, at: Mapping[str, int], solution: Solution
) -> dict[str, tuple[Spot, ...]]:
    """Give every chain its sites: columns fill from below, the longest chains first."""
    lengths = problem.chain_lengths()
    room: dict[Hashable, int] = {}  # chains of a length that a column still takes
    for shaft in {shaft for slot in layout.slots for shaft in slot.shafts}:
        for length in lengths:
            key = Chains(shaft.slr, shaft.column, length)
            room[key] = (
                shaft.sites // length if len(lengths) == 1 else round(solution.values[key])
            )
    top: dict[tuple[int, int], int] = defaultdict(int)
    spots: dict[str, list[Spot]] = {unit.name: [] for unit in problem.units}
    for length in lengths:
        for unit in problem.units:
            for _ in range(sum(c.count for c in unit.chains if c.length == length)):
                shafts = layout.slots[at[unit.name]].shafts
                shaft = next(
                    s for s in shafts if room[Chains(s.slr, s.column, length)]
                )
                room[Chains(shaft.slr, shaft.column, length)] -= 1
                place = (shaft.slr, shaft.column)
                spots[unit.name].append(
                    Spot(
                        resource=Resource.DSP,
                        slr=shaft.slr,
                        column=shaft.column,
                        first=top[place],
                        size=length,
                        length=length,
                    )
                )
                top[place] += length
    return {name: tuple(laid) for name, laid in spots.items() if laid}


def shortages(problem: Problem, layout: Layout) -> tuple[Shortage, ...]:
    """Return what stops an infeasible problem: each family alone that would free it, relaxed.

    First come totals and single units that no slot takes. Otherwise each family of limits in
    turn may be exceeded, at the least total excess over its rows; those that make the problem
    feasible are reported, the relatively smallest excess first, or all together if none does.
    """
    plain = _totals(problem, layout)
    if plain:
        return plain
    found = [
        excess
        for family in RELAXED
        if (excess := _relax(problem, layout, (family,)))
    ]
    if not found:
        return _relax(problem, layout, RELAXED)
    return min(found, key=lambda excess: sum(s.gap / max(s.limit, 1) for s in excess))


RELAXED: Final = (
    "pins",
    *(resource.value.upper() for resource in Resource),
    "chains",
    "wires between SLRs",
)
"""Families that hold limits; the others only define what a placement is."""


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
    rows, costs = [], {}
    for row in model.rows:
        if row.family in ("rounding", "order"):
            continue  # they follow from limits that may be exceeded here
        if row.family in families and row.high is not None:
            over = Over(row.label)
            costs[over] = 1.0 if len(families) == 1 else 1 / max(row.high, 1)
            row = replace(row, terms={**row.terms, over: -1})
        rows.append(row)
    variables = {**model.variables, **{over: Variable(high=None) for over in costs}}
    solution = solve(
        Model(variables=variables, rows=tuple(rows), costs=costs), time_limit_s=RELAX_S
    )
    limits = {row.label: row.high or 0 for row in model.rows}
    return tuple(
        Shortage(resource=over.label, demand=limits[over.label] + round(excess), limit=limits[over.label])
        for over in costs
        if (excess := solution.values.get(over, 0)) > 0.5
    )


def cuts(problem: Problem, fine: Layout, *, solver: str, time_limit_s: float) -> list[Cut]:
    """Return lower bounds of the cost over every line and every pair of lines.

    Each is the optimum (or the bound when time runs out) of the same problem on the layout with
    only these lines: the cheapest way to cut the nets in parts that fit on either side.
    """
    found: list[Cut] = []
    sets = [
        chosen for size in (1, 2) for chosen in combinations(range(len(fine.lines)), size)
        if size < len(fine.lines)
    ]
    began = time.perf_counter()
    for done, chosen in enumerate(sets):
        left = time_limit_s - (time.perf_counter() - began)
        coarse = coarsen(fine, (fine.lines[index] for index in chosen))
        inside = [
            (tuple(chosen.index(i) for i in lines), bound)
            for lines, bound in found
            if set(lines) <= set(chosen)
        ]
        solved = search(problem, coarse, inside, solver=solver, time_limit_s=left / (len(sets) - done))
        if abs(solved.bound) < math.inf:
            found.append((chosen, solved.bound))
        if solved.status is Status.INFEASIBLE:
            break  # then the whole is
    return found


def search(
    problem: Problem, layout: Layout, cuts: Iterable[Cut], *, solver: str, time_limit_s: float
) -> Solution:
    """Return the solution of one model, begun from an annealed placement if there is one."""
    began = time.perf_counter()
    model = build(problem, layout, cuts)
    values = None
    if len(problem.units) * len(layout.slots) > SMALL:
        guess = anneal(problem, layout, steps=200 * len(problem.units) * len(layout.lines))
        values = start(problem, layout, guess) if guess else None
    left = max(time_limit_s - (time.perf_counter() - began), 1)
    return solve(
        model, solver=solver, time_limit_s=left, step=step(problem, layout), start=values
    )
