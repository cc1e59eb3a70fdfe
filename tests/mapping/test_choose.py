"""The choice of arrays: limits kept, proved best, and what is short if nothing fits."""

from itertools import product

import numpy as np
import pytest

from mapping.placer import InfeasiblePlacement, Status, load_device
from mapping.placer.choose import BANDWIDTH, POWER, Budget, Candidate, choose, nearest, shortages
from mapping.placer.problem import Caps

LIMITS = ("DSP", "LUT", BANDWIDTH, POWER)


def random_case(seed, scale=1):
    """Return random candidates and a budget that some sets of them fit."""
    rng = np.random.default_rng(seed)
    candidates = [
        Candidate(
            name=f"c{n}",
            cycles={job: int(rng.integers(10, 100) * scale) for job in ("a", "b", "c")},
            takes={limit: float(rng.integers(1, 10)) for limit in LIMITS},
        )
        for n in range(4)
    ]
    limits = {limit: float(rng.integers(8, 25)) for limit in LIMITS}
    return candidates, Budget(name="b", limits=limits)


def best_of_all(candidates, budget, most):
    """Return the least cycles of all ways to run three workloads on the candidates."""
    best = None
    for picks in product(candidates, repeat=3):
        built = {c.name: c for c in picks}.values()
        within = len(built) <= (most or 3) and all(
            sum(c.takes[limit] for c in built) <= most_of
            for limit, most_of in budget.limits.items()
        )
        last = max(
            sum(p.cycles[job] for p, job in zip(picks, "abc", strict=True) if p is c) for c in built
        )
        if within and (best is None or last < best):
            best = last
    return best


@pytest.mark.parametrize("scale", [1, 10**9 + 7])
@pytest.mark.parametrize("most", [None, 1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_choice_equals_enumeration(seed, most, scale):
    """Cycles equal the best of all ways, exactly, however many cycles there are."""
    candidates, budget = random_case(seed, scale)
    choice = choose(candidates, budget, most=most)
    assert choice.cycles == best_of_all(candidates, budget, most)
    assert choice.status is Status.OPTIMAL
    assert choice.gap < 1e-9
    assert len(choice.machines) <= (most or 3)


def test_solvers_agree():
    """Both solvers prove the same optimum."""
    candidates, budget = random_case(3)
    found = [choose(candidates, budget, solver=name) for name in ("highs", "cbc")]
    assert found[0].cycles == found[1].cycles
    assert [choice.solver for choice in found] == ["highs", "cbc"]


def test_budget_of_a_device_is_its_share_of_every_resource():
    """Caps take a share, bandwidth and power are limits only if they are given."""
    budget = Budget.of(load_device("vcu1525"), caps=Caps(lut=0.5), power_w=9.5)
    assert budget.limits == {"DSP": 6840, "BRAM": 4320, "URAM": 960, "LUT": 591_120, POWER: 9.5}
    wide = Budget.of(load_device("vcu1525"), bandwidth_bytes_per_s=7)
    assert wide.limits[BANDWIDTH] == 7


def test_shortages_are_what_a_candidate_exceeds():
    """Each limit that is exceeded is named with demand and limit; the nearest candidate wins."""
    budget = Budget(name="b", limits={"DSP": 10, POWER: 2.5})
    near = Candidate(name="near", cycles={"a": 1}, takes={"DSP": 11, POWER: 2.0})
    far = Candidate(name="far", cycles={"a": 1}, takes={"DSP": 30, POWER: 2.6})
    assert [str(s) for s in shortages(far, budget)] == [
        "DSP of 'far': needs 30, has 10, 20 too few",
        "power (W) of 'far': needs 3, has 2, 1 too few",
    ]
    assert nearest((far, near), budget) == shortages(near, budget)
    sentence = (
        r"Even the nearest candidate does not fit on b: DSP of 'near': needs 11, has 10, 1 too few"
    )
    with pytest.raises(InfeasiblePlacement, match=sentence):
        choose((far, near), budget)


def test_only_time_running_out_is_no_verdict(monkeypatch):
    """Neither a choice nor a proof within the time is a failure, not "infeasible"."""
    candidates, budget = random_case(0)
    found = choose.__globals__["solve"]

    def nothing(*arguments, **settings):
        solution = found(*arguments, **settings)
        return type(solution)(
            **{name: getattr(solution, name) for name in solution.__slots__} | {"values": {}}
        )

    monkeypatch.setitem(choose.__globals__, "solve", nothing)
    with pytest.raises(RuntimeError, match="b: no choice was found within 60 s"):
        choose(candidates, budget)
