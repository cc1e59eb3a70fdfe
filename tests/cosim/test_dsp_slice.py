"""The DSP slice's RTL against its model: every int8 x int8 x int8, long sums, full-width ports."""

import numpy as np
import pytest

from rtl.dsp_chain.batch import SliceBatch, build
from simulator.arch.dsp_cells import DspSlice
from simulator.units.dsp_slice import Addend, pack, run_slice, split, wrapped

pytestmark = pytest.mark.rtl

INT8 = np.arange(-128, 128)
EXTREMES = np.array([-128, -127, -1, 0, 1, 127])


@pytest.fixture(scope="module", params=list(DspSlice))
def batch(request, tmp_path_factory) -> SliceBatch:
    return build(tmp_path_factory.mktemp("slice"), request.param)


def combined(*axes):
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def halves(batch, first, second, weight, addend=0):
    """Return both halves of the RTL's packed sums, the packing done by its pre-adder."""
    shift = batch.bank.dsp.packed_shift
    addend = np.broadcast_to(addend, first.shape)
    found = batch.run({"wide": second << shift, "added": first, "narrow": weight, "addend": addend})
    return found["first"], found["second"]


def assert_every_product(batch, seconds):
    for second in seconds:
        first, weight, high = combined(INT8, INT8, np.array([second]))
        low, upper = halves(batch, first, high, weight)
        np.testing.assert_array_equal(low, first * weight)
        np.testing.assert_array_equal(upper, high * weight)


def test_packed_products_of_every_int8_triple_are_exact(batch):
    """All 2**24 triples: two activations by one weight on one multiplier."""
    assert_every_product(batch, INT8)


def assert_sums(batch, seconds, terms, weights):
    """Sum every product `terms` times and compare the last sum."""
    addend = np.where(np.arange(terms) > 0, Addend.SUM, Addend.NOTHING)
    for second in seconds:
        first, weight, high = combined(INT8, weights, np.array([second]))
        repeated = [np.repeat(each, terms) for each in (first, high, weight)]
        low, upper = halves(batch, *repeated, np.tile(addend, first.size))
        np.testing.assert_array_equal(low[terms - 1 :: terms], terms * first * weight)
        np.testing.assert_array_equal(upper[terms - 1 :: terms], terms * high * weight)


def test_sums_of_seven_equal_products_are_exact(batch):
    """Every first activation and weight, with extreme second ones, seven times: the limit."""
    assert_sums(batch, EXTREMES, 7, INT8)


def test_sums_of_eight_are_exact_without_the_lowest_weight_and_wrong_with_it(batch):
    """8 x 128 x 127 fits the lower half, 8 x 128 x 128 does not."""
    assert_sums(batch, EXTREMES, 8, INT8[1:])
    with pytest.raises(AssertionError):
        assert_sums(batch, EXTREMES[:1], 8, INT8[:1])


@pytest.mark.long
def test_sums_of_seven_equal_products_of_every_triple_are_exact(batch):
    """All 2**24 triples, seven times."""
    assert_sums(batch, INT8, 7, INT8)


def test_random_full_width_operands_equal_the_model(batch):
    """Pre-adder, product, cascade, own sum and wrapping, at all widths; operand cascades."""
    dsp, rng, slots = batch.bank.dsp, np.random.default_rng(4), 200_000

    def drawn(bits):
        half = 1 << (bits - 1)
        corner = rng.choice([-half, -half + 1, -1, 0, 1, half - 1], slots)
        return np.where(rng.random(slots) < 0.3, corner, rng.integers(-half, half, slots))

    wide, added = drawn(dsp.wide_bits), drawn(dsp.wide_bits)
    narrow, cascade = drawn(dsp.narrow_bits), drawn(dsp.sum_bits)
    addend = rng.choice([Addend.NOTHING, Addend.CASCADE, Addend.SUM, Addend.SUM], slots)
    operands = {"wide": wide, "added": added, "narrow": narrow, "cascade": cascade}
    found = batch.run({**operands, "addend": addend})
    wanted = run_slice(dsp, wide, added, narrow, cascade, addend)
    np.testing.assert_array_equal(found["sum"], wanted)
    np.testing.assert_array_equal(found["wide_out"], wide)
    np.testing.assert_array_equal(found["narrow_out"], narrow)


def test_random_sums_of_up_to_seven_products_split_as_the_model_says(batch):
    """Runs of 1 to 7 random products; the model packs, wraps and splits them."""
    rng, dsp = np.random.default_rng(6), batch.bank.dsp
    first, second, weight = rng.integers(-128, 128, (3, 200_000))
    run = np.arange(first.size) % 7
    addend = np.where((run > 0) & (rng.random(first.size) < 0.9), Addend.SUM, Addend.NOTHING)
    zero = np.zeros_like(first)
    sums = run_slice(dsp, pack(dsp, zero, second), first, weight, zero, addend)
    wanted = split(dsp, wrapped(sums, dsp.sum_bits))
    np.testing.assert_array_equal(halves(batch, first, second, weight, addend), wanted)
