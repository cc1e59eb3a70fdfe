"""Place units on slots: build the integer program, solve it, decode the answer."""

import math
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from itertools import combinations

from mapping.placer.anneal import anneal
from mapping.placer.families import FAMILIES
from mapping.placer.layout import Layout, coarsen, layout
from mapping.placer.model import At, Beyond, Chains, Model, Row, Spread, Variable
from mapping.placer.problem import Problem, Status
from mapping.placer.solver import Solution, solve

__all__ = ["Cut", "build", "cuts", "search", "start", "step"]

Cut = tuple[tuple[int, ...], float]
"""Lines of a layout, and a lower bound of what all nets together cost over them."""

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
        found.append((chosen, solved.bound))
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
