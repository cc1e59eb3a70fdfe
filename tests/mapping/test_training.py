import pytest

from mapping import map_graph
from simulator.arch.load import load_arch
from simulator.counts import total
from simulator.simulate import simulate
from workloads.gemm import gemm_graph
from workloads.sparsity import NofM
from workloads.zoo import build

UNITS = {
    "sore": {"lanes": 32, "max_n": 16, "max_m": 16},
    "wuve": {"lanes": 32, "adder_latency": 4, "multiplier_latency": 3},
}


def trainer(**training):
    return load_arch(
        "sat-vcu1525",
        precision="fp16",
        adder_latency=4,
        interleave=4,
        training={**UNITS, **training},
    )


def step(method, arch=None, network="resnet9", batch=8, **options):
    machine = arch or trainer()
    graph = build(network, batch=batch, **options).training(method, sparsity=NofM(2, 8))
    return simulate(map_graph(graph, machine).schedule, machine)


def by_phase(result):
    rows = result.per_op
    return {p: int(rows["cycles"][rows["phase"] == p].sum()) for p in set(rows["phase"].tolist())}


@pytest.fixture(scope="module")
def steps():
    return {method: step(method) for method in ("dense", "sr-ste", "bdwp")}


def test_methods_order_as_their_sparse_passes_do(steps):
    dense, ste, bdwp = (by_phase(steps[m]) for m in ("dense", "sr-ste", "bdwp"))
    assert bdwp["ff"] == ste["ff"] < dense["ff"]
    assert bdwp["bp"] < ste["bp"]
    assert bdwp["wu"] == ste["wu"] == dense["wu"]
    assert steps["bdwp"].cycles < steps["sr-ste"].cycles < steps["dense"].cycles


def test_bdwp_speed_up_stays_below_its_bound(steps):
    n, m = 2, 8
    assert steps["dense"].cycles / steps["bdwp"].cycles < 3 / (2 * n / m + 1)


def test_zeros_of_sr_ste_are_gated_in_bp(steps):
    dense, ste = steps["dense"], steps["sr-ste"]
    assert by_phase(ste)["bp"] == by_phase(dense)["bp"]
    assert ste.counts["mac", "fp16", "gated"] > dense.counts["mac", "fp16", "gated"]


def test_update_touches_every_weight_once(steps):
    graph = build("resnet9")
    weights = sum(t.size for t in graph.tensors.values() if t.parameter)
    for result in steps.values():
        assert result.counts["wuve", "update", "full"] == weights


def test_pregeneration_off_costs_cycles_and_traffic(steps):
    late = step("bdwp", trainer(pregenerate=False))
    assert late.cycles > steps["bdwp"].cycles
    assert total(late.counts, "dram", "read") > total(steps["bdwp"].counts, "dram", "read")
    assert late.counts["sore", "compare", "full"] > 0


def test_without_a_transposer_the_bp_mask_costs_a_pass_of_its_own(steps):
    alone = step("bdwp", trainer(transposer=False))
    assert by_phase(alone)["select"] > 0 == by_phase(steps["bdwp"])["select"]
    assert alone.cycles > steps["bdwp"].cycles


def test_interleaving_off_costs_cycles(steps):
    slow = load_arch(trainer(), interleave=1)
    assert step("bdwp", slow).cycles > 2 * steps["bdwp"].cycles


def test_one_dataflow_for_everything_costs_cycles(steps):
    for dataflow in ("os", "ws", "is"):
        assert step("bdwp", load_arch(trainer(), dataflow=dataflow)).cycles >= steps["bdwp"].cycles


def test_sdgp_compresses_the_gradient_of_convolutions_and_linear_layers():
    result = step("sdgp", network="resnet18", image=64, batch=4)
    assert (
        by_phase(result)["bp"]
        < by_phase(step("dense", network="resnet18", image=64, batch=4))["bp"]
    )
    assert result.counts["sore", "compare", "full"] > 0


def test_training_without_units_is_refused_by_name():
    graph = gemm_graph(8, 16, 8).training("dense")
    with pytest.raises(ValueError, match=r"Op 'gemm\.update' needs the arch's `training` units"):
        map_graph(graph, load_arch("systolic"))
