"""Place units on slots: bounds from cuts, the integer program, and what its answer means."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from itertools import combinations

from mapping.placer.anneal import anneal
from mapping.placer.device import Resource
from mapping.placer.infeasible import InfeasiblePlacement, shortages
from mapping.placer.layout import Layout, coarsen, layout
from mapping.placer.problem import Placement, Problem, Spot
from mapping.placer.program import Cut, build, start, step
from mapping.placer.variables import At, Chains
from mapping.solver import Solution, Status, solve

__all__ = ["cuts", "decode", "place_slots", "search"]

SMALL = 60
"""Models of at most this many unit-slot pairs are solved as they are: cuts would take longer."""

STEPS = 200
STEPS_PER_S = 2000
"""Steps of annealing for each unit and line, and at most for each second there is in all."""

LEAST_S = 0.2
"""Seconds a solver gets even if none are left."""


def place_slots(problem: Problem, *, solver: str = "highs", time_limit_s: float = 60) -> Placement:
    """Return every unit's slot at the least width-weighted distance, with bound and gap.

    Half of the time may go into cuts, none where they are not worth while. Raises
    InfeasiblePlacement naming what is short, RuntimeError if time runs out before anything is
    found.
    """
    began = time.perf_counter()
    grid = layout(problem)
    worth = len(grid.lines) > 1 and len(problem.units) * len(grid.slots) > SMALL
    bounds = cuts(problem, grid, solver=solver, time_limit_s=time_limit_s / 2) if worth else []
    left = time_limit_s - (time.perf_counter() - began)
    solution = search(problem, grid, bounds, solver=solver, time_limit_s=left)
    if solution.status is Status.INFEASIBLE:
        raise InfeasiblePlacement(problem.name, problem.device.name, shortages(problem, grid))
    if not solution.values:
        raise RuntimeError(f"{problem.name}: no placement was found within {time_limit_s:g} s")
    return decode(problem, grid, solution, seconds=time.perf_counter() - began)


def decode(problem: Problem, layout: Layout, solution: Solution, *, seconds: float) -> Placement:
    """Return the placement that a solution of the program over `layout` stands for."""
    at = {
        unit.name: next(
            s for s in range(len(layout.slots)) if solution.values[At(unit.name, s)] > 0.5
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
        kinds=dict(Counter(unit.kind for unit in problem.units)),
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
            room[key] = shaft.sites // length if len(lengths) == 1 else round(solution.values[key])
    top: dict[tuple[int, int], int] = defaultdict(int)
    spots: dict[str, list[Spot]] = {unit.name: [] for unit in problem.units}
    for length in lengths:
        for unit in problem.units:
            for _ in range(sum(c.count for c in unit.chains if c.length == length)):
                shafts = layout.slots[at[unit.name]].shafts
                shaft = next(s for s in shafts if room[Chains(s.slr, s.column, length)])
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


def cuts(problem: Problem, fine: Layout, *, solver: str, time_limit_s: float) -> list[Cut]:
    """Return lower bounds of the cost over every line and every pair of lines.

    Each is the optimum (or the bound when time runs out) of the same problem on the layout with
    only these lines: the cheapest way to cut the nets in parts that fit on either side.
    """
    found: list[Cut] = []
    sets = [
        chosen
        for size in (1, 2)
        for chosen in combinations(range(len(fine.lines)), size)
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
        solved = search(
            problem, coarse, inside, solver=solver, time_limit_s=left / (len(sets) - done)
        )
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
        whole = STEPS * len(problem.units) * len(layout.lines)
        guess = anneal(problem, layout, steps=min(whole, int(STEPS_PER_S * time_limit_s)))
        values = start(problem, layout, guess) if guess else None
    left = max(time_limit_s - (time.perf_counter() - began), LEAST_S)
    return solve(model, solver=solver, time_limit_s=left, step=step(problem, layout), start=values)
