"""Mapping by integer programming, in the manner of CoSA (Huang et al., ISCA 2021).

One model a setting. Binaries choose one tile size of every dimension and a loop order; capacities
are sums of logarithms; a surrogate bounds the cost from below by tangents of exponentials
(`mapping.surrogate`). The solver's pick is evaluated exactly, by the lowered program, with all
tiles of the same rows; these are then cut off, tangents at the pick are added, and the model is
solved again with the incumbent's cost as a limit. When no tile is left below it, no tile
of the setting is better than the incumbent. The greedy mapping is the first.
"""

import collections.abc as abc
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from mapping.exhaustive import Accept, improved, untiled
from mapping.greedy import greedy, setting_floors
from mapping.least import ranked
from mapping.linear import Model, Row, Variable
from mapping.objective import Goal, Number
from mapping.problem import Problem
from mapping.solver import SOLVERS, Status, solve
from mapping.space import ORDERS, Candidates, candidates, elements, settings
from mapping.surrogate import DIMS, Choices, Floats, Product, Sum, bounds, dim_of, factors
from mapping.types import Mapping
from simulator.arch import MemoryMode, NMArray
from simulator.nm_tile import NMSetting

__all__ = ["integer"]

TIME_LIMIT_S: Final = 60.0
"""Seconds for one problem, after which the bound says how far the incumbent may be from best."""

MARGIN: Final = 2e-5
"""Solvers take rows as kept within 1e-6; the limit and the capacities allow for more than that."""

COST: Final = "cost"
"""The goal: cost over the incumbent's."""

STEP: Final = 0.4
SPAN: Final = 6.0
"""First tangents touch every STEP of the logarithm over SPAN below the incumbent."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """1 if this choice of a dimension is taken."""

    dim: str
    index: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """1 if the loops run in this order, an index into ORDERS."""

    order: int


@dataclass(frozen=True, slots=True)
class Doubled:
    """1 if the operand's buffer has two slots: its tile changes."""

    operand: str


@dataclass(frozen=True, slots=True)
class Outside:
    """1 if tile loop `index`, which leaves the operand's tile alone, makes it be fetched again."""

    operand: str
    index: str


@dataclass(frozen=True, slots=True)
class Refetched:
    """Logarithm of how often loop `index` makes the operand be fetched again."""

    operand: str
    index: str


@dataclass(frozen=True, slots=True)
class Worth:
    """At least the value of one product of one sum, over the incumbent's cost."""

    sum: int
    product: int


Terms = dict[abc.Hashable, float]


def one_hot(c: Choices) -> Iterator[Row]:
    """Every dimension takes one choice, and the loops one order."""
    for dim in DIMS:
        yield Row(terms={Chosen(dim, i): 1 for i in range(len(c.sizes[dim]))}, low=1, high=1)
    yield Row(terms={Ordered(order): 1 for order in c.orders}, low=1, high=1)


def moving(c: Choices, index: str) -> Terms:
    """Return what sums to 1 if tile loop `index` runs more than once, else to 0."""
    counts = c.counts(index)
    return {Chosen(dim_of(index), int(i)): 1.0 for i in np.flatnonzero(counts > 1)}


def residency(c: Choices) -> Iterator[Row]:
    """An operand has two slots if a loop that changes its tile runs more than once."""
    for operand, indices in c.problem.indices.items():
        for index in indices:
            yield Row(terms={**moving(c, index), Doubled(operand): -1.0}, high=0)


def capacity(c: Choices) -> Iterator[Row]:
    """A tile of every operand, in all its slots, fits its buffer: logarithms of bits add up.

    Activations share theirs with tensors that are kept there.
    """
    arch = c.arch
    for operand, number in elements(c.problem, c.setting, c.star).items():
        if operand == "act" and c.problem.kept_in:
            continue
        logs = factors(c, number)
        assert logs is not None  # no tile is empty
        bits = arch.acc_bits if operand == "out" else arch.operand_bits
        bits += c.setting.index_bits if operand == "weight" else 0
        bits += arch.operand_bits if operand == "out" and c.problem.saved else 0
        size = 8 * getattr(arch, f"{operand}_buffer").capacity_bytes
        size -= 8 * c.problem.kept_bytes if operand == "act" else 0
        terms = _logs(logs) | {Doubled(operand): math.log(2)}
        yield Row(terms=terms, high=math.log(size / bits) + MARGIN)


def _logs(logs: abc.Mapping[str, Floats]) -> Terms:
    return {Chosen(dim, i): float(v) for dim, log in logs.items() for i, v in enumerate(log)}


def _fetched(c: Choices) -> Iterator[tuple[str, str]]:
    """Yield (operand, tile loop) where the loop may make the operand be fetched again."""
    for operand in ("act", "weight"):
        for index in "umn":
            if index not in c.problem.indices[operand]:
                yield operand, index


def permutation(c: Choices) -> Iterator[Row]:
    """A loop outside one that changes an operand's tile makes it be fetched all over."""
    for operand, index in _fetched(c):
        for order in c.orders:
            nest = (*ORDERS[order], "k")
            for inner in nest[nest.index(index) + 1 :]:
                if inner in c.problem.indices[operand]:
                    terms = moving(c, inner) | {Ordered(order): 1.0}
                    yield Row(terms=terms | {Outside(operand, index): -1.0}, high=1)


def refetches(c: Choices) -> Iterator[Row]:
    """Refetched is at least the logarithm of the loop's trip count if the loop is outside."""
    for operand, index in _fetched(c):
        logs = np.log(c.counts(index).astype(float))
        most = float(logs.max())
        terms: Terms = {Chosen(dim_of(index), i): float(v) for i, v in enumerate(logs)}
        terms |= {Refetched(operand, index): -1.0, Outside(operand, index): most}
        yield Row(terms=terms, high=most)


def exponent(c: Choices, product: Product) -> Terms:
    """Return the logarithm of a product as a linear expression."""
    terms = _logs(product.logs)
    return terms | {Refetched(*pair): 1.0 for pair in _fetched(c) if pair[0] == product.operand}


def tangent(c: Choices, product: Product, worth: Worth, at: float, limit: Number) -> Row:
    """A product is at least the tangent of the exponential at logarithm `at`; over `limit`."""
    slope = math.exp(at) / limit
    terms = {key: slope * value for key, value in exponent(c, product).items()}
    return Row(terms=terms | {worth: -1.0}, high=slope * (at - 1))


def below(sums: Sequence[Sum], limit: Number) -> Iterator[Row]:
    """The cost is at least every sum, and at most `limit`, the incumbent's."""
    for i, part in enumerate(sums):
        terms: Terms = {Worth(i, j): 1.0 for j in range(len(part.products))}
        yield Row(terms=terms | {COST: -1.0}, high=-part.constant / limit)
    yield Row(terms={COST: 1.0}, high=1 + MARGIN)


def cut(rows: int) -> Row:
    """The tiles of these rows have been looked at."""
    return Row(terms={Chosen("rows", rows): 1.0}, high=0)


class _Search:
    """The model of one setting, and what has been learnt of it."""

    def __init__(self, arch: NMArray, goal: Goal, problem: Problem, setting: NMSetting) -> None:
        self.goal, self.choices = goal, Choices(arch, setting, problem)
        self.sums = bounds(self.choices, goal)
        families = (one_hot, residency, capacity, permutation, refetches)
        self.rows = [row for family in families for row in family(self.choices)]
        self.cuts: list[Row] = []
        self.points: dict[Worth, list[float]] = defaultdict(list)
        self.proved = False

    def step(self, limit: Number, solver: str, time_limit_s: float) -> Candidates | None:
        """Return tiles that may cost less than `limit`, None if none is left or time is up."""
        self.proved = False
        if time_limit_s <= 0:
            return None
        c, model = self.choices, self.model(limit)
        found = solve(model, solver=solver, time_limit_s=time_limit_s)
        if found.status is Status.UNKNOWN:  # a presolve can fail on a model the other takes
            (other,) = set(SOLVERS) - {solver}
            found = solve(model, solver=other, time_limit_s=time_limit_s)
        self.proved = found.status is Status.INFEASIBLE
        if not found.values:
            return None
        tiles = c.slice(self._learn(found.values))
        legal = candidates(c.arch, c.setting, c.problem, tiles)
        return ranked(c.arch, self.goal, c.setting, c.problem, legal)

    def model(self, limit: Number) -> Model:
        """Return the model of what may still cost less than `limit`."""
        c, top = self.choices, math.log(limit)
        tangents = [
            tangent(c, product, worth, float(at), limit)
            for worth, product in self._products()
            for at in (*np.arange(top - SPAN, top + STEP, STEP), *self.points[worth])
            if at >= top - SPAN
        ]
        pairs = list(_fetched(c))
        binaries = (
            *(Chosen(dim, i) for dim in DIMS for i in range(len(c.sizes[dim]))),
            *(Ordered(order) for order in c.orders),
            *(Doubled(operand) for operand in c.problem.indices),
            *(Outside(*pair) for pair in pairs),
        )
        continuous = (
            COST,
            *(worth for worth, _ in self._products()),
            *(Refetched(*pair) for pair in pairs),
        )
        return Model(
            variables={
                **dict.fromkeys(binaries, Variable()),
                **dict.fromkeys(continuous, Variable(high=None, integer=False)),
            },
            rows=(*self.rows, *below(self.sums, limit), *tangents, *self.cuts),
            costs={COST: 1},
        )

    def _products(self) -> Iterator[tuple[Worth, Product]]:
        for i, part in enumerate(self.sums):
            for j, product in enumerate(part.products):
                yield Worth(i, j), product

    def _learn(self, values: abc.Mapping[abc.Hashable, float]) -> int:
        """Add tangents at the solver's pick, cut off its rows, and return them."""
        c = self.choices
        for worth, product in self._products():
            at = sum(v * values[key] for key, v in exponent(c, product).items())
            self.points[worth].append(at)
        rows = max(range(len(c.sizes["rows"])), key=lambda i: values[Chosen("rows", i)])
        self.cuts.append(cut(rows))
        return rows


def integer(
    arch: NMArray,
    problem: Problem,
    name: str,
    goal: Goal,
    accept: Accept | None = None,
    *,
    solver: str = "highs",
    time_limit_s: float = TIME_LIMIT_S,
) -> Mapping:
    """Return the mapping of `problem` with the least cost, proved by integer programs.

    `accept` may refuse tiles. After `time_limit_s` the best so far is returned with the bound that
    is proved by then. Raises NoMapping, naming operator, buffer, need and size, if no tile fits,
    and naming the operator if every one is refused.
    """
    if arch.memory is MemoryMode.IDEAL:
        return untiled(arch, problem, name, goal)
    ends = time.perf_counter() + time_limit_s
    known = settings(arch, problem)
    floors = setting_floors(arch, goal, problem)
    best = greedy(arch, problem, name, goal, accept)
    bound, considered = best.cost, best.considered
    for i in sorted(range(len(known)), key=floors.__getitem__):
        if floors[i] >= best.cost:
            break
        search = _Search(arch, goal, problem, known[i])
        while (found := search.step(best.cost, solver, ends - time.perf_counter())) is not None:
            considered += len(found)
            best = improved(arch, goal, problem, name, known[i], found, best, accept) or best
        if not search.proved:
            bound = min(bound, floors[i])
    return replace(best, bound=min(bound, best.cost), considered=considered)
