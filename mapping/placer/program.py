"""The integer program over slots: its variables, rows and costs, and a start from an answer."""

import math
from collections.abc import Hashable, Iterable, Mapping

from mapping.linear import Model, Row, Variable
from mapping.placer.families import FAMILIES
from mapping.placer.layout import Layout
from mapping.placer.problem import Problem
from mapping.placer.variables import At, Beyond, Chains, Spread

__all__ = ["Cut", "build", "start", "step"]

Cut = tuple[tuple[int, ...], float]
"""Lines of a layout, and a lower bound of what all nets together cost over them."""


def build(problem: Problem, layout: Layout, cuts: Iterable[Cut] = ()) -> Model:
    """Return the integer program: every family's rows, the cuts, width-weighted distance."""
    nets = problem.joined()
    rows = [row for family in FAMILIES.values() for row in family(problem, layout)]
    costs = {
        Spread(n, index): net.bits * line.cost
        for n, net in enumerate(nets)
        for index, line in enumerate(layout.lines)
    }
    rows += [
        Row(
            family="cuts",
            label="",
            terms={key: cost for key, cost in costs.items() if key.line in lines},
            low=bound,
        )
        for lines, bound in cuts
    ]
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
