"""Widths of the RTL's ports."""

import pytest
from amaranth.hdl import Shape

from rtl import shapes
from rtl.testing import bare_array
from simulator.arch import Dataflow

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
