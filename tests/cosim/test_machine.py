"""A whole training step on the RTL: the model's cycles, numpy's bits."""

import pytest
from machine_step import model_cycles, train

from rtl.cosim.machine import build
from simulator.arch.load import load_arch

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(load_arch("sat-tiny"), tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def whole(model):
    return train(model, "perceptron")


def assert_exact(outcome):
    """Cycles of the run and of every operator, busy cycles by unit, and every tensor's bits."""
    assert outcome.ran.cycles == outcome.result.cycles
    assert outcome.ran.op_cycles == model_cycles(outcome)
    rows = outcome.result.per_op
    assert outcome.ran.busy["dma"] == rows["dma_cycles"].sum()
    assert outcome.ran.busy["array"] == rows["array_cycles"].sum()
    others = sum(outcome.ran.busy[unit] for unit in ("vector", "sore", "wuve"))
    assert others == rows["vector_cycles"].sum()
    assert outcome.wrong == []


def test_a_step_of_a_perceptron_is_exact(whole):
    """Every tensor that reaches memory is compared, updated weights and selections included."""
    assert_exact(whole)
    names = set(whole.program.regions)
    assert {"fc2.weight.next:ff", "fc2.weight.next:bp", "fc1.weight.next:dense"} <= names
    assert {"fc2.weight.master", "fc2.weight.momentum", "fc2.weight.grad"} <= names


def test_a_step_of_strided_convolutions_is_exact(model):
    """Windows gather with padding, input gradients scatter, and tiles cut every dimension."""
    assert_exact(train(model, "convolutions"))


def test_a_dense_step_is_exact_and_slower(model, whole):
    dense = train(model, "perceptron", method="dense")
    assert_exact(dense)
    assert dense.ran.cycles > whole.ran.cycles


OFF = {
    "pre-generation": {"training": {"pregenerate": False}},
    "transposer": {"training": {"transposer": False}},
    "offline scheduling, ws": {"dataflow": "ws"},
    "offline scheduling, os": {"dataflow": "os"},
    "offline scheduling, is": {"dataflow": "is"},
}


@pytest.mark.parametrize("change", OFF.values(), ids=OFF)
def test_each_optimisation_off_costs_the_model_and_the_rtl_the_same(model, whole, change):
    """Both without it are exact, so the difference is; and it is a cost."""
    without = train(model, "perceptron", load_arch("sat-tiny", **change))
    assert_exact(without)
    assert without.ran.cycles - whole.ran.cycles == without.result.cycles - whole.result.cycles > 0


def test_results_depend_on_the_values(model, whole):
    """Another seed takes as long and leaves other bits: nothing is compared with itself."""
    other = train(model, "perceptron", seed=2)
    assert_exact(other)
    assert other.ran.cycles == whole.ran.cycles
    assert (other.ran.memory != whole.ran.memory).any()


def test_a_bus_that_makes_the_machine_wait_costs_cycles_alone(model, whole):
    """Addresses and write data held up at random leave every bit as it is."""
    shaken = train(model, "perceptron", shake=True)
    assert shaken.wrong == []
    assert shaken.ran.cycles > whole.ran.cycles


@pytest.mark.long
@pytest.mark.parametrize("change", OFF.values(), ids=OFF)
def test_each_optimisation_off_is_exact_on_convolutions(model, change):
    assert_exact(train(model, "convolutions", load_arch("sat-tiny", **change)))


@pytest.mark.long
@pytest.mark.parametrize("change", [{"interleave": 1}, {"overlap": False}, {"adder_latency": 4}])
def test_other_arrays_are_exact_and_slower(model, tmp_path, change):
    """Interleaving off, overlap off, and an adder with more stages than sums in flight."""
    arch = load_arch("sat-tiny", **change)
    other = build(arch, tmp_path)
    for network in ("perceptron", "convolutions"):
        without = train(other, network)
        assert_exact(without)
        assert without.ran.cycles > train(model, network).ran.cycles
