"""Check a placement against its problem from first principles: nothing here knows the program.

Every function returns sentences about what is wrong; an empty list means the placement holds.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from mapping.placer.device import Device, Resource
from mapping.placer.problem import Placement, Problem, Spot
from mapping.placer.sites import SitesProblem

__all__ = ["check_sites", "check_slots"]


def check_sites(problem: SitesProblem, placement: Placement) -> list[str]:
    """Check a site-level placement: every unit complete, in one SLR, on sites of its own."""
    wrong = _occupied(problem.device, placement.spots)
    wanted = sorted(
        (part.resource.value, part.chain.length if part.chain else part.size)
        for part in problem.parts
        for _ in range(part.chain.count if part.chain else 1)
    )
    for name, spots in placement.spots.items():
        if sorted((spot.resource.value, spot.size) for spot in spots) != wanted:
            wrong.append(f"{name} does not have the parts of a {problem.unit}")
        if len({spot.slr for spot in spots}) != 1:
            wrong.append(f"{name} is in several SLRs")
    wrong += _figures(placement, _sites_cost(problem, placement))
    if problem.count is not None and placement.placed != problem.count:
        wrong.append(f"{placement.placed} units are placed, not {problem.count}")
    return wrong


def _sites_cost(problem: SitesProblem, placement: Placement) -> float:
    device, weight = problem.device, problem.objective
    resource = {part.name: part.resource for part in problem.parts}
    total = 0.0
    for spots in placement.spots.values():
        middle = {}
        for kind in {spot.resource for spot in spots}:
            parts = [spot for spot in spots if spot.resource is kind]
            centre = [(p.first + p.size / 2) for p in parts]
            most = max(s.sites(kind) for s in device.slrs)
            lacking = most - device.slrs[parts[0].slr].sites(kind)
            middle[kind] = (
                parts[0].column * device.clb_columns / len(device.columns),
                (lacking + sum(centre) / len(centre)) * 60 * device.clock_rows / most,
            )
        for net in problem.nets:
            (x1, y1), (x2, y2) = middle[resource[net.source]], middle[resource[net.sink]]
            total += net.bits * (weight.across * abs(x1 - x2) + weight.along * abs(y1 - y2))
    return total


def check_slots(problem: Problem, placement: Placement) -> list[str]:
    """Check a slot-level placement: capacities, chains, pins, wires, and the objective."""
    units = {unit.name: unit for unit in problem.units}
    if set(units) != set(placement.slots):
        return ["The placement has other units than the problem"]
    device, grid = problem.device, problem.grid
    width = len(device.bands) // grid.columns
    used: dict[tuple[int, int, int], dict[Resource, int]] = defaultdict(lambda: defaultdict(int))
    wrong = _occupied(device, placement.spots)
    for name, slot in placement.slots.items():
        unit = units[name]
        if unit.slr not in (None, slot[0]):
            wrong.append(f"{name} is pinned to SLR {unit.slr} but in SLR {slot[0]}")
        for resource in Resource:
            used[slot][resource] += unit.demand(resource)
        chains = sorted(c.length for c in unit.chains for _ in range(c.count))
        laid = placement.spots.get(name, ())
        if sorted(spot.length for spot in laid) != chains:
            wrong.append(f"{name} does not have its chains")
        bands = {device.columns[spot.column].band // width for spot in laid}
        if any(spot.slr != slot[0] for spot in laid) or bands - {slot[1]}:
            wrong.append(f"{name} has chains outside its slot's columns")
    for slot, needs in used.items():
        for resource, need in needs.items():
            limit = _raw(device, slot, grid.columns, grid.rows, resource)
            if need > limit * problem.caps.share(resource) + 1e-6:
                wrong.append(f"{resource.value} of slot {slot} is over its cap")
    return wrong + _wires(problem, placement)


def _raw(
    device: Device, slot: tuple[int, int, int], columns: int, rows: int, resource: Resource
) -> int:
    slr, x, row = slot
    width = len(device.bands) // columns
    if resource is Resource.LUT:
        return sum(device.slrs[slr].luts[x * width : (x + 1) * width]) // rows
    letters = "".join(device.bands[x * width : (x + 1) * width])
    count = letters.count({"dsp": "D", "bram": "B", "uram": "U"}[resource.value])
    heights = [0] * rows
    whole = max(s.sites(resource) for s in device.slrs)
    for site in range(whole - device.slrs[slr].sites(resource), whole):
        heights[site * rows // whole] += 1
    return count * heights[row]


def _wires(problem: Problem, placement: Placement) -> list[str]:
    weight, rows = problem.objective, problem.grid.rows
    cost, over = 0.0, [0] * (len(problem.device.slrs) - 1)
    for net in problem.nets:
        (slr_a, xa, row_a), (slr_b, xb, row_b) = (
            placement.slots[net.source],
            placement.slots[net.sink],
        )
        low, high = sorted((slr_a, slr_b))
        up = abs((slr_a * rows + row_a) - (slr_b * rows + row_b))
        cost += net.bits * (
            weight.across * abs(xa - xb) + weight.along * up + weight.crossing * (high - low)
        )
        for boundary in range(low, high):
            over[boundary] += net.bits
    wrong = [
        f"{wires} wires cross from SLR {slr}, the budget is {problem.crossing_wires}"
        for slr, wires in enumerate(over)
        if wires > problem.crossing_wires
    ]
    if tuple(over) != placement.crossing_wires:
        wrong.append(f"Crossing wires are {over}, not {list(placement.crossing_wires)}")
    return wrong + _figures(placement, cost)


def _figures(placement: Placement, cost: float) -> list[str]:
    wrong = []
    if abs(cost - placement.objective) > 1e-6 * max(1, cost):
        wrong.append(f"The objective is {cost:g}, not {placement.objective:g}")
    if placement.bound > placement.objective + 1e-6 * max(1, cost):
        wrong.append("The bound is above the objective")
    return wrong


def _occupied(device: Device, spots: Mapping[str, Iterable[Spot]]) -> list[str]:
    """Return sites used twice, outside their column, or of another resource."""
    taken = {
        (slr, index): np.zeros(device.slrs[slr].sites(column.resource), np.int64)
        for slr in range(len(device.slrs))
        for index, column in enumerate(device.columns)
    }
    wrong = []
    for name, parts in spots.items():
        for spot in parts:
            sites = taken[spot.slr, spot.column]
            if device.columns[spot.column].resource is not spot.resource:
                wrong.append(f"{name} has {spot.resource.value} in a column of something else")
            if spot.first < 0 or spot.first + spot.size > len(sites):
                wrong.append(f"{name} leaves column {spot.column} of SLR {spot.slr}")
            sites[max(spot.first, 0) : spot.first + spot.size] += 1
    twice = [place for place, sites in taken.items() if (sites > 1).any()]
    return wrong + [f"Sites of column {c} in SLR {s} are used twice" for s, c in twice]
