"""Machines in closed form: against element-by-element oracles, limits, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mapping import map_graph
from simulator.arch.load import load_arch
from simulator.models.product import least_packed
from simulator.simulate import simulate
from workloads.gemm import gemm_graph
from workloads.sparsity import Balanced, Block, ConstantFanIn, Explicit, NofM, Unstructured

MODELS = ("stc-like", "stc-flexible", "stc-dual", "dstc-like", "sigma-like", "dense-tpu")
UNBOUND = {"port_bytes_per_cycle": 10**6, "accumulations_per_cycle": 10**6, "memory": "ideal"}
SKIPPING = ("stc-flexible", "stc-dual", "dstc-like", "sigma-like")


def run(arch, m, k, n, weight=None, activation=None, groups=1, **overrides):
    machine = load_arch(arch, **overrides)
    graph = gemm_graph(m, k, n, weight=weight, activation=activation, groups=groups)
    return simulate(map_graph(graph, machine).schedule, machine)


def masks(rng, m, k, n, density):
    return rng.random((m, k)) < density, rng.random((k, n)) < density


# --- OuterProduct ---------------------------------------------------------------------------


def outer_product_oracle(act, weight, swap):
    """Walk every tile of 4 x 2 vectors of 32, every unit and every position."""
    (m, k), n = act.shape, weight.shape[1]
    total = 0
    for row in range(0, m, 128):
        for col in range(0, n, 64):
            units = []
            for i in range(row, min(m, row + 128), 32):
                for j in range(col, min(n, col + 64), 32):
                    time = 0
                    for p in range(k):
                        a, b = int(act[i : i + 32, p].sum()), int(weight[p, j : j + 32].sum())
                        fixed = -(-a // 8) * -(-b // 16)
                        time += min(fixed, -(-a // 16) * -(-b // 8)) if swap else fixed
                    units.append(time)
            total += max(units)
    return total


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("shape", [(150, 9, 70), (32, 1, 32), (5, 20, 100), (128, 6, 64)])
def test_dstc_with_masks_counts_every_pair_of_vectors(shape, swap):
    act, weight = masks(np.random.default_rng(1), *shape, 0.4)
    done = run(
        "dstc-like",
        *shape,
        Explicit(weight),
        Explicit(act),
        swap_sides=swap,
        **UNBOUND,
    )
    assert done.cycles == outer_product_oracle(act, weight, swap)
    assert done.macs_effectual == int((act.astype(int) @ weight.astype(int)).sum())


@pytest.mark.parametrize("structure", [Unstructured(0.3), NofM(1, 4), ConstantFanIn(9000)])
def test_dstc_expectation_is_the_mean_over_masks(structure):
    k = 40_000
    mask = structure.sample((k, 32), np.random.default_rng(2))
    drawn = run("dstc-like", 32, k, 32, weight=Explicit(mask), **UNBOUND)
    expected = run("dstc-like", 32, k, 32, weight=structure, **UNBOUND)
    assert expected.cycles == pytest.approx(drawn.cycles, rel=0.01)


@pytest.mark.parametrize(
    ("structure", "law"),
    [(NofM(1, 2), stats.binom(32, 0.5)), (Unstructured(0.5), stats.hypergeom(64, 32, 32))],
)
def test_dstc_small_tensors_follow_their_own_law(structure, law):
    # Dense activations fill four narrow steps of eight lanes, or two wide ones of sixteen.
    x = np.arange(33)
    mean = float((law.pmf(x) * np.minimum(4 * -(-x // 16), 2 * -(-x // 8))).sum())
    found = run("dstc-like", 128_000, 2, 32, weight=structure, **UNBOUND)
    assert found.cycles == np.ceil(round(2000 * mean, 6))


def test_dstc_accumulators_bound_products_and_drain():
    done = run("dstc-like", 128, 4, 64, accumulations_per_cycle=16)
    assert done.cycles == (128 * 4 * 64 + 128 * 64) // (8 * 16)


def test_dstc_groups_take_as_many_times_as_long():
    act = np.random.default_rng(3).random((40, 12)) < 0.5
    one = run("dstc-like", 40, 12, 20, activation=Explicit(act), memory="ideal")
    many = run("dstc-like", 40, 12, 20, activation=Explicit([act] * 3), groups=3, memory="ideal")
    assert many.array_busy == 3 * one.array_busy


# --- FlexDpe --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 300, 50), (7, 128, 9), (300, 5, 2), (64, 640, 1)])
def test_sigma_with_masks_streams_each_slice_by_its_own_count(shape):
    m, k, _ = shape
    _, weight = masks(np.random.default_rng(4), *shape, 0.3)
    small = {"dpes": 8, "dpe_size": 16, "loads_per_cycle": 4, "dataflow": "ws"}
    passes = sum(-(-int(weight[p : p + 16].sum()) // 128) for p in range(0, k, 16))
    nonzeros = int(weight.sum())
    expected = -(-nonzeros // 4) + m * passes + 7 * -(-nonzeros // 128)
    assert run("sigma-like", *shape, weight=Explicit(weight), **small).cycles == expected


def test_sigma_keeps_the_faster_operand_unless_bound():
    size = {"weight": Unstructured(0.2), "activation": Unstructured(0.7)}
    bound = [run("sigma-like", 300, 700, 90, **size, dataflow=flow).cycles for flow in ("ws", "is")]
    free = run("sigma-like", 300, 700, 90, **size)
    assert free.cycles == min(bound) < max(bound)
    assert free.per_op["dataflow"][0] == ("ws", "is")[bound.index(min(bound))]


def test_sigma_reduction_of_half_a_million_needs_no_mask():
    done = run("sigma-like", 1024, 500_000, 16, activation=Unstructured(0.2), dataflow="is")
    nonzeros = 1024 * 500_000 // 5
    slices = 3906 * 2 + 1  # 26,214 non-zeros in a whole slice, 6,554 in the last
    assert done.cycles == nonzeros // 128 + 16 * slices + 14 * (nonzeros // 16384)


def test_sigma_uneven_slices_hold_every_nonzero():
    done = run("sigma-like", 1, 384, 1, weight=Explicit(np.eye(384, 1)), dataflow="ws")
    assert done.cycles == 1 + 1 + 14
    even = run("sigma-like", 1, 384, 1, weight=Unstructured(1 / 384), dataflow="ws")
    assert even.cycles == done.cycles


# --- StationaryArray ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1, 1), 1 + 128 + 1),
        ((129, 128, 300), 2 * (128 + 128 + 300)),
        ((300, 129, 128), 2 * (128 + 128 + 300)),
        ((300, 64, 600), min(5 * (64 + 128 + 300), 3 * (64 + 128 + 600))),
    ],
)
def test_tpu_folds_cost_load_columns_and_stream(size, expected):
    assert run("dense-tpu", *size).cycles == expected


# --- TensorCore -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "quota"),
    [
        (NofM(2, 4), "2:4"),
        (NofM(1, 2), "2:4"),
        (NofM(2, 8), "2:4"),
        (NofM(1, 3), "2:4"),
        (NofM(0, 4), "2:4"),
        (Balanced(8, 0.25), "2:4"),
        (ConstantFanIn(2), "2:4"),
        (NofM((1, 2), 4), "2:4"),
        (NofM(3, 4), "dense"),
        (NofM(3, 8), "dense"),
        (NofM(2, 3), "dense"),
        (Unstructured(0.1), "dense"),
        (Block((4, 4), 0.5), "dense"),
    ],
)
def test_stc_runs_what_fits_two_of_four_at_that_quota(weight, quota):
    done = run("stc-like", 256, 240, 128 if not isinstance(weight, NofM) else 2, weight=weight)
    assert done.per_op["nm"][0] == quota
    assert bool(done.notes) == (quota == "dense")


def test_machine_that_keeps_everything_fits_every_quota():
    done = run("stc-like", 8, 30, 2, weight=NofM(2, 3), kept=2, max_m=2)
    assert done.per_op["nm"][0] == "2:2"


def test_flexible_takes_any_quota_up_to_its_limit():
    time = {
        m: run("stc-flexible", 128, 4160, 64, weight=NofM(1, m)).array_busy for m in (4, 64, 65)
    }
    assert time == {4: 8 * 1040, 64: 8 * 65, 65: 8 * 4160}


def test_tensor_core_last_group_keeps_what_it_can_hold():
    time = {k: run("stc-like", 128, k, 64, weight=NofM(2, 4)).array_busy // 8 for k in (4, 5, 6, 7)}
    assert time == {4: 2, 5: 3, 6: 4, 7: 4}


def test_tensor_core_port_delivers_every_operand_once_a_tile():
    done = run("stc-dual", 130, 64, 70, NofM(1, 8), Unstructured(0.25), port_bytes_per_cycle=3)
    act_bits, weight_bits = 130 * 64 * (8 // 4 + 1), 70 * 64 * (8 // 8 + 1)
    bits = 2 * act_bits + 2 * weight_bits  # two tiles either way
    assert done.cycles == -(-bits // 24)


def test_tensor_core_single_row_is_bound_by_memory():
    done = run("stc-like", 1, 4096, 4096)
    assert done.cycles == (4096 * 4096 + 4096 + 4096) // 32
    assert done.per_op["stall_bandwidth"][0] > 0


# --- all of them ----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    arch=st.sampled_from(MODELS),
    m=st.integers(1, 300),
    k=st.integers(1, 300),
    n=st.integers(1, 300),
    density=st.sampled_from([0, 0.01, 0.3, 0.5, 1]),
    memory=st.sampled_from(["ideal", "steady", "modelled"]),
)
def test_model_results_are_bounded_and_add_up(arch, m, k, n, density, memory):
    operands = {"weight": Unstructured(density), "activation": Unstructured(density)}
    done = run(arch, m, k, n, **operands, memory=memory)
    dense = run(arch, m, k, n, memory=memory)
    assert 0 <= done.cycles <= dense.cycles
    assert 0 <= done.utilisation <= 1
    assert dense.macs_effectual == m * k * n
    assert sum(cycles for _, cycles, _ in done.bottlenecks()) == done.cycles
    assert all(cycles >= 0 for _, cycles, _ in done.bottlenecks())
    assert all(count >= 0 for count in done.counts.values())


@pytest.mark.parametrize("arch", SKIPPING)
@pytest.mark.parametrize("operand", ["weight", "activation"])
def test_model_time_grows_with_density(arch, operand):
    times = [run(arch, 512, 512, 512, **{operand: NofM(n, 16)}).cycles for n in range(17)]
    assert times == sorted(times)
    if operand == "weight" or not arch.startswith("stc"):
        assert times[4] < times[16]


@pytest.mark.parametrize("arch", MODELS)
def test_model_density_one_equals_dense(arch):
    one = run(arch, 200, 300, 100, Unstructured(1), Unstructured(1))
    assert one.counts == run(arch, 200, 300, 100).counts
    assert one.cycles == run(arch, 200, 300, 100).cycles


@pytest.mark.parametrize("arch", ["stc-like", "stc-flexible", "dense-tpu"])
def test_model_says_which_zeros_buy_nothing(arch):
    done = run(arch, 64, 64, 64, Unstructured(0.5), Unstructured(0.25))
    weights, activations = done.notes
    assert weights.startswith("unstructured:0.5 weights run at dense time, since the machine ")
    assert activations.startswith("unstructured:0.25 activations run at dense time, since the ")
    assert done.cycles == run(arch, 64, 64, 64).cycles


def test_least_packed_is_plain_when_a_bit_a_position_does_not_pay():
    assert least_packed(64, 60, 8).bits == least_packed(64, 56, 8).bits == 64 * 8
    assert least_packed(64, 55, 8).bits == 55 * 8 + 64
    assert least_packed(64, 0, 8).metadata_bits == 64


@pytest.mark.parametrize(
    ("arch", "overrides", "sentence"),
    [
        ("sigma-like", {"dataflow": "os"}, "FlexDpe dataflow must be ws or is .*, not os"),
        ("dense-tpu", {"dataflow": "os"}, "StationaryArray dataflow must be ws or is .*, not os"),
        ("sigma-like", {"dpes": 0}, "FlexDpe dpes must be at least 1, not 0"),
        ("dense-tpu", {"cols": -1}, "StationaryArray cols must be at least 1, not -1"),
        ("dstc-like", {"vector": 0}, "OuterProduct vector must be at least 1, not 0"),
        ("stc-like", {"vector_lanes": 0}, "TensorCore vector_lanes must be at least 1, not 0"),
        ("stc-like", {"kept": 5}, "TensorCore kept must be 1 to max_m = 4, not 5"),
        (
            "stc-like",
            {"act_bytes_per_cycle": 3},
            "act_bytes_per_cycle must share the 1024 .* not 3",
        ),
        ("stc-like", {"precision": "int4"}, "precision is 'int4'; it must be int8 or"),
    ],
)
def test_model_parameters_out_of_range_are_refused(arch, overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_arch(arch, **overrides)


def test_tensor_core_of_wider_operands_and_port_keeps_its_tile_and_time():
    wide = {"act_bytes_per_cycle": 32, "weight_bytes_per_cycle": 16, "port_bytes_per_cycle": 84}
    fp16 = {"precision": "fp16", **wide, "memory": "ideal"}
    assert run("stc-like", 256, 64, 128, **fp16).cycles == run("stc-like", 256, 64, 128).cycles
