"""FPGA resources of grids: PEs, FIFOs and edges as synthesised, parameter by parameter."""

from dataclasses import replace
from itertools import pairwise, product

import pytest

from cost_models.fpga import FpgaResources, fpga_resources
from cost_models.fpga.parts import VECTOR_UNIT
from cost_models.fpga.pe_grid import CONTROL, DELTA, EDGE, MONITOR, core, element, encoder, fifo
from simulator.arch.load import load_arch
from simulator.arch.pe_grid import Skip

TINY = load_arch("grid-tiny")
FIGURES = FpgaResources.__slots__


def test_the_tiny_grid_is_the_sum_of_its_synthesised_parts():
    """3 x 4 PEs of chunks of 8 with two FIFOs of two chunks, seven edges, lanes and buffers."""
    chunk_bits = 8 * 9 + 1
    pe = FpgaResources(lut=401 + 2 * (chunk_bits + 3), ff=219 + 2 * (2 * chunk_bits + 2), dsp=1)
    assert element(TINY) == pe
    around = (
        MONITOR.times(12),
        EDGE[8].times(7),
        CONTROL,
        VECTOR_UNIT,
        FpgaResources(uram=4 + 4 + 2),
    )
    assert fpga_resources(TINY) == sum(around, pe.times(12))


def test_rows_and_columns_bring_their_pes_and_edges():
    """A row more is a PE in every column and an edge; columns are alike."""
    for name, pes in (("rows", TINY.cols), ("cols", TINY.rows)):
        more = replace(TINY, **{name: getattr(TINY, name) + 1})
        assert core(more) == core(TINY) + (element(TINY) + MONITOR).times(pes) + EDGE[8]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rows", (1, 2, 3, 7)),
        ("cols", (1, 2, 3, 7)),
        ("chunk", (4, 8, 9, 16, 24, 32, 48, 64)),
        ("fifo_depth", (1, 2, 3, 4, 5, 8)),
        ("macs_per_pe", (1, 2, 4)),
        ("vector_lanes", (1, 3, 8)),
        ("look_ahead", (False, True)),
    ],
)
@pytest.mark.parametrize("skip", Skip)
def test_more_never_takes_less(name, values, skip):
    """A larger grid takes at least as much of everything, and more of something."""
    depth = {"fifo_depth": 4} if name != "fifo_depth" else {}
    found = [fpga_resources(replace(TINY, skip=skip, **depth, **{name: value})) for value in values]
    for less, more in pairwise(found):
        assert all(getattr(less, figure) <= getattr(more, figure) for figure in FIGURES)
    assert found[0] != found[-1]


def test_skipping_both_takes_at_least_what_skipping_one_does():
    """What a PE skips is seen in its LUTs, and never for less."""
    luts = {
        (skip, chunk): element(replace(TINY, skip=skip, chunk=chunk)).lut
        for skip, chunk in product(Skip, (8, 16, 32, 64))
    }
    for chunk in (8, 16, 32, 64):
        for one in (Skip.WEIGHTS, Skip.ACTIVATIONS):
            assert luts[Skip.NONE, chunk] <= luts[one, chunk] <= luts[Skip.BOTH, chunk]
    assert luts[Skip.WEIGHTS, 8] < luts[Skip.BOTH, 8]


def test_a_multiplier_more_is_a_dsp_more():
    """Yosys puts every product of two int8 into a DSP slice."""
    found = [element(replace(TINY, macs_per_pe=macs)).dsp for macs in (1, 2, 4)]
    assert found == [1, 2, 4]


def test_a_fifo_holds_its_chunks_in_registers():
    """Depth times bits, and the level; a depth between two is read like the larger."""
    for depth in (1, 2, 3, 4, 8):
        taken = fifo(replace(TINY, fifo_depth=depth))
        assert taken.ff == depth * 73 + depth.bit_length()
    assert fifo(replace(TINY, fifo_depth=3)).lut == fifo(replace(TINY, fifo_depth=4)).lut


def test_every_row_has_its_delta_encoder():
    """A grid of differences is the same one and an encoder for every row."""
    plain = replace(TINY, chunk=16, skip=Skip.ACTIVATIONS)
    delta = replace(plain, delta_chunks=10)
    assert encoder(delta) == DELTA[16, 16]
    assert fpga_resources(delta) == fpga_resources(plain) + DELTA[16, 16].times(TINY.rows)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"macs_per_pe": 3}, "No PE with chunk 8, macs_per_pe 3 and 1 chunks seen was synthesised"),
        ({"fifo_depth": 9}, "No FIFO with fifo_depth 9 and 1 chunks seen was synthesised"),
        (
            {"fifo_depth": 8, "look_ahead": True},
            "No PE with chunk 8, macs_per_pe 1 and 8 chunks seen was synthesised",
        ),
        (
            {"delta_chunks": 1000},
            "No delta encoder with chunk 8 and delta_chunks 1000 was synthesised",
        ),
    ],
)
def test_what_was_not_synthesised_is_refused(changes, sentence):
    """No figure is better than a wrong one."""
    with pytest.raises(ValueError, match=sentence):
        fpga_resources(replace(TINY, **changes))
