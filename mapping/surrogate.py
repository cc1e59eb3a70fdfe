"""A linear model of a mapping: sums of products, each a sum of logarithms.

A tile is one choice of rows (outer units and m), one of k and one of n, and a loop order. What an
operand needs, what the array takes and what memory moves are products of one factor a choice, so
their logarithms are linear in one-hot variables. A sum of products is bounded below by tangents of
the exponential, exactly at the points where tangents touch.
"""

import collections.abc as abc
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mapping.least import floor, parts
from mapping.objective import Goal, Objective, energy_j, prices_pj
from mapping.problem import Problem
from mapping.space import (
    ORDERS,
    Tiles,
    array_terms,
    distinct,
    end_elements,
    quanta,
    tile_sizes,
    tiles_of,
    whole_array_cycles,
)
from simulator.arch import MemoryMode, NMArray
from simulator.counts import Event
from simulator.nm_tile import NMSetting

__all__ = ["DIMS", "Choices", "Product", "Sum", "bounds", "dim_of", "factors"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Factors = dict[str, Floats]
Number = TypeVar("Number", np.int64, np.float64)

DIMS = ("rows", "k", "n")


@dataclass(frozen=True)
class Choices:
    """The choices of one problem under one setting."""

    arch: NMArray
    setting: NMSetting
    problem: Problem

    @cached_property
    def sizes(self) -> dict[str, Ints]:
        """Sizes by choice: rows are (units, m) pairs, several units only with all their rows."""
        p, found = self.problem, tile_sizes(self.problem, quanta(self.arch, self.setting))
        rows = [(1, m) for m in found["m"]]
        rows += [(u, p.unit_m) for u in found["u"] if u > 1]
        return {"rows": np.array(rows, dtype=np.int64), "k": found["k"], "n": found["n"]}

    @cached_property
    def orders(self) -> tuple[int, ...]:
        """Loop orders of the space, as indices into ORDERS."""
        p = self.problem
        if p.indices["out"] != "umn":
            return (ORDERS.index("unm" if p.indices["out"] == "un" else "umn"),)
        return (0, 1, 2) if p.shared_weights and p.units > 1 else (0, 1)

    def tiles(self, rows: Ints, k: Ints, n: Ints, order: Ints) -> Tiles:
        """Return the tiles of these choices, by index; `order` indexes ORDERS."""
        sizes = self.sizes
        units, m = sizes["rows"][rows].T
        return tiles_of(self.problem, units, m, sizes["k"][k], sizes["n"][n], order)

    def slice(self, rows: int) -> Tiles:
        """Return every tile of the space with these rows."""
        axes = (np.arange(len(self.sizes["k"])), np.arange(len(self.sizes["n"])), self.orders)
        k, n, order = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
        return distinct(self.problem, self.tiles(np.full_like(k, rows), k, n, order))

    @cached_property
    def star(self) -> Tiles:
        """Tiles that differ from the first in one choice: all of rows, then of k, then of n."""
        columns = [
            np.concatenate([np.arange(len(self.sizes[d])) * (d == dim) for d in DIMS])
            for dim in DIMS
        ]
        rows, k, n = columns
        return self.tiles(rows, k, n, np.full_like(rows, self.orders[0]))

    def counts(self, index: str) -> Ints:
        """Return the trip count of tile loop `index` (u, m, k or n) by choice of its dimension."""
        t = self.star
        column = {"u": t.count_u, "m": t.count_m, "k": t.count_k, "n": t.count_n}[index]
        return self.by_dim(column)[dim_of(index)]

    def by_dim(self, column: NDArray[Number]) -> dict[str, NDArray[Number]]:
        """Return a column over `star` cut by dimension."""
        ends = np.cumsum([len(self.sizes[d]) for d in DIMS])[:-1]
        return dict(zip(DIMS, np.split(column, ends), strict=True))


def dim_of(index: str) -> str:
    """Return the dimension whose choice decides the trip count of tile loop `index`."""
    return "rows" if index in "um" else index


def factors(choices: Choices, column: Ints | Floats) -> Factors | None:
    """Return the logarithm of a product over `star` as one addend a choice of each dimension.

    None if the product is 0 somewhere: it is then left out, which bounds a cost from below.
    """
    if not (column > 0).all():
        return None
    logs = choices.by_dim(np.log(column.astype(np.float64)))
    first = logs["rows"][0]
    return {dim: log if dim == "rows" else log - first for dim, log in logs.items()}


@dataclass(frozen=True, slots=True)
class Product:
    """e to the sum of one logarithm a choice; times the repeated fetches of `operand`, if any."""

    logs: abc.Mapping[str, Floats]
    operand: str | None = None

    def times(self, weight: float) -> "Product":
        """Return this product times `weight` above 0."""
        return Product({**self.logs, "rows": self.logs["rows"] + math.log(weight)}, self.operand)


@dataclass(frozen=True, slots=True)
class Sum:
    """A constant and products, whose sum bounds a cost from below."""

    constant: float
    products: tuple[Product, ...]


Column = tuple[float, Ints, str | None]
"""A weight, what it weighs over `star`, and the operand whose repeated fetches multiply it."""


def _sum(choices: Choices, constant: float, columns: abc.Iterable[Column]) -> Sum:
    """Return the weighted sum of columns; products that are 0 somewhere are left out."""
    products = []
    for weight, column, operand in columns:
        if operand is None and (column == column[0]).all():
            constant += weight * int(column[0])
            continue
        logs = factors(choices, column) if weight > 0 else None
        if logs is not None:
            products.append(Product(logs, operand).times(weight))
    return Sum(constant, tuple(products))


def _cycles(c: Choices) -> list[Sum]:
    """Return bounds on the cycles: the array with what comes before and behind it, and the DMA."""
    arch, s, p, t = c.arch, c.setting, c.problem, c.star
    jobs, folds = array_terms(arch, s, p, t)
    per_bit = arch.clock_hz / arch.dram.bandwidth_bytes_per_s / 8
    alone: list[Column] = [(1.0, jobs, None), (1.0, folds, None)]
    latency = 0
    if arch.memory is not MemoryMode.STEADY:
        latency = arch.dram.latency_cycles
        for operand, number in end_elements(p, s, t).items():
            bits = arch.operand_bits + (s.index_bits if operand == "weight" else 0)
            alone.append((per_bit * bits, number, None))
    return [_sum(c, latency, alone), _priced(c, 0, lambda event: per_bit * (event[0] == "dram"))]


def _priced(c: Choices, effectual: int, price: abc.Callable[[Event], float]) -> Sum:
    """Return the sum of all events at their price."""
    found = parts(c.arch, c.setting, c.problem, c.star, effectual)
    return _sum(c, 0.0, ((price(part.event), part.number, part.operand) for part in found))


def bounds(c: Choices, goal: Goal) -> list[Sum]:
    """Return sums that all bound the cost of every tile from below, in the objective's unit.

    An energy-delay product is at least E t0 + E0 t - E0 t0 for any E0 and t0 that energy E and
    time t do not fall below; these are of the whole problem as one tile.
    """
    match goal.objective:
        case Objective.CYCLES:
            return _cycles(c)
        case Objective.DRAM_BYTES:
            return [_priced(c, 0, lambda event: (event[0] == "dram") / 8)]
        case Objective.ENERGY:
            return [_energy(c, goal)]
        case Objective.EDP:
            return [_delayed(c, goal, cycles) for cycles in _cycles(c)]


def _energy(c: Choices, goal: Goal) -> Sum:
    known = prices_pj(c.arch)
    found = _priced(c, goal.macs_effectual, lambda event: known[event] * 1e-12)
    return Sum(found.constant + energy_j(c.arch, goal.fixed), found.products)


def _delayed(c: Choices, goal: Goal, cycles: Sum) -> Sum:
    energy, per_cycle = _energy(c, goal), 1 / c.arch.clock_hz
    least_j = floor(c.arch, replace(goal, objective=Objective.ENERGY), c.setting, c.problem)
    least_s = per_cycle * whole_array_cycles(c.arch, c.setting, c.problem)
    constant = energy.constant * least_s + least_j * (cycles.constant * per_cycle - least_s)
    return Sum(
        constant,
        (
            *(product.times(least_s) for product in energy.products),
            *(product.times(least_j * per_cycle) for product in cycles.products),
        ),
    )
