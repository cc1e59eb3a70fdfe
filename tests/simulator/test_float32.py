"""The numpy side of the floating-point units: canonical NaN, silence, exact products."""

import numpy as np
import pytest

from simulator.units.float32 import (
    add,
    bits16,
    bits32,
    canonical16,
    canonical32,
    multiply,
    narrow,
    widen,
)

NANS32 = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
NANS16 = np.array([0x7E00, 0xFE00, 0x7C01, 0xFFFF], np.uint16).view(np.float16)


def test_every_nan_becomes_the_canonical_one():
    assert set(bits32(NANS32).tolist()) == {0x7FC00000}
    assert set(bits16(NANS16).tolist()) == {0x7E00}


def test_canonical_leaves_other_bits_alone():
    words = np.array([0x0, 0x80000000, 0x1, 0x7F800000, 0xFF800000, 0x3F800001], np.uint32)
    assert (canonical32(words.view(np.float32)).view(np.uint32) == words).all()
    halves = np.array([0x0, 0x8000, 0x1, 0x7C00, 0xFC00, 0x3C01], np.uint16)
    assert (canonical16(halves.view(np.float16)).view(np.uint16) == halves).all()


@pytest.mark.parametrize("invalid", ["inf - inf", "0 * inf"])
def test_invalid_operations_give_canonical_nan_without_a_warning(invalid):
    infinity = np.full(3, np.inf, np.float32)
    result = add(infinity, -infinity) if "-" in invalid else multiply(np.float32(0) * 1, infinity)
    assert set(result.view(np.uint32).tolist()) == {0x7FC00000}


def test_overflow_gives_infinity_without_a_warning():
    large = np.full(1, 3e38, np.float32)
    assert np.isposinf(add(large, large)).all()
    assert np.isposinf(multiply(large, large)).all()
    assert np.isneginf(narrow(-large)).all()


def test_products_of_halves_are_exact():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 0x7C00, 5000, dtype=np.uint16).view(np.float16) for _ in range(2))
    product = multiply(a, b)
    assert product.dtype == np.float32
    assert (product.astype(np.float64) == a.astype(np.float64) * b.astype(np.float64)).all()


def test_widening_every_half_is_exact_and_narrowing_gives_it_back():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    wide = widen(halves)
    np.testing.assert_array_equal(wide.astype(np.float64), halves.astype(np.float64))
    assert (bits16(narrow(wide)) == bits16(halves)).all()


def test_narrowing_rounds_ties_to_even_and_keeps_subnormals():
    values = np.array([65519.996, 65520, 1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 1.5 * 2**-25])
    found = narrow(values.astype(np.float32)).view(np.uint16).tolist()
    assert found == [0x7BFF, 0x7C00, 0x3C00, 0x3C02, 0x0000, 0x0001]
