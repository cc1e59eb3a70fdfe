"""FPGA resources: sums of synthesised parts, monotone, and refused where there is no synthesis."""

from dataclasses import replace
from itertools import pairwise

import pytest

from cost_models.fpga import SOURCES, FpgaResources, fpga_resources
from cost_models.fpga.nm_array import COLUMN, CONTROL, ROW, ROW_BITS, SORE, WUVE
from cost_models.fpga.parts import LANES, VECTOR_UNIT
from simulator.arch import Precision
from simulator.arch.load import load_arch

SAT = load_arch("sat-vcu1525")
INT8 = replace(SAT, precision=Precision.INT8, adder_latency=1, interleave=1, training=None)


def test_the_preset_is_the_sum_of_its_synthesised_parts():
    """32 x 32 PEs of groups of 16, edges, control, lanes of three units, three buffers."""
    assert (LANES, SAT.max_m * SAT.operand_bits) == (4, ROW_BITS)
    units = (VECTOR_UNIT + SORE[16] + WUVE).times(8)
    array = FpgaResources(lut=3520, ff=1435, dsp=1).times(1024) + (ROW + COLUMN).times(32)
    assert fpga_resources(SAT) == array + CONTROL + units + FpgaResources(uram=3 * 57)
    assert (VECTOR_UNIT.dsp, WUVE.dsp) == (4, 24)


def test_a_machine_without_training_units_has_none():
    """SORE and WUVE are the difference."""
    less = fpga_resources(replace(SAT, training=None))
    assert fpga_resources(SAT) == less + (SORE[16] + WUVE).times(8)


def test_parts_are_counted_in_whole_resources():
    """A share of a part is rounded up, figure by figure, and no part is nothing."""
    part = FpgaResources(lut=10, ff=7, dsp=4)
    assert part.times(3, 4) == FpgaResources(lut=8, ff=6, dsp=3)
    assert part.times(0) == FpgaResources()
    assert part + part == part.times(2)


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        *((SAT, name) for name in ("rows", "cols", "max_m", "vector_lanes", "adder_latency")),
        *((INT8, name) for name in ("rows", "cols", "max_m", "vector_lanes")),
    ],
)
def test_more_never_takes_less(arch, name):
    """A larger part takes at least as much of everything, whichever was synthesised."""
    found = [
        fpga_resources(replace(arch, **{name: n}, training=None)) for n in (1, 2, 3, 4, 5, 7, 8)
    ]
    for less, more in pairwise(found):
        assert all(getattr(less, name) <= getattr(more, name) for name in SOURCES)


def test_a_part_between_two_counts_as_the_larger():
    """A PE of groups of 6 is as large as one of 8; a multiplier more is a DSP more."""
    six, eight = (fpga_resources(replace(INT8, max_m=m)) for m in (6, 8))
    edges = [ROW.times(m * 8, ROW_BITS).lut for m in (6, 8)]
    assert eight.lut - six.lut == 32 * (edges[1] - edges[0])
    two = fpga_resources(replace(INT8, max_m=8, macs_per_pe=2))
    assert two.dsp - eight.dsp == 1024


@pytest.mark.parametrize(
    ("arch", "sentence"),
    [
        (
            load_arch("flex-tiny"),
            "known of nm_array, pe_grid and dsp_chain machines, not of a FlexDpe",
        ),
        (replace(INT8, max_m=64), "No int8 PE with max_m 64, macs_per_pe 1 and 1 sums in flight"),
        (replace(SAT, interleave=16), "No fp16 PE with max_m 16, macs_per_pe 1 and 16 sums"),
        (
            replace(SAT, training=replace(SAT.training, sore=replace(SAT.training.sore, max_m=32))),
            "No SORE with max_m 32 was synthesised",
        ),
    ],
)
def test_what_was_not_synthesised_is_refused(arch, sentence):
    """No figure is better than a wrong one."""
    with pytest.raises(ValueError, match=sentence):
        fpga_resources(arch)


def test_every_figure_names_its_source():
    assert set(SOURCES) == set(FpgaResources.__slots__)
