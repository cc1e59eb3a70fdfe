"""Slots of a device and the lines between them, as the integer program sees them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from mapping.placer.device import Device, Resource
from mapping.placer.problem import Problem, Unit

__all__ = ["Layout", "Line", "Shaft", "Slot", "coarsen", "layout"]


UNLIMITED = 1 << 40
"""How many units that need nothing fit."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shaft:
    """One DSP column of one SLR: chains lie inside it."""

    slr: int
    column: int
    sites: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A region: its place in the grid (x to the right, y up), what of it may be used, its shafts.

    `slrs` has one entry, several after `coarsen`; capacity counts sites and LUTs under the caps.
    `fits`: how many units of each of the problem's classes fit when they have the slot alone.
    """

    x: int
    y: int
    slrs: tuple[int, ...]
    capacity: dict[Resource, int]
    shafts: tuple[Shaft, ...]
    fits: tuple[int, ...]

    def __str__(self) -> str:
        """Return the slot as messages name it."""
        return f"slot x{self.x} y{self.y}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A border through the grid: slots with x (or y) below `at` are on one side of it.

    `cost` is that of one bit across it; `boundary` is the SLR below an SLR boundary.
    """

    vertical: bool
    at: int
    cost: float
    boundary: int | None = None

    def beyond(self, slot: Slot) -> bool:
        """Return whether a slot is right of (above) the line."""
        return (slot.x if self.vertical else slot.y) >= self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Slots and lines; the distance of two slots is the sum of the costs of lines between."""

    slots: tuple[Slot, ...]
    lines: tuple[Line, ...]


def layout(problem: Problem) -> Layout:
    """Return the slots of the problem's grid, from bottom to top and left to right."""
    device, grid, weight = problem.device, problem.grid, problem.objective
    slots = [
        _slot(problem, slr, column, row)
        for slr in range(len(device.slrs))
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]
    verticals = [Line(vertical=True, at=x, cost=weight.across) for x in range(1, grid.columns)]
    horizontals = []
    for y in range(1, len(device.slrs) * grid.rows):
        slr, inside = divmod(y, grid.rows)
        horizontals.append(
            Line(vertical=False, at=y, cost=weight.along)
            if inside
            else Line(vertical=False, at=y, cost=weight.along + weight.crossing, boundary=slr - 1)
        )
    return Layout(slots=tuple(slots), lines=(*verticals, *horizontals))


def _slot(problem: Problem, slr: int, column: int, row: int) -> Slot:
    device, grid = problem.device, problem.grid
    width = len(device.bands) // grid.columns
    bands = range(column * width, (column + 1) * width)
    hard = [c for c in device.columns if c.band in bands]
    capacity = {}
    for resource in Resource:
        if resource is Resource.LUT:
            whole = sum(device.slrs[slr].luts[band] for band in bands) // grid.rows
        else:
            columns = sum(c.resource is resource for c in hard)
            whole = columns * _sites(device, resource, slr, row, grid.rows)
        # The product may come out a hair below a whole number that it should be.
        capacity[resource] = int(whole * problem.caps.share(resource) + 1e-9)
    shafts = tuple(
        Shaft(slr=slr, column=c.index, sites=device.slrs[slr].dsp_sites)
        for c in hard
        if c.resource is Resource.DSP
    )
    return Slot(
        x=column,
        y=slr * grid.rows + row,
        slrs=(slr,),
        capacity=capacity,
        shafts=shafts,
        fits=tuple(_fit(members[0], capacity, shafts) for members in problem.classes()),
    )


def _fit(unit: Unit, capacity: dict[Resource, int], shafts: tuple[Shaft, ...]) -> int:
    """Return how many such units fit at most: by every resource, by every length of chains."""
    limits = [capacity[r] // unit.demand(r) for r in Resource if unit.demand(r)]
    limits += [
        sum(shaft.sites // chain.length for shaft in shafts) // chain.count for chain in unit.chains
    ]
    return min(limits, default=UNLIMITED)


def _sites(device: Device, resource: Resource, slr: int, row: int, rows: int) -> int:
    """Return the sites of one column in one row of slots; sites an SLR lacks are at its bottom."""
    full = max(s.sites(resource) for s in device.slrs) // rows
    return full if row else device.slrs[slr].sites(resource) - full * (rows - 1)


def coarsen(fine: Layout, lines: Iterable[Line]) -> Layout:
    """Return the layout with only `lines` left: slots that no line parts become one.

    What is placed in the fine layout is placed in the coarse one at the cost of `lines` alone, so
    the optimum there is a bound on that part of any cost here.
    """
    kept = tuple(lines)

    def cell(slot: Slot) -> tuple[int, int]:
        x, y = (
            sum(line.beyond(slot) for line in kept if line.vertical == v) for v in (True, False)
        )
        return y, x

    slots = [
        _merge(x, y, tuple(members))
        for (y, x), members in groupby(sorted(fine.slots, key=cell), key=cell)
    ]
    renumbered = []
    for vertical in (True, False):
        ordered = sorted((line for line in kept if line.vertical == vertical), key=lambda n: n.at)
        renumbered += [
            Line(vertical=vertical, at=index, cost=line.cost, boundary=line.boundary)
            for index, line in enumerate(ordered, 1)
        ]
    return Layout(slots=tuple(slots), lines=tuple(renumbered))


def _merge(x: int, y: int, members: tuple[Slot, ...]) -> Slot:
    return Slot(
        x=x,
        y=y,
        slrs=tuple(sorted({slr for slot in members for slr in slot.slrs})),
        capacity={r: sum(slot.capacity[r] for slot in members) for r in Resource},
        shafts=tuple(sorted({shaft for slot in members for shaft in slot.shafts})),
        fits=tuple(sum(parts) for parts in zip(*(slot.fits for slot in members), strict=True)),
    )
