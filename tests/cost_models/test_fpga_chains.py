"""FPGA resources of DSP chains: a DSP for every slice, and what cores have beside them."""

from dataclasses import replace
from itertools import pairwise

import pytest

from cost_models.fpga import FpgaResources, dsp_chain, fpga_resources
from simulator.arch.dsp_cells import ChainParams, DspSlice, MpeParams
from simulator.arch.load import load_arch

U280 = load_arch("flightllm-u280")
TINY = load_arch("flightllm-tiny")
FIGURES = FpgaResources.__slots__


def engine(vpus=1, mpus=1, depth=64, stages=16, group=2, **chain):
    """Return a matrix engine whose chains load at once."""
    params = ChainParams(stages=stages, group=group, load_groups=stages // group, **chain)
    return MpeParams(chain=params, vpus=vpus, mpus=mpus, depth=depth)


def test_the_tiny_core_is_the_sum_of_its_synthesised_parts():
    """Four chains, results of a vector and of eight tokens, 16 lanes of two units, buffers."""
    row = FpgaResources(lut=4 * (2499 + 769 + 233), ff=4 * (1433 + 512 + 538), dsp=4 * 16)
    results = dsp_chain.REQUANTISER.times(4) + dsp_chain.TOKEN.times(8)
    units = FpgaResources(
        lut=3060 + 16 * 1667 + 2008, ff=854 + 16 * 377 + 638, dsp=16 + 16 * 13 + 13
    )
    buffers = FpgaResources(uram=1 + 1 + 2 + 1)
    assert fpga_resources(TINY) == row + results + dsp_chain.CONTROL + units + buffers


def test_every_slice_is_a_dsp():
    """Cores by chains of 16, and the multipliers of dequantisers and special functions."""
    assert dsp_chain.chains(U280) == 64
    assert dsp_chain.dequantiser_lanes(U280) == 720
    control = dsp_chain.CONTROL.dsp
    assert fpga_resources(U280).dsp == 3 * (64 * 16 + 720 + 13 * (16 + 1) + control)
    for stages in (8, 14, 24, 32):
        assert dsp_chain.engine(engine(vpus=3, mpus=2, stages=stages)).dsp == 6 * stages


def test_chains_serve_prompts_and_steps():
    """A core has as many chains as the busier of MM and MV needs, results for both."""
    assert dsp_chain.chains(replace(U280, mm_tokens=128)) == 128
    assert dsp_chain.chains(replace(U280, mm_tokens=7, mv_columns=4)) == 8
    assert dsp_chain.chains(replace(U280, mv_columns=128)) == 128
    fewer = fpga_resources(replace(U280, mv_columns=32))
    assert fpga_resources(U280) == fewer + dsp_chain.REQUANTISER.times(3 * 32)
    fewer = fpga_resources(replace(U280, mm_tokens=32))
    assert fpga_resources(U280) == fewer + dsp_chain.TOKEN.times(3 * 32 * 2)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cores", (1, 2, 3)),
        ("mm_tokens", (1, 2, 7, 128, 256)),
        ("mv_columns", (1, 32, 64, 128)),
        ("misc_lanes", (1, 4, 16)),
    ],
)
def test_more_never_takes_less(name, values):
    """A larger machine takes at least as much of everything, and more of something."""
    found = [fpga_resources(replace(U280, **{name: value})) for value in values]
    for less, more in pairwise(found):
        assert all(getattr(less, figure) <= getattr(more, figure) for figure in FIGURES)
    assert found[0] != found[-1]


def test_longer_chains_and_smaller_groups_take_more():
    """Stages and the places where a chain is cut are seen in LUTs and flip-flops."""
    by_stages = [dsp_chain.engine(engine(stages=n)) for n in (8, 14, 16, 24, 32)]
    by_group = [dsp_chain.engine(engine(group=n)) for n in (4, 2, 1)]
    for found in (by_stages, by_group):
        for less, more in pairwise(found):
            assert all(getattr(less, figure) <= getattr(more, figure) for figure in FIGURES)
        assert found[0].lut < found[-1].lut
        assert found[0].ff < found[-1].ff


def test_mpus_add_their_sums():
    """Another MPU brings its chains and an adder for every chain, no accumulators."""
    one, two, three = (dsp_chain.engine(engine(vpus=4, mpus=n)) for n in (1, 2, 3))
    added = FpgaResources(lut=4 * (2499 + 363), ff=4 * (1433 + 16), dsp=4 * 16)
    assert one + added == two
    assert two + added == three


def test_dequantisers_keep_up_with_memory():
    """Lanes follow bandwidth over the narrowest codes, by candidates, up to a pass's weights."""

    def lanes(**changes):
        return dsp_chain.dequantiser_lanes(load_arch("flightllm-u280", **changes))

    # 8 of 32 channels of 460 GB/s at 225 MHz and 70 %: 357.8 B, 715.6 codes of 4 bits a cycle
    assert lanes() == 720
    assert lanes(weight_bits=(8,), head_bits=8) == 368
    assert lanes(weight_bits=(8,), head_bits=3) == 960
    assert lanes(hbm={"channels_per_core": 10}) == 896
    assert lanes(hbm={"channels_per_core": 10}, mm_tokens=32, mv_columns=32) == 512
    assert dsp_chain.dequantiser_lanes(TINY) == 16


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (engine(stages=34), "No chain of 34 dsp48e2 in groups of 2 that load in 1 slots was synth"),
        (engine(stages=32, group=1), "No chain of 32 dsp48e2 in groups of 1"),
        (engine(dsp=DspSlice.DSP58), "No chain of 16 dsp58 in groups of 2"),
        (
            replace(engine(), chain=ChainParams(load_groups=4)),
            "No chain of 16 dsp48e2 in groups of 2 that load in 2 slots was synthesised",
        ),
        (engine(depth=65), "No accumulator of 65 passes was synthesised"),
    ],
)
def test_what_was_not_synthesised_is_refused(params, sentence):
    """No figure is better than a wrong one."""
    with pytest.raises(ValueError, match=sentence):
        dsp_chain.engine(params)
