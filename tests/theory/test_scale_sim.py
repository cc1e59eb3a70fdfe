"""Dense folds equal SCALE-Sim's closed forms: an independent check of the array's timing."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mapping import map_graph
from simulator.arch.load import load_arch
from simulator.simulate import simulate
from workloads.gemm import gemm_graph


def ceil(a, b):
    return -(-a // b)


def scale_sim(dataflow, rows, cols, m, k, n):
    """Cycles by SCALE-Sim's formulas (github scalesim-project/SCALE-Sim, compute simulators)."""
    match dataflow:
        case "ws":
            return ceil(k, rows) * ceil(n, cols) * (2 * rows + cols + m - 2)
        case "is":
            return ceil(k, rows) * ceil(m, cols) * (2 * rows + cols + n - 2)
        case "os":
            return ceil(m, rows) * ceil(n, cols) * (rows + cols + k - 2)


sizes = st.integers(1, 3000)
edges = st.integers(1, 256)


@given(st.sampled_from(["os", "ws", "is"]), edges, edges, sizes, sizes, sizes)
def test_ideal_dense_gemm_equals_scale_sim(dataflow, rows, cols, m, k, n):
    arch = load_arch("systolic", rows=rows, cols=cols, dataflow=dataflow, memory="ideal")
    result = simulate(map_graph(gemm_graph(m, k, n), arch).schedule, arch)
    assert result.cycles == scale_sim(dataflow, rows, cols, m, k, n)


def test_alexnet_conv1_equals_the_count_scale_sim_prints_plus_one():
    # 224 x 224 x 3, 11 x 11 x 96, stride 4, WS on 32 x 32: SCALE-Sim prints the last index, and
    # rounds the output size up.
    out = ceil(224 - 11, 4) + 1
    arch = load_arch("systolic", dataflow="ws", memory="ideal")
    graph = gemm_graph(out * out, 11 * 11 * 3, 96)
    assert simulate(map_graph(graph, arch).schedule, arch).cycles == 112283 + 1


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_ideal_free_dataflow_is_never_slower_than_a_bound_one(dataflow):
    bound = load_arch("systolic", dataflow=dataflow, memory="ideal")
    free = load_arch("systolic", memory="ideal")
    graph = gemm_graph(300, 77, 500)
    cycles = [simulate(map_graph(graph, a).schedule, a).cycles for a in (free, bound)]
    assert cycles[0] <= cycles[1]
