"""Roofline: limits and points of hand-made results."""

import pytest

from cost_models import machine_roofline, roofline


def test_machine_roofline_of_a_small_array_has_literal_limits(make_arch):
    limits = machine_roofline(make_arch(rows=4, cols=8, macs_per_pe=2))
    assert limits.peak_macs_per_s == 4 * 8 * 2 * 200_000_000
    assert limits.bandwidth_bytes_per_s == 1_600_000_000
    assert limits.ridge_macs_per_byte == 8.0


@pytest.mark.parametrize(("intensity", "roof"), [(0.5, 8e8), (2.0, 3.2e9), (100.0, 3.2e9)])
def test_attainable_is_bandwidth_below_the_ridge_and_peak_above(make_arch, intensity, roof):
    assert machine_roofline(make_arch()).attainable_macs_per_s(intensity) == roof


def test_roofline_point_states_effectual_and_dense_throughput(make_result):
    op = {"cycles": 200, "macs_dense": 3200, "macs_effectual": 800, "dram_read_bytes": 300,
          "dram_write_bytes": 100}  # fmt: skip
    (point,) = roofline(make_result(ops=[op]))
    assert point.macs_per_byte == 2.0
    assert point.effectual_macs_per_s == pytest.approx(800 / 1e-6, rel=1e-12)
    assert point.dense_macs_per_s == pytest.approx(3200 / 1e-6, rel=1e-12)


def test_roofline_leaves_out_operators_without_macs_or_traffic(make_result):
    ops = [{"macs_effectual": 10}, {"dram_read_bytes": 10}, {}]
    assert roofline(make_result(ops=ops)) == ()
