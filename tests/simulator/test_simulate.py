from dataclasses import replace

import numpy as np
import pytest

from mapping import map_graph
from simulator.arch.load import load_arch
from simulator.counts import total
from simulator.result import STALLS
from simulator.simulate import simulate
from workloads.gemm import gemm_graph
from workloads.sparsity import Balanced, Dense, NofM, Unstructured
from workloads.zoo import build


def run(graph, arch="sat-vcu1525", **overrides):
    machine = load_arch(arch, **overrides)
    return simulate(map_graph(graph, machine).schedule, machine)


@pytest.fixture(scope="module")
def resnet18():
    return run(build("resnet18").sparsify(NofM(2, 8)))


def test_compute_and_stalls_sum_to_the_cycles_of_every_operator(resnet18):
    ops = resnet18.per_op
    parts = ops["array_busy"] + sum(ops[f"stall_{cause}"] for cause in STALLS)
    assert (parts == ops["cycles"]).all()
    assert all((ops[f"stall_{cause}"] >= 0).all() for cause in STALLS)
    assert sum(cycles for _, cycles, _ in resnet18.bottlenecks()) == resnet18.cycles


def test_cycles_and_counts_are_sums_over_operators(resnet18):
    assert resnet18.cycles == resnet18.per_op["cycles"].sum()
    macs = resnet18.counts["mac", "fp16", "full"]
    assert macs == resnet18.macs_effectual == resnet18.per_op["macs_effectual"].sum()
    read = total(resnet18.counts, "dram", "read")
    assert read == 8 * resnet18.per_op["dram_read_bytes"].sum()


def test_effectual_macs_equal_the_sum_over_the_mask():
    mask_rng = np.random.default_rng(3)
    for sparsity in (NofM(2, 8), NofM(3, 5), Unstructured(0.37), Balanced(8, 0.25)):
        graph = gemm_graph(40, 53, 31, weight=sparsity)
        mask = sparsity.sample((53, 31), mask_rng, axis=-2)
        assert run(graph).macs_effectual == 40 * mask.sum()


def test_utilisation_never_exceeds_one():
    for arch in ("sat-vcu1525", "systolic", "nm-tiny"):
        for graph in (gemm_graph(4096, 4096, 4096), gemm_graph(1, 1, 1)):
            result = run(graph, arch, memory="ideal")
            assert 0 < result.utilisation <= 1
            assert (result.per_op["utilisation"] <= 1).all()


def test_more_bandwidth_or_buffer_never_costs_cycles():
    graph = build("resnet9")
    cycles = [
        run(
            graph, dram={"bandwidth_bytes_per_s": 10**9 * gb}, act_buffer={"capacity_bytes": size}
        ).cycles
        for gb, size in ((1, 2**16), (4, 2**16), (4, 2**20), (64, 2**22))
    ]
    assert cycles == sorted(cycles, reverse=True)


def test_memory_modes_are_ordered_ideal_steady_modelled():
    graph = gemm_graph(300, 900, 200)
    ideal, steady, modelled = (
        run(graph, memory=mode, dataflow="os").cycles for mode in ("ideal", "steady", "modelled")
    )
    assert ideal <= steady <= modelled


def test_density_one_equals_dense_but_for_the_index_bits():
    arch = {"memory": "ideal", "dataflow": "os"}
    dense = run(gemm_graph(64, 64, 64), **arch)
    full = run(gemm_graph(64, 64, 64, weight=NofM(8, 8)), **arch)
    assert (full.cycles, full.macs_effectual) == (dense.cycles, dense.macs_effectual)


def test_sparse_weights_never_cost_more_cycles_than_dense_ones():
    """A reduction barely longer than a group is faster dense: the mapper may store it so."""
    dense, sparse = (
        run(gemm_graph(3000, 9, 1, groups=5, weight=w), rows=4, cols=4, dataflow="ws")
        for w in (Dense(), NofM(7, 8))
    )
    assert sparse.cycles <= dense.cycles


def test_fewer_kept_values_never_cost_cycles():
    for dataflow in ("os", "ws", "is"):
        cycles = [
            run(gemm_graph(100, 256, 80, weight=NofM(n, 8)), dataflow=dataflow).cycles
            for n in (1, 2, 4, 8)
        ]
        assert cycles == sorted(cycles)


def test_batch_scales_effectual_macs_exactly():
    one, four = (run(build("resnet18", batch=b).sparsify(NofM(2, 8))) for b in (1, 4))
    assert four.macs_effectual == 4 * one.macs_effectual
    assert one.cycles < four.cycles <= 4 * one.cycles


def test_unskippable_structure_runs_at_dense_time_and_says_so():
    plain, sparse = (run(gemm_graph(64, 512, 64, weight=w)) for w in (Dense(), Unstructured(0.2)))
    assert sparse.cycles == plain.cycles
    assert sparse.counts["mac", "fp16", "gated"] > plain.counts["mac", "fp16", "gated"]
    assert any("run at dense time, zeros gated" in note for note in sparse.notes)


def test_depthwise_convolutions_fill_the_array_by_packing_groups():
    result = run(build("mobilenet-v1"))
    depthwise = result.per_op[result.per_op["kind"] == "depthwise"]
    assert set(depthwise["nm"]) == {"1:16 x16"}
    assert run(build("mobilenet-v1"), max_m=1).cycles > 2 * result.cycles


def test_weights_that_round_to_zero_are_counted_as_zeros_and_said_so():
    graph = gemm_graph(4, 8, 2)
    values = np.full((8, 2), 2.0**-26, dtype=np.float32)
    values[0] = 1
    result = run(replace(graph, values={"weight": values}))
    assert result.macs_effectual == 4 * 2
    assert any("87.5% of the weights that are not zero round" in n for n in result.notes)


def test_groups_beyond_the_array_run_at_dense_time():
    result = run(gemm_graph(64, 512, 64, weight=NofM(2, 32)))
    assert any("N:M groups of at most M = 16" in note for note in result.notes)


def test_result_is_reproducible_and_compares_by_digest():
    first, second = (run(build("resnet9").sparsify(NofM(2, 8))) for _ in range(2))
    assert first == second
    assert first.to_json() == second.to_json()
    assert first != run(build("resnet9"))


def test_schedule_of_another_machine_is_refused():
    schedule = map_graph(gemm_graph(4, 4, 4), load_arch("nm-tiny")).schedule
    with pytest.raises(ValueError, match="was made for another machine"):
        simulate(schedule, load_arch("systolic"))


def test_operator_that_fits_no_buffer_is_named_with_need_and_size():
    with pytest.raises(
        ValueError, match=r"Op 'gemm' fits no tile in out_buffer: .* needs \d+ bytes, .* is 16"
    ):
        run(gemm_graph(64, 64, 64), out_buffer={"capacity_bytes": 16})


def test_operator_that_fits_each_buffer_but_not_all_is_told_so():
    """Tiles that spare one buffer fill another: the sentence has every need and size."""
    sizes = {"act_buffer": 8, "weight_buffer": 9, "out_buffer": 33}
    buffers = {name: {"capacity_bytes": size} for name, size in sizes.items()}
    sentence = (
        "Op 'gemm' fits no tile in all buffers at once; the smallest tile for each alone needs, "
        "in bytes, 8 of 8 of act_buffer, 8 of 9 of weight_buffer, 32 of 33 of out_buffer"
    )
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        run(gemm_graph(64, 64, 64), "nm-tiny", **buffers)


def test_unknown_mapper_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown mapper 'magic'; known: exhaustive"):
        map_graph(gemm_graph(4, 4, 4), load_arch("nm-tiny"), mapper="magic")


def test_to_dataframe_has_one_row_an_operator(resnet18):
    frame = resnet18.to_dataframe()
    assert len(frame) == len(resnet18.per_op)
    assert int(frame["cycles"].sum()) == resnet18.cycles
