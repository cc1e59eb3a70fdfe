"""Widths of the RTL's ports."""

import pytest
from amaranth.hdl import Shape

from rtl import shapes
from rtl.testing import bare_array
from simulator.arch import Dataflow, Precision

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("max_m", "macs_per_pe", "group_bits", "pair_bits"), [(1, 1, 8, 8), (5, 3, 40, 11)]
)
def test_lanes_hold_a_group_or_the_slots_pairs(max_m, macs_per_pe, group_bits, pair_bits):
    arch = bare_array(2, 3, max_m=max_m, macs_per_pe=macs_per_pe)
    assert shapes.side_lane(arch).size == 1 + max(group_bits, macs_per_pe * pair_bits)
    assert shapes.top_lane(arch).size == 1 + macs_per_pe * pair_bits
    assert shapes.side_beat(arch).size == 2 * shapes.side_lane(arch).size
    assert shapes.out_beat(arch).size == 3 * 32


def test_fp16_lanes_hold_16_bit_operands_and_32_bit_sums():
    arch = bare_array(2, 3, max_m=5, precision=Precision.FP16, adder_latency=4, interleave=3)
    assert shapes.side_lane(arch).size == 1 + 5 * 16
    assert shapes.top_lane(arch).size == 1 + 16 + 3
    assert shapes.out_beat(arch).size == 3 * 32
    assert shapes.held_sums(arch).size == 3 * 32
    assert not Shape.cast(shapes.operand(arch)).signed


def test_int8_element_has_no_drain_chain_of_its_own():
    half = bare_array(1, 1, precision=Precision.FP16)
    assert "fresh" in shapes.nm_pe(bare_array(1, 1))
    assert {"drain_in", "drain_out"} <= shapes.nm_pe(half).keys() - shapes.nm_pe(bare_array(1, 1))


def test_job_settings_hold_the_largest_group():
    layout = shapes.job(bare_array(1, 1, max_m=64))
    assert layout["group"].width == 7
    assert layout["length"].width == shapes.LENGTH_BITS


def test_every_dataflow_has_its_code():
    codes = {shapes.Mode.of(flow).value for flow in Dataflow}
    assert codes == {0, 1, 2}


def test_pair_slots_round_up():
    arch = bare_array(1, 1, max_m=7, macs_per_pe=3)
    assert shapes.pair_slots(arch) == 3
    assert Shape.cast(shapes.row_control(arch)["pick"].shape).width == 2
