"""Unpacking of IEEE 754 numbers."""

from typing import Any

from amaranth.hdl import Cat, Module, Value

from rtl.float.formats import FloatFormat, unpacked
from rtl.unit import structured

__all__ = ["is_zero", "unpack"]


def unpack(m: Module, fmt: FloatFormat, word: Value) -> Any:
    """Return the parts of a packed number, laid out as `unpacked(fmt)`."""
    parts = structured(unpacked(fmt), "parts")
    fraction = word[: fmt.fraction_bits]
    exponent = word[fmt.fraction_bits : fmt.bits - 1]
    normal, special, payload = exponent.any(), exponent.all(), fraction.any()
    m.d.comb += [
        parts.sign.eq(word[-1]),
        parts.nan.eq(special & payload),
        parts.infinite.eq(special & ~payload),
        parts.exponent.eq(exponent | ~normal),
        parts.significand.eq(Cat(fraction, normal)),
    ]
    return parts


def is_zero(parts: Any) -> Value:
    """Return whether unpacked parts stand for a zero of either sign."""
    return ~parts.significand.any()
