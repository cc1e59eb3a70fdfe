"""The picture of a placement: SLRs, columns or slots, units by kind, nets."""

import math
from typing import TYPE_CHECKING, Final

from mapping.placer import Placement, Problem, SitesProblem
from mapping.placer.device import Device, Resource
from sparseloom.canvas import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_floorplan", "floorplan_svg"]

_KINDS: Final = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
"""Okabe-Ito colours of kinds of units, in the order kinds occur."""

_RESOURCES: Final = {
    Resource.DSP: ("DSP48E2", "#0072B2"),
    Resource.BRAM: ("RAMB18", "#E69F00"),
    Resource.URAM: ("URAM", "#009E73"),
}
_LIGHT: Final = "#eeeeee"
_GREY: Final = "#777777"
_NET: Final = "#D55E00"
_LINK: Final = "#111111"
_NAMED: Final = 80
"""Most units whose names are written."""


def floorplan_svg(problem: Problem | SitesProblem, placement: Placement) -> str:
    """Return the floorplan as SVG text; the same placement draws the same bytes."""
    return svg(draw_floorplan(problem, placement))


def draw_floorplan(problem: Problem | SitesProblem, placement: Placement) -> "Figure":
    """Return the floorplan as a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)  # no window system, no global state
    axes = figure.add_subplot()
    axes.set_axis_off()
    if isinstance(problem, SitesProblem):
        _draw_sites(axes, problem, placement)
    else:
        _draw_slots(axes, problem, placement)
    axes.set_title(
        f"{placement.problem} on {placement.device}: {placement.placed} units, "
        f"{placement.status.value}, gap {placement.gap:.2%}",
        loc="left",
    )
    axes.autoscale_view()
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def _box(
    axes: "Axes", at: tuple[float, float], size: tuple[float, float], face: str, edge: str = "none"
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(at, *size, facecolor=face, edgecolor=edge, linewidth=0.5))


def _key(axes: "Axes", label: str, colour: str) -> None:
    axes.plot([], [], "s", color=colour, label=label)


def _draw_sites(axes: "Axes", problem: SitesProblem, placement: Placement) -> None:
    device = problem.device
    for slr in range(len(device.slrs)):
        axes.text(-0.5, slr * 1.06 + 0.5, f"SLR {slr}", ha="right", va="center", color=_GREY)
        for column in device.columns:
            _box(axes, (column.index, slr * 1.06), (0.8, 1), _LIGHT)
    for spots in placement.spots.values():
        centres: dict[Resource, tuple[float, float]] = {}
        for spot in spots:
            bottom, height = _span(device, spot.slr, spot.resource, spot.first, spot.size)
            colour = _RESOURCES[spot.resource][1]
            _box(axes, (spot.column, bottom), (0.8, height), colour, edge="white")
            centres[spot.resource] = (spot.column + 0.4, bottom + height / 2)
        for net in problem.nets:
            ends = [
                centres[part.resource]
                for name in (net.source, net.sink)
                for part in problem.parts
                if part.name == name
            ]
            axes.plot(*zip(*ends, strict=True), color=_LINK, linewidth=0.5)
    used = {part.resource for part in problem.parts}
    for resource, (label, colour) in _RESOURCES.items():
        if resource in used:
            _key(axes, label, colour)
    axes.plot([], [], color=_LINK, label="net of a unit")


def _span(
    device: Device, slr: int, resource: Resource, first: int, size: int
) -> tuple[float, float]:
    """Return bottom and height of sites; an SLR is 1 high, sites it lacks are at its bottom."""
    most = max(s.sites(resource) for s in device.slrs)
    lacking = most - device.slrs[slr].sites(resource)
    return slr * 1.06 + (lacking + first) / most, size / most


def _draw_slots(axes: "Axes", problem: Problem, placement: Placement) -> None:
    kinds = list(dict.fromkeys(unit.kind for unit in problem.units))
    colours = {kind: _KINDS[index % len(_KINDS)] for index, kind in enumerate(kinds)}
    kind = {unit.name: unit.kind for unit in problem.units}
    members: dict[tuple[int, int, int], list[str]] = {}
    for name, slot in placement.slots.items():
        members.setdefault(slot, []).append(name)
    rows, most = problem.grid.rows, max(map(len, members.values()))
    centres: dict[str, tuple[float, float]] = {}
    for slr in range(len(problem.device.slrs)):
        for row in range(rows):
            for x in range(problem.grid.columns):
                corner = (x * 1.15, slr * (rows + 0.25) + row * 1.04)
                _box(axes, corner, (1.1, 1), _LIGHT, edge=_GREY)
                names = members.get((slr, x, row), [])
                centres |= _draw_units(axes, corner, names, [colours[kind[n]] for n in names], most)
        middle = slr * (rows + 0.25) + rows / 2
        axes.text(-0.04, middle, f"SLR {slr}", ha="right", va="center", color=_GREY)
    _draw_nets(axes, problem, centres)
    for slr, wires in enumerate(placement.crossing_wires):
        height = (slr + 1) * (rows + 0.25) - 0.14
        text = f"{wires:,} of {problem.crossing_wires:,} wires"
        axes.text(problem.grid.columns * 1.15, height, text, fontsize=8, va="center", color=_GREY)
    for name, colour in colours.items():
        _key(axes, name, colour)
    axes.plot([], [], color=_NET, label="net, as wide as its bits")


def _draw_units(
    axes: "Axes", corner: tuple[float, float], names: list[str], colours: list[str], most: int
) -> dict[str, tuple[float, float]]:
    """Draw the units of a slot in a raster that holds `most`; return their centres."""
    side = math.ceil(math.sqrt(most))
    rows = math.ceil(most / side)
    centres = {}
    for index, (name, colour) in enumerate(zip(names, colours, strict=True)):
        down, along = divmod(index, side)
        x = corner[0] + 0.06 + along * 0.98 / side
        y = corner[1] + 0.06 + down * 0.88 / rows
        _box(axes, (x, y), (0.8 / side, 0.72 / rows), colour, edge="white")
        centres[name] = (x + 0.4 / side, y + 0.36 / rows)
        if len(names) <= _NAMED:
            axes.text(*centres[name], name, fontsize=6, ha="center", va="center", zorder=5)
    return centres


def _draw_nets(axes: "Axes", problem: Problem, centres: dict[str, tuple[float, float]]) -> None:
    nets = problem.joined()
    widest = max((net.bits for net in nets), default=1)
    for net in nets:
        ends = (centres[net.source], centres[net.sink])
        axes.plot(
            *zip(*ends, strict=True),
            color=_NET,
            linewidth=0.3 + 1.7 * net.bits / widest,
            alpha=0.5,
            zorder=4,
        )
