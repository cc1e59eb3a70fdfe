"""Every mapper against brute force over the whole space, for every objective and memory mode."""

from dataclasses import replace

import numpy as np
import pytest

from mapping.exhaustive import exact_cost, exhaustive
from mapping.greedy import greedy
from mapping.integer import integer
from mapping.least import floor, least_costs, least_counts
from mapping.objective import Goal, Objective, op_cost
from mapping.problem import Problem
from mapping.space import candidates, settings
from mapping.types import NoMapping
from simulator.arch import MemoryMode
from simulator.arch.load import load_arch
from simulator.schedule import OpSchedule
from simulator.simulate import op_events
from workloads.graph import Gemm, Window, WindowUse

BUFFERS = ("act_buffer", "weight_buffer", "out_buffer")


def machine(rng):
    """Return a small array whose buffers often force tiling."""
    flows = [None, "os", "ws", "is"]
    return load_arch(
        "nm-tiny",
        rows=int(rng.integers(1, 5)),
        cols=int(rng.integers(1, 5)),
        macs_per_pe=int(rng.integers(1, 3)),
        overlap=bool(rng.integers(2)),
        dataflow=flows[rng.integers(len(flows))],
        memory=str(rng.choice(list(MemoryMode), p=[0.7, 0.1, 0.2])),
        dram={"bandwidth_bytes_per_s": int(rng.choice([10**8, 10**9, 10**10]))},
        **{name: {"capacity_bytes": int(rng.choice([300, 900, 3000]))} for name in BUFFERS},
    )


def convolution(rng, compressed):
    """Return a convolution, or one of the products of its training step."""
    kernel, stride, pad = [(1, 2, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0)][rng.integers(4)]
    size = int(rng.integers(4, 9))
    window = Window(
        batch=int(rng.integers(1, 3)),
        image=(size, size),
        channels=int(rng.integers(1, 6)),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(pad,) * 4,
    )
    pixels = window.batch * window.out[0] * window.out[1]
    taps, features = kernel * kernel * window.channels, int(rng.integers(1, 13))
    use = list(WindowUse)[rng.integers(4)]
    m, k, n = {
        WindowUse.GATHER_M: (pixels, taps, features),
        WindowUse.GATHER_K: (taps, pixels, features),
        WindowUse.SCATTER: (pixels, features, taps),
        WindowUse.SCATTER_N: (taps, features, pixels),
    }[use]
    gemm = Gemm(groups=int(rng.choice([1, 1, 3])), m=m, k=k, n=n)
    return Problem(gemm=gemm, window=window, window_use=use, compressed=compressed)


def instance(seed):
    """Return machine, problem and goal number `seed`."""
    rng = np.random.default_rng(seed)
    compressed = [None, (1, 4), (2, 4), (2, 8), (3, 5)][rng.integers(5)]
    if rng.integers(2):
        problem = convolution(rng, compressed)
    else:
        m, k, n = (int(size) for size in rng.integers(1, 25, 3))
        gemm = Gemm(groups=int(rng.choice([1, 1, 4])), m=m, k=k, n=n)
        problem = Problem(gemm=gemm, compressed=compressed)
    objective = list(Objective)[seed % len(Objective)]
    arch, problem = machine(rng), replace(problem, saved=rng.random() < 0.3)
    if rng.random() < 0.4:  # tensors that stay on chip, and the room they take
        bits = [int(rng.choice([0, 8, 1200])) for _ in range(2)]
        problem = replace(problem, kept_in=bits[0], kept_out=bits[1])
    return arch, problem, Goal.of(objective, problem.gemm.macs // 3, 17)


def brute_force(arch, problem, goal):
    """Return the least exact cost over all settings and tiles, None if nothing fits."""
    if arch.memory is MemoryMode.IDEAL:
        return min(
            exact_cost(arch, goal, problem, s, problem.whole) for s in settings(arch, problem)
        )
    costs = [
        exact_cost(arch, goal, problem, s, found.shape(i))
        for s in settings(arch, problem)
        for found in [candidates(arch, s, problem)]
        for i in range(len(found))
    ]
    return min(costs, default=None)


def check(seed):
    arch, problem, goal = instance(seed)
    least = brute_force(arch, problem, goal)
    mappers = (exhaustive, integer, greedy)
    if least is None:
        for mapper in mappers:
            with pytest.raises(NoMapping, match="Op 'op' fits no tile in "):
                mapper(arch, problem, "op", goal)
        return
    for mapper in mappers:
        found = mapper(arch, problem, "op", goal)
        assert found.bound <= least <= found.cost, mapper
        again = exact_cost(arch, goal, problem, found.setting, found.shape)
        assert again == found.cost
        if mapper is not greedy:
            assert found.bound == found.cost == least, mapper


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_proving_mappers_equal_brute_force_and_greedy_states_an_honest_bound(first):
    """On random small instances, whatever the objective, memory mode and dataflow."""
    for seed in range(first, first + 10):
        check(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(60, 300, 10))
def test_proving_mappers_equal_brute_force_on_many_more(first):
    """The same, on 240 further instances."""
    for seed in range(first, first + 10):
        check(seed)


def test_proving_mappers_find_the_best_of_the_tiles_that_are_accepted():
    """What a layout refuses is no candidate, and a layout that refuses all is named."""
    arch = load_arch("nm-tiny", **{name: {"capacity_bytes": 300} for name in BUFFERS})
    problem, goal = Problem(gemm=Gemm(m=20, k=16, n=12)), Goal()
    costs = {
        (s, shape): exact_cost(arch, goal, problem, s, shape)
        for s in settings(arch, problem)
        for found in [candidates(arch, s, problem)]
        for shape in map(found.shape, range(len(found)))
    }
    best = min(costs, key=costs.__getitem__)
    refused = {pair for pair, cost in costs.items() if cost == costs[best]}
    least = min(cost for pair, cost in costs.items() if pair not in refused)
    for mapper in (exhaustive, integer, greedy):
        found = mapper(arch, problem, "op", goal, lambda *pair: pair not in refused)
        assert (found.setting, found.shape) not in refused
        assert found.cost == least or mapper is greedy
        with pytest.raises(NoMapping, match=r"^Op 'op': none of \d+ tiles that fit is accepted$"):
            mapper(arch, problem, "op", goal, lambda *_: False)


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_counts_and_bounds_of_candidates_never_exceed_their_programs(first):
    """Closed-form events are at most the program's, and equal them where no window overlaps."""
    for seed in range(first, first + 20):
        arch, problem, goal = instance(seed)
        rng = np.random.default_rng(seed)
        for setting in settings(arch, problem):
            found = candidates(arch, setting, problem)
            if not len(found):
                continue
            tiles = found.tiles
            counts = least_counts(arch, setting, problem, tiles, goal.macs_effectual)
            steady = replace(arch, memory=MemoryMode.MODELLED)
            bounds = least_costs(steady, goal, setting, problem, tiles, found.bound)
            least = floor(arch, goal, setting, problem)
            for i in rng.integers(0, len(found), 3):
                op = lowered_op(arch, problem, setting, found.shape(i), goal)
                events = op_events(op)
                for event, number in counts.items():
                    assert number[i] <= events.get(event, 0), event
                if problem.window is None and not goal.vector_ops:
                    assert {e: n[i] for e, n in counts.items() if n[i]} == {
                        e: n for e, n in events.items() if n
                    }
                if arch.memory is not MemoryMode.IDEAL:
                    cost = op_cost(arch, goal.objective, op)
                    assert bounds[i] <= cost
                    assert least <= cost


def lowered_op(arch, problem, setting, shape, goal):
    from mapping.lower import lower_gemm

    program, tokens = lower_gemm(arch, problem, setting, shape)
    return OpSchedule(
        name="op",
        kind="gemm",
        program=program,
        tokens=tokens,
        macs_effectual=goal.macs_effectual,
        counts=goal.fixed,
    )


def test_a_selection_on_load_is_counted_exactly():
    """Dense weights leave memory, compressed ones reach the buffer, and every group is compared."""
    arch = load_arch("sat-vcu1525", dataflow="ws")
    problem = Problem(gemm=Gemm(m=96, k=200, n=70), compressed=(2, 8), select=True)
    setting = settings(arch, problem)[0]
    found = candidates(arch, setting, problem)
    counts = least_counts(arch, setting, problem, found.tiles, 0)
    assert ("sore", "compare", "full") in counts
    for i in range(0, len(found), 29):
        goal = Goal(objective=Objective.ENERGY)
        events = op_events(lowered_op(arch, problem, setting, found.shape(i), goal))
        assert {e: n[i] for e, n in counts.items() if n[i]} == {
            e: n for e, n in events.items() if n
        }


def test_integer_out_of_time_says_how_far_it_may_be_from_best():
    """The incumbent stays exact and the bound holds, though nothing was proved."""
    arch = load_arch("sat-vcu1525")
    problem = Problem(gemm=Gemm(m=3136, k=64, n=256))
    best = exhaustive(arch, problem, "op", Goal())
    found = integer(arch, problem, "op", Goal(), time_limit_s=0)
    assert found.bound < best.cost <= found.cost
    assert found.bound > 0.5 * best.cost
