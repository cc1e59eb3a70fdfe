"""The choice of arrays: exact cycles, limits kept, proved best, and the reason."""

from itertools import product

import numpy as np
import pytest

import sparseloom as sl
from mapping.placer import InfeasiblePlacement, Status, load_device
from mapping.placer.choose import Budget, Candidate, choose, estimate, pareto, simulated
from mapping.placer.device import Resource
from mapping.placer.problem import Caps


def int8(rows, cols, **changes):
    """Return the SAT preset as an int8 array of another size, for inference."""
    return sl.arch(
        "sat-vcu1525",
        precision="int8",
        adder_latency=1,
        interleave=1,
        training=None,
        rows=rows,
        cols=cols,
        **changes,
    )


def test_resources_of_the_synthesised_pe():
    """Groups of 4: one DSP and 112 LUT a PE; groups of 16 select with 4 more LUTs a bit."""
    small = estimate(int8(2, 3, max_m=4))
    assert (small[Resource.DSP], small[Resource.LUT]) == (6, 6 * 112)
    large = estimate(int8(2, 3, max_m=16))
    assert large[Resource.LUT] == 6 * (112 + 8 * 4)
    assert large[Resource.URAM] == 3 * 57


def test_fp16_has_no_figures():
    """An estimate without synthesis behind it is refused."""
    with pytest.raises(ValueError, match="there is no synthesis of fp16 ones"):
        estimate(sl.arch("sat-vcu1525"))


def test_best_array_of_a_vcu1525_beats_the_preset():
    """Under the VU9P's budget the choice is at least as fast as 32 x 32, and says why."""
    machines = {f"{r}x{c}": int8(r, c) for r, c in product((32, 64, 96), repeat=2)}
    graph = sl.gemm(512, 512, 512, weight=sl.NofM(2, 8))
    candidates = simulated(machines, {"gemm": graph})
    assert {c.name: c.cycles["gemm"] for c in candidates}["32x32"] == sl.simulate(
        graph, machines["32x32"]
    ).cycles
    budget = Budget.of(
        load_device("vu9p"),
        bandwidth_bytes_per_s=76_800_000_000,
        caps=Caps(lut=0.7, dsp=0.75, uram=0.75),
    )
    choice = choose(candidates, budget, reference="32x32")
    assert (choice.status, choice.gap) == (Status.OPTIMAL, 0)
    assert choice.cycles <= machines_cycles(candidates, "32x32")
    fitting = [c for c in candidates if all(c.needs[r] <= budget.limits[r] for r in Resource)]
    assert len(fitting) < len(candidates)
    assert choice.cycles == min(c.cycles["gemm"] for c in fitting)
    assert "32x32: 1,024 PEs" in choice.reason
    assert "The nearest faster one lacks" in choice.reason
    assert max(choice.used.values()) <= 1


def machines_cycles(candidates, name):
    """Return the cycles of one candidate's only workload."""
    return next(c for c in candidates if c.name == name).cycles["gemm"]


def random_case(seed):
    """Return random candidates and a budget that some sets of them fit."""
    rng = np.random.default_rng(seed)
    candidates = [
        Candidate(
            name=f"c{n}",
            pes=1,
            cycles={job: int(rng.integers(10, 100)) for job in ("a", "b", "c")},
            needs={r: int(rng.integers(1, 10)) for r in Resource},
            bandwidth_bytes_per_s=int(rng.integers(1, 10)),
            power_w=float(rng.integers(1, 10)),
        )
        for n in range(4)
    ]
    limits = {r: int(rng.integers(8, 25)) for r in Resource}
    return candidates, Budget(name="b", limits=limits, bandwidth_bytes_per_s=20, power_w=18.0)


@pytest.mark.parametrize("seed", range(12))
def test_choice_equals_enumeration(seed):
    """Cycles equal the best of all ways to run three workloads on four candidates."""
    candidates, budget = random_case(seed)
    best = None
    for picks in product(candidates, repeat=3):
        built = {c.name: c for c in picks}.values()
        within = all(sum(c.needs[r] for c in built) <= budget.limits[r] for r in Resource)
        within &= sum(c.bandwidth_bytes_per_s for c in built) <= 20
        within &= sum(c.power_w for c in built) <= 18
        last = max(
            sum(p.cycles[job] for p, job in zip(picks, "abc", strict=True) if p is c) for c in built
        )
        if within and (best is None or last < best):
            best = last
    assert best is not None
    assert choose(candidates, budget).cycles == best


def test_front_holds_what_nothing_beats():
    """A candidate that is worse everywhere is not on the front; equals stay."""
    candidates, _ = random_case(0)
    worse = Candidate(
        name="worse",
        pes=1,
        cycles={job: n + 1 for job, n in candidates[0].cycles.items()},
        needs=candidates[0].needs,
        bandwidth_bytes_per_s=candidates[0].bandwidth_bytes_per_s,
    )
    front = pareto([*candidates, worse])
    assert worse not in front
    assert candidates[0] in front


def test_nothing_fits_names_the_nearest_candidate():
    """Without any candidate in the budget the least excess is named."""
    candidates, budget = random_case(0)
    tight = Budget(
        name="tiny", limits={**budget.limits, Resource.URAM: 0}, bandwidth_bytes_per_s=20
    )
    with pytest.raises(InfeasiblePlacement, match=r"does not fit on tiny: URAM of 'c\d': needs \d"):
        choose(candidates, tight)
