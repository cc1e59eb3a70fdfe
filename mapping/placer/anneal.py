"""A good placement quickly, by simulated annealing: where the integer program starts from."""

import math
import random

from mapping.placer.device import Resource
from mapping.placer.layout import Layout
from mapping.placer.problem import Problem

__all__ = ["anneal"]

_HOT, _COLD = 0.5, 0.005
"""First and last temperature, in the average cost of a net."""


class _State:
    """An assignment with its loads; moves and their costs."""

    def __init__(self, problem: Problem, layout: Layout) -> None:
        index = {unit.name: u for u, unit in enumerate(problem.units)}
        self.neighbours: list[list[tuple[int, float]]] = [[] for _ in problem.units]
        for net in problem.joined():
            a, b = index[net.source], index[net.sink]
            self.neighbours[a].append((b, net.bits))
            self.neighbours[b].append((a, net.bits))
        self.distance = [
            [sum(n.cost for n in layout.lines if n.beyond(a) != n.beyond(b)) for b in layout.slots]
            for a in layout.slots
        ]
        self.allowed = [
            [s for s, slot in enumerate(layout.slots) if unit.slr is None or unit.slr in slot.slrs]
            for unit in problem.units
        ]
        lengths = problem.chain_lengths()
        self.limits = [
            [float(slot.capacity[r]) for r in Resource]
            + [float(sum(shaft.sites // n for shaft in slot.shafts)) for n in lengths]
            for slot in layout.slots
        ]
        self.needs = [
            [float(unit.demand(r)) for r in Resource]
            + [float(sum(c.count for c in unit.chains if c.length == n)) for n in lengths]
            for unit in problem.units
        ]
        wires = [bits for ends in self.neighbours for _, bits in ends]
        self.scale = sum(wires) / max(len(wires), 1) or 1.0
        self.loads = [[0.0] * len(self.limits[0]) for _ in layout.slots]
        self.at: list[int] = []

    def fill(self) -> None:
        """Put every unit where it overflows least, in order."""
        for u, need in enumerate(self.needs):
            slot = min(self.allowed[u], key=lambda s: self.overflow(s, need, 1.0))
            self.at.append(slot)
            self.load(slot, need, 1.0)

    def load(self, slot: int, need: list[float], sign: float) -> None:
        self.loads[slot] = [a + sign * b for a, b in zip(self.loads[slot], need, strict=True)]

    def overflow(self, slot: int, need: list[float], sign: float) -> float:
        """Return the relative overflow of a slot with `need` added, over all resources."""
        return sum(
            max(0.0, load + sign * n - limit) / max(limit, 1.0)
            for load, n, limit in zip(self.loads[slot], need, self.limits[slot], strict=True)
        )

    def wire(self, unit: int, slot: int) -> float:
        """Return the cost of the unit's nets if it were in `slot`."""
        distance = self.distance[slot]
        return sum(bits * distance[self.at[v]] for v, bits in self.neighbours[unit])

    def gain(self, unit: int, slot: int) -> tuple[float, float]:
        """Return the change of wire cost and of overflow if the unit moved."""
        old, need, none = self.at[unit], self.needs[unit], [0.0] * len(self.needs[unit])
        overflow = self.overflow(slot, need, 1.0) - self.overflow(slot, none, 1.0)
        overflow += self.overflow(old, need, -1.0) - self.overflow(old, none, 1.0)
        return self.wire(unit, slot) - self.wire(unit, old), overflow

    def move(self, unit: int, slot: int) -> None:
        self.load(self.at[unit], self.needs[unit], -1.0)
        self.load(slot, self.needs[unit], 1.0)
        self.at[unit] = slot


def anneal(problem: Problem, layout: Layout, *, steps: int, seed: int = 0) -> dict[str, int] | None:
    """Return the slot of every unit, or None if no placement within capacity was met.

    Deterministic for a seed. Wire budgets and chains of several lengths are not looked at, so
    the answer is a start for the integer program, which checks everything.
    """
    state, random_ = _State(problem, layout), random.Random(seed)
    if any(not slots for slots in state.allowed):
        return None
    state.fill()
    penalty = 20 * state.scale * max(map(max, state.distance), default=1.0) or 1.0
    wire = sum(state.wire(u, s) for u, s in enumerate(state.at)) / 2
    excess = sum(state.overflow(s, [0.0] * len(x), 1.0) for s, x in enumerate(state.limits))
    best: tuple[float, list[int]] | None = (wire, list(state.at)) if excess < 1e-9 else None
    for step in range(steps):
        heat = state.scale * _HOT * (_COLD / _HOT) ** (step / steps)
        unit = random_.randrange(len(state.at))
        target = random_.choice(state.allowed[unit])
        moves = [(unit, target)]
        if random_.random() < 0.5:  # swap with a unit of the other slot
            others = [v for v, s in enumerate(state.at) if s == target and v != unit]
            if others:
                other = random_.choice(others)
                if state.at[unit] in state.allowed[other]:
                    moves.append((other, state.at[unit]))
        before, delta, over = [(u, state.at[u]) for u, _ in moves], 0.0, 0.0
        for u, s in moves:
            change = state.gain(u, s)
            delta, over = delta + change[0], over + change[1]
            state.move(u, s)
        change_cost = delta + penalty * over
        if change_cost <= 0 or random_.random() < math.exp(-change_cost / heat):
            wire, excess = wire + delta, excess + over
            if excess < 1e-9 and (best is None or wire < best[0] - 1e-9):
                best = (wire, list(state.at))
        else:
            for u, s in reversed(before):
                state.move(u, s)
    if best is None:
        return None
    return {unit.name: s for unit, s in zip(problem.units, best[1], strict=True)}
