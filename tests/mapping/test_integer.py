"""The integer program's constraint families, each by brute force over all tiles of tiny problems.

A family is right if the least values it allows at every tile are what the space says of the tile.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from mapping import integer as ip
from mapping.linear import Model, Row, Variable
from mapping.objective import Goal, Objective, op_cost
from mapping.problem import Problem
from mapping.solver import Status, solve
from mapping.space import candidates, repeats, settings
from mapping.surrogate import DIMS, Choices, bounds
from simulator.arch.load import load_arch
from simulator.schedule import OpSchedule
from workloads.graph import Gemm, Window

TINY = [
    Problem(gemm=Gemm(m=20, k=24, n=16)),
    Problem(gemm=Gemm(groups=3, m=9, k=12, n=8), compressed=(2, 4)),
    Problem(
        gemm=Gemm(m=2 * 36, k=27, n=10),
        window=Window(batch=2, image=(6, 6), channels=3, kernel=(3, 3), padding=(1, 1, 1, 1)),
    ),
]


def choices_of(problem, setting=0, capacity=600, **overrides):
    """Return the choices of `problem` on a machine whose buffers force tiling."""
    buffers = ("act_buffer", "weight_buffer", "out_buffer")
    sizes = {name: {"capacity_bytes": capacity} for name in buffers}
    arch = load_arch("nm-tiny", rows=2, cols=4, **{**sizes, **overrides})
    return Choices(arch, settings(arch, problem)[setting], problem)


def all_points(c):
    """Yield every (choice by dimension, order), and its tile as columns of length one."""
    for rows in range(len(c.sizes["rows"])):
        for k in range(len(c.sizes["k"])):
            for n in range(len(c.sizes["n"])):
                for order in c.orders:
                    columns = (np.array([x]) for x in (rows, k, n, order))
                    yield {"rows": rows, "k": k, "n": n}, order, c.tiles(*columns)


def one_hots(point, order):
    """Return the binaries of a point; everything else is 0."""
    return {**{ip.Chosen(dim, point[dim]): 1.0 for dim in DIMS}, ip.Ordered(order): 1.0}


def value(row, values):
    return sum(factor * values.get(key, 0.0) for key, factor in row.terms.items())


def least(rows, kind, values):
    """Return {variable of `kind`: least value the rows allow}; it has the factor -1 in each."""
    found = {}
    for row in rows:
        (key,) = (key for key in row.terms if isinstance(key, kind))
        assert row.terms[key] == -1.0
        found[key] = max(found.get(key, 0.0), value(row, values) - row.high)
    return found


def completed(c, point, order):
    """Return all variables of a point at the least values the rows allow."""
    values = one_hots(point, order)
    for family, kind in (
        (ip.residency, ip.Doubled),
        (ip.permutation, ip.Outside),
        (ip.refetches, ip.Refetched),
    ):
        values |= least(family(c), kind, values)
    return values


@pytest.mark.parametrize("problem", TINY)
def test_one_hot_takes_exactly_one_choice_of_everything(problem):
    c = choices_of(problem)
    point, order, _ = next(all_points(c))
    rows = list(ip.one_hot(c))
    good = one_hots(point, order)
    assert all(row.low == row.high == value(row, good) for row in rows)
    for key in good:
        assert any(value(row, {**good, key: 0.0}) != row.high for row in rows)
    double = {**good, ip.Chosen("k", len(c.sizes["k"]) - 1): 1.0, ip.Chosen("k", 0): 1.0}
    assert len(c.sizes["k"]) > 1
    assert any(value(row, double) != row.high for row in rows)


@pytest.mark.parametrize("setting", range(3))
@pytest.mark.parametrize("problem", TINY)
def test_capacity_and_residency_admit_exactly_the_tiles_that_fit(problem, setting):
    c = choices_of(problem, setting)
    verdicts = set()
    for point, order, tile in all_points(c):
        values = completed(c, point, order)
        admitted = all(value(row, values) <= row.high for row in ip.capacity(c))
        fits = len(candidates(c.arch, c.setting, c.problem, tile)) == 1
        assert admitted == fits
        verdicts.add(fits)
    assert verdicts == {True, False}


@pytest.mark.parametrize("problem", TINY)
def test_permutation_and_refetches_say_how_often_operands_are_fetched(problem):
    c = choices_of(problem)
    seen = set()
    for point, order, tile in all_points(c):
        values = completed(c, point, order)
        for operand in ("act", "weight"):
            logs = [
                v
                for key, v in values.items()
                if isinstance(key, ip.Refetched) and key.operand == operand
            ]
            times = int(repeats(tile, problem.indices[operand])[0])
            assert math.exp(sum(logs)) == pytest.approx(times)
            seen.add(times > 1)
    assert seen == {True, False}


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("problem", TINY)
def test_surrogate_sums_bound_the_exact_cost_of_every_tile(problem, objective):
    from mapping.lower import lower_gemm

    c = choices_of(problem, capacity=4000)
    goal = Goal.of(objective, 100, 7)
    sums = bounds(c, goal)
    for point, order, tile in list(all_points(c))[::3]:
        found = candidates(c.arch, c.setting, problem, tile)
        if not len(found):
            continue
        values = completed(c, point, order)
        program, tokens = lower_gemm(c.arch, problem, c.setting, found.shape(0))
        op = OpSchedule(name="", kind="", program=program, tokens=tokens,
                        macs_effectual=goal.macs_effectual, counts=goal.fixed)  # fmt: skip
        cost = op_cost(c.arch, objective, op)
        for part in sums:
            exponents = (ip.exponent(c, product) for product in part.products)
            total = part.constant + sum(
                math.exp(sum(v * values.get(key, 0.0) for key, v in terms.items()))
                for terms in exponents
            )
            assert total <= cost * (1 + 1e-9)


def test_tangents_stay_below_the_exponential_and_touch_it():
    c = choices_of(TINY[0])
    product = bounds(c, Goal())[0].products[0]
    worth = ip.Worth(0, 0)
    for point, order, _ in all_points(c):
        values = completed(c, point, order)
        at = sum(v * values.get(key, 0.0) for key, v in ip.exponent(c, product).items())
        for touch in (at, 2.0, 5.0, 9.0):
            row = ip.tangent(c, product, worth, touch, 1000)
            bound = (value(row, values) - row.high) * 1000
            assert bound <= math.exp(at) * (1 + 1e-9)
            if touch == at:
                assert bound == pytest.approx(math.exp(at))


def test_cost_is_at_least_every_sum_and_at_most_the_limit():
    c = choices_of(TINY[0])
    sums = bounds(c, Goal())
    *parts, top = ip.below(sums, 500)
    worths = {ip.Worth(i, j): 0.25 for i, s in enumerate(sums) for j in range(len(s.products))}
    assert len(parts) == len(sums) == 2
    for row, part in zip(parts, sums, strict=True):
        cost = value(row, worths) - row.high
        assert cost == pytest.approx(0.25 * len(part.products) + part.constant / 500)
    assert value(top, {ip.COST: 1.0}) < top.high < 1.001


def test_a_cut_removes_its_rows_and_nothing_else():
    c = choices_of(TINY[0])
    row = ip.cut(1)
    for point, order, _ in all_points(c):
        removed = value(row, one_hots(point, order)) > row.high
        assert removed == (point["rows"] == 1)


@pytest.mark.parametrize("problem", TINY)
def test_slices_together_are_the_whole_space(problem):
    c = choices_of(problem)

    def keys(found):
        t = found.tiles
        return set(zip(*(x.tolist() for x in (t.units, t.m, t.k, t.n, t.order)), strict=True))

    whole = keys(candidates(c.arch, c.setting, problem))
    parts = [
        keys(candidates(c.arch, c.setting, problem, c.slice(rows)))
        for rows in range(len(c.sizes["rows"]))
    ]
    assert set().union(*parts) == whole
    assert sum(map(len, parts)) == len(whole)


KNAPSACK = Model(
    variables={**dict.fromkeys("abc", Variable()), "cost": Variable(high=None, integer=False)},
    rows=(
        Row(terms={"a": -3.0, "b": -5.0, "c": -4.0, "cost": -1.0}, high=-12.0),
        Row(terms={"a": 2.0, "b": 3.0, "c": 2.0}, high=4.0),
    ),
    costs={"cost": 1},
)


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_solvers_agree_and_tell_infeasible_apart(solver):
    found = solve(KNAPSACK, solver=solver)
    assert found.status is Status.OPTIMAL
    assert found.values["cost"] == pytest.approx(12 - 3 - 4)
    assert [round(found.values[key]) for key in "abc"] == [1, 0, 1]
    rows = (*KNAPSACK.rows, Row(terms={"cost": 1.0}, high=4.5))
    none = solve(replace(KNAPSACK, rows=rows), solver=solver)
    assert none.status is Status.INFEASIBLE
    assert none.values == {}


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="Unknown solver 'simplex'; known: highs, cbc"):
        solve(KNAPSACK, solver="simplex")
