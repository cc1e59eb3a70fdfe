"""The mapper against brute force, and its vectorised closed forms against the lowered program."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import assume, given, settings

from mapping.exhaustive import exhaustive
from mapping.lower import lower_gemm
from mapping.objective import Goal
from mapping.problem import Problem
from mapping.space import _array_cycles, candidates, least_needs
from mapping.space import settings as array_settings
from simulator.arch.load import load_arch
from simulator.counts import add, scale
from simulator.engine import program_cycles, unit_cycles
from simulator.schedule import OpSchedule, Schedule, Unit, verify_schedule
from workloads.graph import Gemm, Window, WindowUse

sizes = st.integers(1, 60)

MOST_CANDIDATES = 2000
"""Programs that a brute force lowers for one example."""


@st.composite
def problems(draw):
    """Draw a GEMM, a batched product or a (grouped) convolution, dense or N:M."""
    compressed = draw(st.sampled_from([None, (1, 4), (2, 4), (2, 8), (3, 5)]))
    saved = draw(st.sampled_from([False, False, True]))
    groups = draw(st.sampled_from([1, 1, 2, 7]))
    if draw(st.booleans()):
        gemm = Gemm(groups=groups, m=draw(sizes), k=draw(sizes), n=draw(sizes))
        return Problem(gemm=gemm, window=None, compressed=compressed, saved=saved)
    kernel, stride, pad = draw(st.sampled_from([(1, 2, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0)]))
    size = draw(st.integers(4, 11))
    window = Window(
        batch=draw(st.sampled_from([1, 2, 3])),
        image=(size, size),
        channels=draw(st.integers(1, 9)),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(pad,) * 4,
    )
    pixels = window.batch * window.out[0] * window.out[1]
    taps, features = kernel * kernel * window.channels, draw(st.integers(1, 20))
    use = draw(st.sampled_from(list(WindowUse)))
    m, k, n = {
        WindowUse.GATHER_M: (pixels, taps, features),
        WindowUse.GATHER_K: (taps, pixels, features),
        WindowUse.SCATTER: (pixels, features, taps),
        WindowUse.SCATTER_N: (taps, features, pixels),
    }[use]
    gemm = Gemm(groups=groups, m=m, k=k, n=n)
    return Problem(gemm=gemm, window=window, window_use=use, compressed=compressed, saved=saved)


@st.composite
def machines(draw):
    """Draw a small array whose buffers often force tiling."""
    buffers = {
        name: {"capacity_bytes": draw(st.sampled_from([700, 2000, 9000, 10**6]))}
        for name in ("act_buffer", "weight_buffer", "out_buffer")
    }
    return load_arch(
        "nm-tiny",
        rows=draw(st.integers(1, 5)),
        cols=draw(st.integers(1, 5)),
        macs_per_pe=draw(st.integers(1, 3)),
        overlap=draw(st.booleans()),
        dataflow=draw(st.sampled_from([None, "os", "ws", "is"])),
        dram={"bandwidth_bytes_per_s": draw(st.sampled_from([10**8, 10**9, 10**10]))},
        **buffers,
    )


def exact(arch, problem, setting, shape):
    program, tokens = lower_gemm(arch, problem, setting, shape)
    op = OpSchedule(name="op", kind="gemm", program=program, tokens=tokens)
    verify_schedule(
        Schedule(workload="", workload_digest="", arch_digest="", sparsity="", ops=(op,))
    )
    return op


@given(machines(), problems())
@settings(max_examples=15)
def test_exhaustive_mapping_equals_brute_force_over_its_space(arch, problem):
    found = {s: candidates(arch, s, problem) for s in array_settings(arch, problem)}
    assume(sum(map(len, found.values())) <= MOST_CANDIDATES)
    costs = [
        program_cycles(*lower_gemm(arch, problem, s, tiles.shape(i)))
        for s, tiles in found.items()
        for i in range(len(tiles))
    ]
    if costs:
        assert exhaustive(arch, problem, "op", Goal()).cost == min(costs)


@given(machines(), problems(), st.integers(0, 2**32 - 1))
def test_bound_and_array_cycles_of_every_candidate_agree_with_its_program(arch, problem, seed):
    rng = np.random.default_rng(seed)
    for setting in array_settings(arch, problem):
        found = candidates(arch, setting, problem)
        if not len(found):
            continue
        array = _array_cycles(arch, setting, problem, found.tiles)
        for i in rng.integers(0, len(found), 3):
            op = exact(arch, problem, setting, found.shape(i))
            assert unit_cycles(op)[Unit.ARRAY] == array[i]
            assert program_cycles(op.program, op.tokens) >= found.bound[i]


@given(machines(), problems())
def test_buffer_needs_of_every_candidate_cover_what_its_steps_write(arch, problem):
    """A tile's bytes times its slots never exceed the capacity, read off the lowered program."""
    setting = array_settings(arch, problem)[0]
    found = candidates(arch, setting, problem)
    for i in range(0, len(found), 7):
        op = exact(arch, problem, setting, found.shape(i))
        for name in ("act", "weight"):
            key = (f"{name}_buffer", "write")
            slots = op.tokens[f"{name}.free"]
            for step, _ in op.steps():
                bits = sum(v for (c, a, _), v in step.counts.items() if (c, a) == key)
                assert slots * -(-bits // 8) <= getattr(arch, f"{name}_buffer").capacity_bytes


@given(machines(), problems())
def test_least_needs_fit_whenever_some_tile_does(arch, problem):
    for setting in array_settings(arch, problem):
        if len(candidates(arch, setting, problem)):
            needs = least_needs(arch, setting, problem)
            assert all(0 < need <= size for need, size in needs.values())


@given(machines(), problems())
def test_traffic_of_the_best_mapping_reconciles_with_encoded_sizes(arch, problem):
    """Outputs are written once; every operand is read at least once, whole."""
    setting = array_settings(arch, problem)[0]
    found = candidates(arch, setting, problem)
    if not len(found):
        return
    op = exact(arch, problem, setting, found.shape(0))
    events = add(scale(step.counts, times) for step, times in op.steps())
    gemm = problem.gemm
    shape = found.shape(0)
    if problem.indices["out"] == "umn":
        assert events["dram", "write", "full"] == 8 * gemm.groups * gemm.m * gemm.n
    elif shape.n == gemm.n if problem.rowed == "n" else shape.m == problem.unit_m:
        # An input gradient writes whole images.
        w = problem.window
        pixels = gemm.groups * w.batch * w.image[0] * w.image[1]
        assert events["dram", "write", "full"] == 8 * pixels * w.channels
    stored = problem.weight_values(setting, problem.units, gemm.k, gemm.n)
    values, indices = 8 * stored, setting.index_bits * stored
    read = events["weight_buffer", "write", "full"]
    # Tiles split the reduction in whole groups, so each pass reads exactly the encoded weights.
    assert read % values == 0
    assert events.get(("weight_buffer", "write", "metadata"), 0) * values == read * indices
    act = events["act_buffer", "write", "full"]
    # A saved tensor is read as often as the results it meets are written.
    saved = events["dram", "write", "full"] if problem.saved else 0
    assert events["dram", "read", "full"] == read + act + saved
    offered = sum(v for (c, _, _), v in events.items() if c == "mac")
    assert offered * setting.group >= gemm.macs * setting.kept
