"""The one way from an exact number to a packed one: normalise, then round to nearest even."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from rtl.float.formats import Exact, FloatFormat, rounded
from rtl.float.pipeline import Step
from rtl.float.shift import leading_zeros, shift_left, shift_right_sticky
from rtl.unit import structured

__all__ = ["rounding_steps"]


def rounding_steps(exact: Exact, target: FloatFormat) -> tuple[Step, Step]:
    """Return the two steps from a number laid out as `exact.layout` to a word of `target`.

    The magnitude's lowest bit may be sticky where the magnitude has at least two bits more than
    the significand. Overflow gives infinity, underflow subnormals and zero of the same sign.
    """

    def normalise(m: Module, number: Any) -> Any:
        return _normalise(m, exact, number)

    def pack(m: Module, number: Any) -> Any:
        return _pack(m, exact, target, number)

    return normalise, pack


def _normalise(m: Module, exact: Exact, number: Any) -> Any:
    """Bring the top bit up as far as the smallest exponent allows, or down to it."""
    out = structured(rounded(exact), "normal")
    places = leading_zeros(m, number.magnitude)
    room = Signal(signed(len(number.exponent) + 2), name="room")
    m.d.comb += room.eq(number.exponent - 1)
    if exact.may_lack_room:
        places = _least(m, places, room)
    raised = shift_left(m, number.magnitude, places)
    m.d.comb += out.magnitude.eq(raised)
    if exact.may_underflow:
        most = Const(exact.magnitude_bits + 1)
        lowered = shift_right_sticky(m, number.magnitude, _least(m, most, -room))
        with m.If(room < 0):
            m.d.comb += out.magnitude.eq(lowered)
    m.d.comb += [
        out.sign.eq(number.sign),
        out.nan.eq(number.nan),
        out.infinite.eq(number.infinite),
        out.exponent.eq(Mux(out.magnitude[-1], number.exponent - places, 0)),
    ]
    return out


def _least(m: Module, unsigned_value: Value, signed_value: Value) -> Value:
    """Return the smaller of both in the width of the first; meaningless if the second is < 0."""
    least = Signal(len(unsigned_value), name="least")
    m.d.comb += least.eq(Mux(signed_value < unsigned_value, signed_value, unsigned_value))
    return least


def _pack(m: Module, exact: Exact, target: FloatFormat, number: Any) -> Any:
    """Round, let the carry run into the exponent, and put infinities and NaN in place."""
    word = Signal(target.bits, name="word")
    spare = exact.magnitude_bits - target.significand_bits
    finite = Signal(target.fraction_bits + len(number.exponent) + 1, name="finite")
    kept = number.magnitude.shift_left(max(-spare, 0))[max(spare, 0) : -1]
    m.d.comb += finite.eq(Cat(kept, number.exponent) + _round_up(number.magnitude, spare))
    overflow = finite[target.fraction_bits :] >= target.top_exponent
    body = Signal(target.bits - 1, name="body")
    m.d.comb += [
        body.eq(Mux(number.infinite | overflow, target.infinity, finite)),
        word.eq(Mux(number.nan, target.quiet_nan, Cat(body, number.sign))),
    ]
    return word


def _round_up(magnitude: Value, spare: int) -> Value:
    """Return whether the `spare` bits below the significand round it up."""
    if spare <= 0:
        return Const(0, 1)
    half, beyond = magnitude[spare - 1], magnitude[: spare - 1].any()
    return half & (beyond | magnitude[spare])
