"""The exported machine on an independent AXI4 RAM: names, protocol, and every bit of memory."""

import numpy as np
import pytest
from machine_step import prepare

from rtl.cosim.axi import build_axi
from rtl.cosim.verilated import ToolError
from simulator.arch.load import load_arch

pytestmark = [pytest.mark.rtl, pytest.mark.cocotb, pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return build_axi(load_arch("sat-tiny"), tmp_path_factory.mktemp("axi"))


def assert_exact(machine, step, **options):
    """Run a step and compare all of memory, what must stay as it was included."""
    ran = machine.run(step.program, step.image, **options)
    assert not np.array_equal(step.image, step.image_after)
    np.testing.assert_array_equal(ran.memory, step.image_after)
    return ran


def test_a_step_of_a_perceptron_leaves_numpys_memory_with_and_without_pauses(machine):
    """Pauses on all five channels cost cycles and change no bit."""
    step = prepare(machine.arch, "perceptron")
    free = assert_exact(machine, step)
    paused = assert_exact(machine, step, pause_seed=1)
    assert paused.cycles > free.cycles


CHANGES = {
    "pre-generation": {"training": {"pregenerate": False}},
    "transposer": {"training": {"transposer": False}},
    "offline scheduling, ws": {"dataflow": "ws"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pauses_change_no_bit_when_weights_are_selected_or_placed_otherwise(machine, change):
    """Selections are told ahead of data that come late, and other products use other channels."""
    step = prepare(load_arch("sat-tiny", **change), "perceptron", seed=2)
    assert_exact(machine, step, pause_seed=2)


def test_pauses_change_no_bit_of_strided_convolutions(machine):
    assert_exact(machine, prepare(machine.arch, "convolutions"), pause_seed=3)


def test_a_machine_that_is_not_done_in_time_fails(machine):
    step = prepare(machine.arch, "perceptron")
    with pytest.raises(ToolError, match="The machine is not done after 100 cycles"):
        machine.run(step.program, step.image, limit_cycles=100)
