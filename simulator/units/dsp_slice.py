"""The DSP slice and the packed arithmetic on it, exact to the bit.

Two activations share one multiplication by a weight: the pre-adder packs them `packed_shift` bits
apart, so the product holds both products apart, and so do sums of up to `max_products` of them:
the lower half never leaves its `packed_shift` bits. A negative lower half has borrowed one from
the upper half; `split` gives it back.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dsp_cells import DspSlice

__all__ = ["Addend", "pack", "run_slice", "split", "wrapped"]

Ints = NDArray[np.int64]


class Addend(IntEnum):
    """What the slice adds to a product."""

    NOTHING = 0
    CASCADE = 1
    SUM = 2


def wrapped(value: Ints, bits: int) -> Ints:
    """Return two's complement numbers of `bits` bits that are congruent to `value`."""
    shift = np.int64(64 - bits)
    return (value << shift) >> shift


def pack(dsp: DspSlice, first: Ints, second: Ints) -> Ints:
    """Return int8 activations as one multiplier operand, the first one in the lower half."""
    return (second << np.int64(dsp.packed_shift)) + first


def split(dsp: DspSlice, total: Ints) -> tuple[Ints, Ints]:
    """Return both sums in a packed sum, each exact if its products fit (`max_products`)."""
    first = wrapped(total, dsp.packed_shift)
    return first, (total - first) >> np.int64(dsp.packed_shift)


def run_slice(
    dsp: DspSlice, wide: Ints, added: Ints, narrow: Ints, cascade: Ints, addend: Ints
) -> Ints:
    """Return the slice's sum after each slot, int64[slots], all operands being those of its slot.

    It is (wide + added) * narrow plus what `addend` says: nothing, the cascade, or its own last
    sum (0 at first). The pre-adder wraps at `wide_bits`, the sum at `sum_bits`.
    """
    product = wrapped(wide + added, dsp.wide_bits) * narrow
    terms = product + np.where(addend == Addend.CASCADE, cascade, 0)
    sums = np.cumsum(terms)
    fresh = addend != Addend.SUM
    start = np.maximum.accumulate(np.where(fresh, np.arange(terms.size), 0))
    before = np.where(start > 0, sums[start - 1], 0)
    return wrapped(sums - before, dsp.sum_bits)
