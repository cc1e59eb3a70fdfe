import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workloads.quantize import quantize, stored


def test_quantize_half_steps_round_to_even():
    codes, scale = quantize(np.array([127.0, 0.5, 1.5, 2.5, -0.5, -1.5]))
    assert scale == 1.0
    assert codes.tolist() == [127, 0, 2, 2, 0, -2]
    assert codes.dtype == np.int8


def test_quantize_all_zero_has_scale_one():
    codes, scale = quantize(np.zeros((2, 3), dtype=np.float32))
    assert scale == 1.0
    assert not codes.any()


@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-(2.0**99), 2.0**99, width=32))
)
def test_quantize_any_values_stay_within_half_a_step(values):
    codes, scale = quantize(values)
    assert codes.min() >= -127
    assert np.abs(codes * scale - values.astype(np.float64)).max() <= scale / 2 * (1 + 1e-12)
    assert np.array_equal(quantize(-values)[0], -codes)


def test_quantize_values_below_any_scale_count_as_zero():
    codes, scale = quantize(np.array([5e-324, -5e-324]))  # a 127th of them is no float
    assert scale == 1.0
    assert codes.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_quantize_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="Only finite values can be quantised"):
        quantize(np.array([1.0, bad]))


def test_stored_eight_bits_are_codes_and_sixteen_are_fp16():
    values = np.array([1.0, 2.0**-25, 2.0**-24, -3e-5])
    assert stored(values, 8).tolist() == [127, 0, 0, 0]
    half = stored(values, 16)
    assert half.dtype == np.float16
    assert half.tolist() == [1.0, 0.0, 2.0**-24, float(np.float16(-3e-5))]


def test_stored_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="fp16 holds magnitudes up to 65504, and the largest is"):
        stored(np.array([1.0, -7e4]), 16)
    with pytest.raises(ValueError, match="Operands are 8 or 16 bits wide, not 32"):
        stored(np.ones(1), 32)
