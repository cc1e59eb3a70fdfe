"""The constraint families of the placer, one function each: (problem, layout) -> rows."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from itertools import pairwise
from typing import Final

from mapping.linear import Row
from mapping.placer.device import Resource
from mapping.placer.layout import Layout, Shaft
from mapping.placer.problem import Problem, Unit
from mapping.placer.variables import At, Beyond, Chains, Spread

__all__ = [
    "FAMILIES",
    "capacity",
    "chain_columns",
    "crossing",
    "one_hot",
    "order",
    "pins",
    "rounding",
    "sides",
    "spread",
]


def one_hot(problem: Problem, layout: Layout) -> list[Row]:
    """Every unit is in exactly one slot."""
    return [
        Row(
            family="one slot for every unit",
            label=f"unit {unit.name!r}",
            terms={At(unit.name, s): 1 for s in range(len(layout.slots))},
            low=1,
            high=1,
        )
        for unit in problem.units
    ]


def pins(problem: Problem, layout: Layout) -> list[Row]:
    """A pinned unit is in no slot outside its SLR."""
    rows = []
    for unit in problem.units:
        outside = [s for s, slot in enumerate(layout.slots) if unit.slr not in slot.slrs]
        if unit.slr is not None and outside:
            rows.append(
                Row(
                    family="pins",
                    label=f"units outside the pinned SLR {unit.slr}, {unit.name!r}",
                    terms={At(unit.name, s): 1 for s in outside},
                    high=0,
                )
            )
    return rows


def capacity(problem: Problem, layout: Layout) -> list[Row]:
    """What the units of a slot need of a resource is at most what its cap leaves."""
    rows = []
    for resource in Resource:
        needs = {unit.name: unit.demand(resource) for unit in problem.units}
        rows += [
            Row(
                family=resource.value.upper(),
                label=f"{resource.value.upper()} in {slot}",
                terms={At(name, s): need for name, need in needs.items() if need},
                high=slot.capacity[resource],
            )
            for s, slot in enumerate(layout.slots)
            if any(needs.values())
        ]
    return rows


def _count(unit: Unit, length: int) -> int:
    return sum(chain.count for chain in unit.chains if chain.length == length)


def chain_columns(problem: Problem, layout: Layout) -> list[Row]:
    """Chains are whole inside one column of one SLR, in a column of their unit's slot.

    Chains of one column lie end to end, so they fit if their lengths add up to its sites; slots
    above each other in an SLR share its columns. If all chains have one length, a column takes
    sites // length of them and no variable is needed. DSPs outside chains are left to capacity:
    they go where chains leave room.
    """
    lengths = problem.chain_lengths()
    rows = []
    for members in _sharing(layout):
        shafts = tuple(sorted({shaft for s in members for shaft in layout.slots[s].shafts}))
        demands: list[dict[Hashable, float]] = [
            {
                At(unit.name, s): _count(unit, length)
                for unit in problem.units
                if _count(unit, length)
                for s in members
            }
            for length in lengths
        ]
        if len(lengths) == 1:
            rows.append(_one_length(shafts, lengths[0], demands[0]))
        else:
            rows += _mixed_lengths(shafts, lengths, demands)
    return rows


def _sharing(layout: Layout) -> list[list[int]]:
    """Return slots in groups that share no column with another group."""
    groups: list[tuple[set[Shaft], list[int]]] = []
    for s, slot in enumerate(layout.slots):
        shafts, members = set(slot.shafts), [s]
        apart = []
        for group in groups:
            if shafts & group[0]:
                shafts, members = shafts | group[0], group[1] + members
            else:
                apart.append(group)
        groups = [*apart, (shafts, members)]
    return [members for _, members in groups]


def _place_name(shafts: tuple[Shaft, ...]) -> str:
    slrs = sorted({shaft.slr for shaft in shafts})
    columns = [shaft.column for shaft in shafts]
    if not columns:
        return "slots without DSP columns"
    return f"SLR {', '.join(map(str, slrs))}, columns {min(columns)} to {max(columns)}"


def _one_length(shafts: tuple[Shaft, ...], length: int, demand: dict[Hashable, float]) -> Row:
    return Row(
        family="chains",
        label=f"chains of {length} DSP in {_place_name(shafts)}",
        terms=demand,
        high=sum(shaft.sites // length for shaft in shafts),
    )


def _mixed_lengths(
    shafts: tuple[Shaft, ...], lengths: tuple[int, ...], demands: list[dict[Hashable, float]]
) -> list[Row]:
    rows = [
        Row(
            family="chains in columns",
            label=f"chains of {length} DSP in {_place_name(shafts)}",
            terms={
                **demand,
                **{Chains(shaft.slr, shaft.column, length): -1.0 for shaft in shafts},
            },
            low=0,
            high=0,
        )
        for length, demand in zip(lengths, demands, strict=True)
    ]
    rows += [
        Row(
            family="chains",
            label=f"DSP sites of chains in column {shaft.column} of SLR {shaft.slr}",
            terms={Chains(shaft.slr, shaft.column, length): length for length in lengths},
            high=shaft.sites,
        )
        for shaft in shafts
        if lengths
    ]
    return rows


def sides(problem: Problem, layout: Layout) -> list[Row]:
    """A unit is beyond a line if its slot is.

    Whole sides of all lines leave one slot, so only they need be integers: far fewer, and a
    decision about one moves whole halves of the device.
    """
    return [
        Row(
            family="sides",
            label="",
            terms={
                Beyond(unit.name, index): -1,
                **{At(unit.name, s): 1 for s, slot in enumerate(layout.slots) if line.beyond(slot)},
            },
            low=0,
            high=0,
        )
        for unit in problem.units
        for index, line in enumerate(layout.lines)
    ]


def spread(problem: Problem, layout: Layout) -> list[Row]:
    """A net whose units are on both sides of a line crosses it."""
    return [
        Row(
            family="spread",
            label="",
            terms={Spread(n, index): 1, Beyond(one, index): -1, Beyond(other, index): 1},
            low=0,
        )
        for n, net in enumerate(problem.joined())
        for index in range(len(layout.lines))
        for one, other in ((net.source, net.sink), (net.sink, net.source))
    ]


def crossing(problem: Problem, layout: Layout) -> list[Row]:
    """Wires over an SLR boundary are within their budget."""
    nets = problem.joined()
    return [
        Row(
            family="wires between SLRs",
            label=f"wires between SLR {line.boundary} and SLR {line.boundary + 1}",
            terms={Spread(n, index): net.bits for n, net in enumerate(nets)},
            high=problem.crossing_wires,
        )
        for index, line in enumerate(layout.lines)
        if line.boundary is not None and nets
    ]


def rounding(problem: Problem, layout: Layout) -> list[Row]:
    """No slot takes more equal units than fit when they have it alone.

    Follows from capacity and chains where units are whole; it tells the linear relaxation, and
    layouts with slots joined, that what is left over in two slots adds up to no unit.
    """
    rows = []
    for number, members in enumerate(problem.classes()):
        rows += [
            Row(
                family="rounding",
                label="",
                terms={At(unit.name, s): 1 for unit in members},
                high=slot.fits[number],
            )
            for s, slot in enumerate(layout.slots)
            if slot.fits[number] < len(members)
        ]
    return rows


def order(problem: Problem, layout: Layout) -> list[Row]:
    """Break symmetry: units that nothing but their name tells apart are in order of slots."""
    joined: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for net in problem.joined():
        joined[net.source].append((net.sink, net.bits))
        joined[net.sink].append((net.source, net.bits))
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for unit in problem.units:
        demand = tuple(unit.demand(resource) for resource in Resource)
        key = (demand, unit.chains, unit.slr, tuple(sorted(joined[unit.name])))
        alike[key].append(unit.name)
    rows = []
    for names in alike.values():
        for first, second in pairwise(names):
            terms: dict[Hashable, float] = {
                At(first, s): float(s) for s in range(1, len(layout.slots))
            }
            terms |= {At(second, s): -float(s) for s in range(1, len(layout.slots))}
            rows.append(Row(family="order", label="", terms=terms, high=0))
    return rows


FAMILIES: Final[Mapping[str, Callable[[Problem, Layout], list[Row]]]] = {
    "one slot": one_hot,
    "pins": pins,
    "capacity": capacity,
    "chains": chain_columns,
    "rounding": rounding,
    "sides": sides,
    "spread": spread,
    "crossing": crossing,
    "order": order,
}
"""Every constraint family by name, in the order they enter a model."""
