"""The placer equals enumeration: every constraint family alone, and whole random problems."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mapping.linear import Model, Variable
from mapping.placer import InfeasiblePlacement, Status, load_device, place
from mapping.placer.check import check_slots
from mapping.placer.device import Device, Granularity, Resource, Slr
from mapping.placer.families import FAMILIES
from mapping.placer.layout import Layout, coarsen, layout
from mapping.placer.problem import Caps, Chain, Grid, Net, Objective, Problem, Unit
from mapping.placer.program import build, start
from mapping.placer.sites import Part, SitesProblem
from mapping.placer.slots import cuts
from mapping.placer.variables import At, Beyond, Spread
from mapping.solver import SOLVERS, solve

TINY = Device(
    name="tiny",
    summary="two SLRs of two bands",
    granularity=Granularity.COLUMNS,
    clock_rows=2,
    bands=("DBD", "UDB"),
    slrs=(
        Slr(dsp_sites=6, bram_sites=8, uram_sites=4, luts=(100, 80)),
        Slr(dsp_sites=8, bram_sites=8, uram_sites=4, luts=(90, 90)),
    ),
    crossing_wires=60,
    clb_columns=12,
    sources=dict.fromkeys(("bands", "slrs", "crossing_wires", "clb_columns"), "test"),
)
"""Two SLRs; DSP sites that the lower lacks are at its bottom."""


def random_problem(rng, *, units=4, tight=1.0):
    """Return a random problem on TINY: 2 x 2 slots, sometimes 2 x 4."""
    lengths = rng.choice([2, 3, 4, 5], size=int(rng.integers(1, 3)), replace=False)
    made = []
    for index in range(units):
        chains = tuple(
            Chain(length=int(n), count=int(rng.integers(1, 3)))
            for n in lengths
            if rng.random() < 0.6
        )
        made.append(
            Unit(
                name=f"u{index}",
                kind="unit",
                dsp=int(rng.integers(0, 3)),
                bram=int(rng.integers(0, 1 + 6 * tight)),
                uram=int(rng.integers(0, 1 + 2 * tight)) if rng.random() < 0.4 else 0,
                lut=int(rng.integers(0, 1 + 60 * tight)),
                chains=chains,
                slr=int(rng.integers(0, 2)) if rng.random() < 0.2 else None,
            )
        )
    names = [unit.name for unit in made]
    nets = [
        Net(source=str(a), sink=str(b), bits=int(rng.integers(1, 40)))
        for a, b in (rng.choice(names, 2, replace=False) for _ in range(int(rng.integers(0, 7))))
    ]
    return Problem(
        name="random",
        device=TINY,
        grid=Grid(columns=2, rows=2 if rng.random() < 0.25 else 1),
        units=tuple(made),
        nets=tuple(nets),
        caps=Caps(dsp=float(rng.choice([1.0, 0.9])), lut=0.8),
        crossing_wires=int(rng.integers(10, 90)),
        objective=Objective(across=1, along=float(rng.choice([1, 2])), crossing=3),
    )


# An oracle that shares nothing with the program: plain loops over assignments ----------------


def _amount(problem, resource, slr, x, row):
    """Return what a slot holds, counted site by site."""
    device, rows = problem.device, problem.grid.rows
    per_slot = len(device.bands) // problem.grid.columns
    bands = range(x * per_slot, (x + 1) * per_slot)
    if resource is Resource.LUT:
        return sum(device.slrs[slr].luts[b] for b in bands) // rows
    letter = {"dsp": "D", "bram": "B", "uram": "U"}[resource.value]
    tallest = max(getattr(s, f"{resource.value}_sites") for s in device.slrs)
    lacking = tallest - getattr(device.slrs[slr], f"{resource.value}_sites")
    sites = [s for s in range(lacking, tallest) if s // (tallest // rows) == row]
    return len(sites) * sum(device.bands[b].count(letter) for b in bands)


def _packs(pieces, bins):
    """Return whether pieces fit in bins, by trying every bin for the largest piece."""
    if not pieces:
        return True
    piece, rest = pieces[0], pieces[1:]
    for index in {size: i for i, size in enumerate(bins)}.values():  # equal bins are alike
        if bins[index] >= piece:
            left = [size - piece * (i == index) for i, size in enumerate(bins)]
            if _packs(rest, left):
                return True
    return False


def _fits(problem, slots):
    for resource in Resource:
        for slot in set(slots):
            need = sum(
                u.demand(resource) for u, s in zip(problem.units, slots, strict=True) if s == slot
            )
            cap = problem.caps.share(resource)
            if need > _amount(problem, resource, *slot) * cap + 1e-9:
                return False
    return not any(
        unit.slr not in (None, slot[0]) for unit, slot in zip(problem.units, slots, strict=True)
    )


def _chains_fit(problem, slots):
    per_slot = len(problem.device.bands) // problem.grid.columns
    for slr, x in {(slot[0], slot[1]) for slot in slots}:
        pieces = sorted(
            (
                chain.length
                for unit, slot in zip(problem.units, slots, strict=True)
                if (slot[0], slot[1]) == (slr, x)
                for chain in unit.chains
                for _ in range(chain.count)
            ),
            reverse=True,
        )
        columns = "".join(problem.device.bands[x * per_slot : (x + 1) * per_slot]).count("D")
        if not _packs(pieces, [problem.device.slrs[slr].dsp_sites] * columns):
            return False
    return True


def _cost_and_wires(problem, slots):
    at = dict(zip((unit.name for unit in problem.units), slots, strict=True))
    weight, cost, wires = problem.objective, 0.0, 0
    for net in problem.nets:
        a, b = at[net.source], at[net.sink]
        rise = abs(a[0] * problem.grid.rows + a[2] - b[0] * problem.grid.rows - b[2])
        crossed = a[0] != b[0]
        cost += net.bits * (
            weight.across * abs(a[1] - b[1]) + weight.along * rise + weight.crossing * crossed
        )
        wires += net.bits * crossed
    return cost, wires


def _assignments(problem):
    slots = list(product(range(2), range(problem.grid.columns), range(problem.grid.rows)))
    return product(slots, repeat=len(problem.units))


def enumerate_best(problem):
    """Return the least cost of a legal placement, None if there is none."""
    best = None
    for slots in _assignments(problem):
        cost, wires = _cost_and_wires(problem, slots)
        if best is not None and cost >= best:
            continue
        if (
            wires <= problem.crossing_wires
            and _fits(problem, slots)
            and _chains_fit(problem, slots)
        ):
            best = cost
    return best


# One family at a time --------------------------------------------------------------------------


def _feasible(problem, grid: Layout, family, slots):
    """Return whether the rows of one family hold when every unit is where `slots` says."""
    index = {
        (s.slrs[0], s.x, s.y - s.slrs[0] * problem.grid.rows): n for n, s in enumerate(grid.slots)
    }
    chosen = {u.name: index[slot] for u, slot in zip(problem.units, slots, strict=True)}
    return _solvable(FAMILIES[family](problem, grid), start(problem, grid, chosen))


def _solvable(rows, values):
    """Return whether the rows hold at these values, for some values of all other variables."""
    free = {key for row in rows for key in row.terms if key not in values}
    if not free:
        return all(_holds(row, values) for row in rows)
    variables = {key: Variable(low=v, high=v, integer=False) for key, v in values.items()}
    variables |= {key: Variable(high=None) for key in free}
    model = Model(variables=variables, rows=tuple(rows))
    return solve(model, solver="highs").status is Status.OPTIMAL


def _holds(row, values):
    total = sum(values[key] * factor for key, factor in row.terms.items())
    return (row.low is None or total >= row.low - 1e-9) and (
        row.high is None or total <= row.high + 1e-9
    )


def _small(seed, **changes):
    """Return a random problem of three units on 2 x 2 slots."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, units=3, **changes)
    while problem.grid.rows != 1:
        problem = random_problem(rng, units=3, **changes)
    return problem


def test_capacity_and_pins_hold_exactly_where_counting_says():
    """Capacity and pins together allow the assignments that site counts allow, and no other."""
    answers = []
    for seed in range(8):
        problem = _small(seed, tight=1.4)
        grid = layout(problem)
        for slots in _assignments(problem):
            ours = all(_feasible(problem, grid, f, slots) for f in ("capacity", "pins"))
            assert ours == _fits(problem, slots)
            answers.append(ours)
    assert min(answers.count(True), answers.count(False)) > 20


@pytest.mark.parametrize("chains", [(3,), (3, 3), (4, 3), (5, 2), (2,), (6, 3), (7,)])
def test_chains_hold_exactly_where_packing_says(chains):
    """Chain rows allow the assignments whose chains pack into columns, of one length or several."""
    units = tuple(
        Unit(name=f"u{n}", kind="u", chains=tuple(Chain(length=c, count=1 + n) for c in chains))
        for n in range(3)
    )
    problem = Problem(name="p", device=TINY, grid=Grid(columns=2), units=units, crossing_wires=9)
    grid = layout(problem)
    for slots in _assignments(problem):
        assert _feasible(problem, grid, "chains", slots) == _chains_fit(problem, slots)


@pytest.mark.parametrize(
    "demand",
    [{"lut": 40}, {"bram": 4}, {"uram": 2, "bram": 3}, {"chains": (Chain(length=4, count=2),)}],
)
def test_rounding_forbids_more_equal_units_than_fit_and_no_less(demand):
    """Of equal units a slot takes as many as fit there alone; slots joined add up whole units."""
    units = tuple(Unit(name=f"u{n}", kind="u", **demand) for n in range(4))
    problem = Problem(name="p", device=TINY, grid=Grid(columns=2), units=units, crossing_wires=9)
    grid = layout(problem)
    refused = 0
    for slots in _assignments(problem):
        fits = _fits(problem, slots) and _chains_fit(problem, slots)
        assert _feasible(problem, grid, "rounding", slots) == fits
        refused += not fits
    assert refused
    (joined,) = coarsen(grid, ()).slots
    assert joined.fits == (sum(slot.fits[0] for slot in grid.slots),)


@pytest.mark.parametrize("seed", range(6))
def test_crossing_holds_exactly_within_the_wire_budget(seed):
    """The crossing rows hold where the bits of nets over the SLR boundary are within budget."""
    problem = _small(seed)
    grid = layout(problem)
    for slots in _assignments(problem):
        within = _cost_and_wires(problem, slots)[1] <= problem.crossing_wires
        assert _feasible(problem, grid, "crossing", slots) == within


@pytest.mark.parametrize("seed", range(6))
def test_spread_costs_the_width_weighted_distance(seed):
    """The least spread that its rows allow costs bits times Manhattan distance."""
    problem = _small(seed)
    grid = layout(problem)
    model = build(problem, grid)
    for slots in _assignments(problem):
        index = {(s.slrs[0], s.x, 0): n for n, s in enumerate(grid.slots)}
        values = start(
            problem, grid, {u.name: index[s] for u, s in zip(problem.units, slots, strict=True)}
        )
        assert all(
            _holds(row, values) for f in ("spread", "sides") for row in FAMILIES[f](problem, grid)
        )
        cost = sum(factor * values[key] for key, factor in model.costs.items())
        assert cost == _cost_and_wires(problem, slots)[0]
        for key in (key for key in model.costs if values[key]):
            lower = {**values, key: 0.0}
            assert not all(_holds(row, lower) for row in FAMILIES["spread"](problem, grid))


def test_one_hot_refuses_none_and_two_slots():
    """A unit must be in one slot: none and two break the row."""
    problem = _small(0)
    grid = layout(problem)
    rows = FAMILIES["one slot"](problem, grid)
    empty = {key: 0.0 for row in rows for key in row.terms}
    twice = empty | {At("u0", 0): 1.0, At("u0", 1): 1.0, At("u1", 0): 1.0, At("u2", 3): 1.0}
    once = twice | {At("u0", 1): 0.0}
    assert not all(_holds(row, empty) for row in rows)
    assert not all(_holds(row, twice) for row in rows)
    assert all(_holds(row, once) for row in rows)


def test_order_keeps_one_of_every_permutation():
    """Of two units alike only one order of slots is left; units that differ stay free."""
    alike = tuple(Unit(name=f"u{n}", kind="u", bram=2) for n in range(2))
    other = Unit(name="v", kind="u", bram=3)
    problem = Problem(
        name="p", device=TINY, grid=Grid(columns=2), units=(*alike, other), crossing_wires=9
    )
    grid = layout(problem)
    kept = [slots for slots in _assignments(problem) if _feasible(problem, grid, "order", slots)]
    assert len(kept) == 10 * 4  # pairs with repetition of 4 slots, times the slots of v
    assert {tuple(sorted(slots[:2])) + slots[2:] for slots in kept} == {
        tuple(sorted(slots[:2])) + slots[2:] for slots in _assignments(problem)
    }


def test_keys_of_different_variables_differ():
    """Variables of different kinds never stand for each other."""
    assert len({At("a", 1), Beyond("a", 1), Spread(0, 1)}) == 3


# Whole problems --------------------------------------------------------------------------------


def _names_a_shortage(error):
    return bool(error.report) and all(shortage.gap > 0 for shortage in error.report)


def _agree(seeds, solver):
    found = {"placed": 0, "infeasible": 0}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, units=int(rng.integers(2, 5)), tight=rng.choice([0.6, 1.3]))
        best = enumerate_best(problem)
        try:
            placement = place(problem, solver=solver)
        except InfeasiblePlacement as error:
            found["infeasible"] += best is None and _names_a_shortage(error)
            continue
        assert placement.status is Status.OPTIMAL
        assert (placement.objective, placement.gap) == (best, 0), f"seed {seed}"
        assert check_slots(problem, placement) == [], f"seed {seed}"
        found["placed"] += 1
    return found


def test_random_problems_equal_enumeration():
    """Objective and status equal enumeration of all assignments; both outcomes occur."""
    found = _agree(range(60), "highs")
    assert sum(found.values()) == 60
    assert min(found.values()) >= 10


@pytest.mark.parametrize("solver", SOLVERS)
def test_both_solvers_equal_enumeration(solver):
    """CBC and HiGHS give the same optimum."""
    assert sum(_agree(range(60, 70), solver).values()) == 10


@pytest.mark.long
@pytest.mark.parametrize("solver", SOLVERS)
def test_many_random_problems_equal_enumeration(solver):
    """As above, 300 problems for each solver."""
    assert sum(_agree(range(1000, 1300), solver).values()) == 300


@pytest.mark.parametrize("family", ["capacity", "chains", "rounding"])
@pytest.mark.parametrize("vertical", [False, True])
def test_joined_slots_allow_what_their_parts_allow(family, vertical):
    """Every placement that fits also fits with slots joined, columns of an SLR shared or not."""
    units = tuple(
        Unit(name=f"u{n}", kind="u", bram=2, chains=(Chain(length=3), Chain(length=2, count=2)))
        for n in range(3)
    )
    problem = Problem(
        name="p", device=TINY, grid=Grid(columns=2, rows=2), units=units, crossing_wires=9
    )
    grid = layout(problem)
    lines = [line for line in grid.lines if line.vertical == vertical and line.boundary is None]
    coarse = coarsen(grid, lines)
    rows = FAMILIES[family](problem, coarse)
    place_of = {(s.slrs[0], s.x, s.y - 2 * s.slrs[0]): s for s in grid.slots}
    for slots in _assignments(problem):
        if _fits(problem, slots) and _chains_fit(problem, slots):
            at = {}
            for unit, slot in zip(units, slots, strict=True):
                side = sum(line.beyond(place_of[slot]) for line in lines)
                at[unit.name] = next(
                    n for n, s in enumerate(coarse.slots) if (s.x if vertical else s.y) == side
                )
            assert _solvable(rows, start(problem, coarse, at))


def test_cuts_never_cut_off_the_optimum():
    """With the cuts the optimum stays; some cut is above nothing."""
    bounds = []
    for seed, rows in product(range(30), (1, 2)):  # two rows: joined slots share columns
        problem = random_problem(np.random.default_rng(seed), units=3, tight=0.8)
        problem = replace(problem, grid=Grid(columns=2, rows=rows))
        best = enumerate_best(problem)
        if best is None:
            continue
        grid = layout(problem)
        found = cuts(problem, grid, solver="highs", time_limit_s=20)
        with_cuts = solve(build(problem, grid, found), solver="highs")
        assert with_cuts.objective == pytest.approx(best), f"seed {seed}"
        bounds += [bound for _, bound in found]
    assert sum(bound > 0 for bound in bounds) >= 5


# Sites -----------------------------------------------------------------------------------------


def test_sites_equal_enumeration_of_matchings():
    """The network flow over stacks equals the best of all injective choices of stacks."""
    from itertools import permutations

    from mapping.placer.sites import _stacks

    parts = (Part(name="d", chain=Chain(length=3)), Part(name="b", bram=4), Part(name="u", uram=4))
    nets = (Net(source="u", sink="b", bits=3), Net(source="b", sink="d", bits=2))
    problem = SitesProblem(name="p", device=TINY, unit="x", count=2, parts=parts, nets=nets)
    choices = [[s for slr in range(2) for s in _stacks(TINY, part, slr)] for part in parts]
    best = min(
        sum(
            3 * (abs(u.x - b.x) + abs(u.y - b.y)) + 2 * (abs(b.x - d.x) + abs(b.y - d.y))
            for d, b, u in zip(ds, bs, us, strict=True)
        )
        for us in permutations(choices[2], 2)
        for bs in permutations(choices[1], 2)
        if all(u.slr == b.slr for u, b in zip(us, bs, strict=True))
        for ds in permutations(choices[0], 2)
        if all(d.slr == b.slr for d, b in zip(ds, bs, strict=True))
    )
    placement = place(problem)
    assert placement.objective == pytest.approx(best)
    assert placement.gap == pytest.approx(0)


def test_devices_of_the_tests_are_not_shipped():
    """The tiny device is the tests' own; shipped tables are loaded by name."""
    with pytest.raises(ValueError, match=r"Unknown device 'tiny'; known: u250, u280, vhk158"):
        load_device("tiny")
