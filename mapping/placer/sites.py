"""Place many equal units on real sites of hard columns, by an integer program over stacks.

A part of a unit (its DSP chains, its RAMB18s or its URAMs) is a stack of neighbouring sites of
one column. A column of an SLR offers as many stacks as fit, evenly spread over its height. The
program picks a stack for every part and joins them into units: pairs of stacks for every net,
each stack in as many pairs of a net as its part is used there (0 or 1). Nets form a tree, so
pairs alone make up units; on a path the relaxation is a network flow and integral by itself.
"""

import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from mapping.linear import Model, Row, Variable
from mapping.placer.device import Column, Device, Granularity, Resource
from mapping.placer.infeasible import InfeasiblePlacement, Shortage
from mapping.placer.problem import Chain, Net, Objective, Placement, Spot
from mapping.solver import SLACK, Solution, Status, solve
from workloads.canonical import Spec

__all__ = ["Part", "SitesProblem", "place_sites"]

REGION_ROWS = 60
"""CLB rows of a clock region of UltraScale+ (UG574)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Spec):
    """A stack of a unit: DSP chains on top of each other, RAMB18s or URAMs."""

    name: str
    chain: Chain | None = None
    bram: int = 0
    uram: int = 0

    def __post_init__(self) -> None:
        if sum((self.chain is not None, self.bram > 0, self.uram > 0)) != 1:
            raise ValueError(f"Part {self.name!r} must have one of chain, bram and uram")

    @property
    def resource(self) -> Resource:
        """What the part is made of."""
        if self.chain:
            return Resource.DSP
        return Resource.BRAM if self.bram else Resource.URAM

    @property
    def size(self) -> int:
        """Sites of the part."""
        return self.chain.length * self.chain.count if self.chain else self.bram + self.uram


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesProblem(Spec):
    """`count` equal units, as many as fit if None, with nets between the parts of each."""

    name: str
    device: Device
    unit: str
    count: int | None = None
    parts: tuple[Part, ...]
    nets: tuple[Net, ...] = ()
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self) -> None:
        if self.device.granularity is not Granularity.COLUMNS:
            raise ValueError(
                f"Sites are placed where the order of columns is known, not on {self.device.name}"
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"Unit count must be at least 1, not {self.count}")
        for values, what in (
            ([part.name for part in self.parts], "name"),
            ([part.resource for part in self.parts], "resource"),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"Two parts of a unit have the same {what}: one stack each")
        self._check_tree()

    def _check_tree(self) -> None:
        names = [part.name for part in self.parts]
        reached = names[:1]
        for net in self.nets:
            for end in (net.source, net.sink):
                if end not in names:
                    raise ValueError(f"Net {net.source!r} to {net.sink!r}: no part {end!r}")
        for _ in names:
            for net in self.nets:
                ends = {net.source, net.sink}
                if len(ends & set(reached)) == 1:
                    reached += sorted(ends - set(reached))
        if len(self.nets) != len(names) - 1 or len(reached) != len(names):
            raise ValueError("The nets of a unit must join its parts as a tree")

    @property
    def path(self) -> bool:
        """Whether no part has more than two nets: then the program is a network flow."""
        return all(
            sum(part.name in (net.source, net.sink) for net in self.nets) <= 2
            for part in self.parts
        )

    def capacity(self, slr: int) -> dict[str, int]:
        """Return how many stacks of every part one SLR holds."""
        return {part.name: len(list(_stacks(self.device, part, slr))) for part in self.parts}


@dataclass(frozen=True, slots=True)
class Stack:
    """A place for a part: its column, first site, and centre in CLBs."""

    part: str
    slr: int
    column: int
    first: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Pair:
    """1 if a net joins the two stacks."""

    net: int
    source: Stack
    sink: Stack


def _stacks(device: Device, part: Part, slr: int) -> Iterator[Stack]:
    sites = device.slrs[slr].sites(part.resource)
    full = max(s.sites(part.resource) for s in device.slrs)
    pitch = REGION_ROWS * device.clock_rows / full
    number = sites // part.size
    for column in device.columns:
        if column.resource is part.resource:
            for index in range(number):
                first = index * sites // number
                # Sites that an SLR lacks are at its bottom.
                y = (full - sites + first + part.size / 2) * pitch
                yield Stack(part.name, slr, column.index, first, _x(device, column), y)


def _x(device: Device, column: Column) -> float:
    return (column.index + 0.5) * device.clb_columns / len(device.columns)


def build(problem: SitesProblem, slrs: tuple[int, ...], count: int) -> Model:
    """Return the program that places `count` units in the given SLRs, a unit within one."""
    stacks = {
        part.name: [s for slr in slrs for s in _stacks(problem.device, part, slr)]
        for part in problem.parts
    }
    costs = {
        Pair(n, a, b): _cost(problem, net, a, b)
        for n, net in enumerate(problem.nets)
        for a in stacks[net.source]
        for b in stacks[net.sink]
        if a.slr == b.slr
    }
    variables: dict[Hashable, Variable] = {
        stack: Variable(integer=not problem.path) for group in stacks.values() for stack in group
    }
    variables |= {pair: Variable(integer=False, high=None) for pair in costs}
    rows = [
        Row(family="count", label=name, terms=dict.fromkeys(group, 1.0), low=count, high=count)
        for name, group in stacks.items()
    ]
    joined: dict[tuple[int, Stack], dict[Hashable, float]] = {
        (n, stack): {stack: -1.0}
        for n, net in enumerate(problem.nets)
        for end in (net.source, net.sink)
        for stack in stacks[end]
    }
    for pair in costs:
        joined[pair.net, pair.source][pair] = 1.0
        joined[pair.net, pair.sink][pair] = 1.0
    rows += [Row(family="join", label="", terms=terms, low=0, high=0) for terms in joined.values()]
    return Model(variables=variables, rows=tuple(rows), costs=costs)


def _cost(problem: SitesProblem, net: Net, a: Stack, b: Stack) -> float:
    weight = problem.objective
    return net.bits * (weight.across * abs(a.x - b.x) + weight.along * abs(a.y - b.y))


def _shares(problem: SitesProblem) -> list[tuple[tuple[int, ...], int]]:
    """Return (SLRs, units) to solve apart: SLRs on their own wherever that loses nothing.

    All SLRs full leaves no choice. Equal SLRs share evenly: the cost of a network flow is convex
    in its amount. Otherwise one program decides.
    """
    device = problem.device
    slrs = range(len(device.slrs))
    most = [min(problem.capacity(slr).values()) for slr in slrs]
    count = max(sum(most), 1) if problem.count is None else problem.count
    if count > sum(most):
        raise InfeasiblePlacement(problem.name, device.name, _short(problem, count))
    if count == sum(most):
        return [((slr,), most[slr]) for slr in slrs]
    if problem.path and len(set(device.slrs)) == 1:
        even, rest = divmod(count, len(most))
        return [((slr,), even + (slr < rest)) for slr in slrs if even + (slr < rest)]
    return [(tuple(slrs), count)]


def _short(problem: SitesProblem, count: int) -> tuple[Shortage, ...]:
    """Return the parts of which the device holds too few stacks, the scarcest first."""
    held = {
        part: sum(problem.capacity(slr)[part.name] for slr in range(len(problem.device.slrs)))
        for part in problem.parts
    }
    return tuple(
        Shortage(
            resource=f"{part.resource.value.upper()} for part {part.name!r}",
            demand=count * part.size,
            limit=number * part.size,
        )
        for part, number in sorted(held.items(), key=lambda item: item[1])
        if number < count
    )


def place_sites(
    problem: SitesProblem, *, solver: str = "highs", time_limit_s: float = 60
) -> Placement:
    """Return sites for every part of every unit at the least width-weighted distance.

    Equal SLRs with equal shares are solved once. Raises InfeasiblePlacement if the device holds
    fewer units than asked, RuntimeError if time runs out first.
    """
    began = time.perf_counter()
    solved: dict[tuple[Hashable, ...], tuple[int, Solution]] = {}
    objective = bound = 0.0
    status = Status.OPTIMAL
    units: list[tuple[Spot, ...]] = []
    for slrs, count in _shares(problem):
        key = (*(problem.device.slrs[slr] for slr in slrs), count)
        if key not in solved:
            left = max(time_limit_s - (time.perf_counter() - began), 1)
            solved[key] = (
                slrs[0],
                solve(build(problem, slrs, count), solver=solver, time_limit_s=left),
            )
        first, solution = solved[key]
        if not _whole(solution):
            raise RuntimeError(f"{problem.name}: no placement was found within {time_limit_s:g} s")
        objective, bound = objective + solution.objective, bound + solution.bound
        status = status if solution.status is Status.OPTIMAL else Status.FEASIBLE
        units += _units(problem, solution, shift=slrs[0] - first)
    names = [f"{problem.unit}_{index}" for index in range(len(units))]
    return Placement(
        problem=problem.name,
        device=problem.device.name,
        slots={n: (s[0].slr, s[0].column, s[0].first) for n, s in zip(names, units, strict=True)},
        spots=dict(zip(names, units, strict=True)),
        kinds={problem.unit: len(units)},
        objective=objective,
        bound=bound,
        status=status,
        solver=solver,
        crossing_wires=(0,) * (len(problem.device.slrs) - 1),
        crossing_registers=0,
        used={
            r.value: len(units) * sum(p.size for p in problem.parts if p.resource is r)
            for r in Resource
        },
        available=problem.device.totals(),
        seconds=time.perf_counter() - began,
    )


def _whole(solution: Solution) -> bool:
    """Whether there is a solution, and no part of it is split: at a proved optimum none is."""
    return bool(solution.values) and all(
        abs(value - round(value)) <= SLACK for value in solution.values.values()
    )


def _units(problem: SitesProblem, solution: Solution, shift: int) -> list[tuple[Spot, ...]]:
    """Follow the chosen pairs from the first part's stacks through the tree of nets."""
    partner: dict[tuple[int, Stack], Stack] = {}
    for key, value in solution.values.items():
        if isinstance(key, Pair) and value > 0.5:
            partner[key.net, key.source] = key.sink
            partner[key.net, key.sink] = key.source
    units = []
    root = problem.parts[0].name
    for stack, value in solution.values.items():
        if isinstance(stack, Stack) and stack.part == root and value > 0.5:
            unit = {root: stack}
            while len(unit) < len(problem.parts):
                for n, net in enumerate(problem.nets):
                    for near, far in ((net.source, net.sink), (net.sink, net.source)):
                        if near in unit and far not in unit:
                            unit[far] = partner[n, unit[near]]
            spots = [s for part in problem.parts for s in _spots(part, unit[part.name], shift)]
            units.append(tuple(spots))
    return units


def _spots(part: Part, stack: Stack, shift: int) -> Iterator[Spot]:
    chain = part.chain or Chain(length=part.size)
    for index in range(chain.count):
        yield Spot(
            resource=part.resource,
            slr=stack.slr + shift,
            column=stack.column,
            first=stack.first + index * chain.length,
            size=chain.length,
            length=chain.length if part.chain else 0,
        )
