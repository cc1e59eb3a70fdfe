"""Floating-point adder."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal

from rtl.float.formats import FP32, GUARD_BITS, Exact, FloatFormat, aligned, binary_unit
from rtl.float.pipeline import pipelined
from rtl.float.rounding import rounding_steps
from rtl.float.shift import shift_right_sticky
from rtl.float.unpack import unpack
from rtl.unit import Unit, structured

__all__ = ["Adder"]


class Adder(Unit):
    """y = a + b, rounded to nearest even, subnormals included; NaN results are `quiet_nan`.

    A sum of exactly zero is positive unless both summands are negative zeros. Latency: `latency`
    enabled cycles, 0 is combinational. Throughput: one a cycle. Back-pressure: nothing moves while
    `advance` is 0. Reset: none; what is inside stays undefined until it has been replaced.
    """

    def __init__(self, latency: int, fmt: FloatFormat = FP32) -> None:
        self.fmt, self.latency = fmt, latency
        super().__init__(binary_unit(fmt, fmt))

    @property
    def total(self) -> Exact:
        """Shape of the sum: a carry, the significand and the guard bits."""
        return Exact(
            magnitude_bits=1 + self.fmt.significand_bits + GUARD_BITS,
            lowest=2,
            highest=self.fmt.top_exponent + 1,
        )

    def elaborate(self, platform: object) -> Module:
        """Build the adder."""
        m = Module()
        steps = (self._order, self._align, self._add, *rounding_steps(self.total, self.fmt))
        m.d.comb += self.y.eq(pipelined(m, self.advance, steps, (self.a, self.b), self.latency))
        return m

    def _order(self, m: Module, operands: Any) -> Any:
        """Put the larger magnitude first; packed magnitudes compare as integers."""
        a, b = operands
        swap = Signal(name="swap")
        m.d.comb += swap.eq(b[:-1] > a[:-1])
        large = unpack(m, self.fmt, Mux(swap, b, a))
        small = unpack(m, self.fmt, Mux(swap, a, b))
        out = structured(aligned(self.fmt), "ordered")
        subtract = large.sign ^ small.sign
        guard = Const(0, GUARD_BITS)
        m.d.comb += [
            out.sign.eq(large.sign),
            out.nan.eq(large.nan | small.nan | (large.infinite & small.infinite & subtract)),
            out.infinite.eq(large.infinite),
            out.subtract.eq(subtract),
            out.exponent.eq(large.exponent),
            out.distance.eq(large.exponent - small.exponent),
            out.large.eq(Cat(guard, large.significand)),
            out.small.eq(Cat(guard, small.significand)),
        ]
        return out

    def _align(self, m: Module, pair: Any) -> Any:
        out = structured(pair.shape(), "aligned")
        m.d.comb += [
            out.eq(pair),
            out.small.eq(shift_right_sticky(m, pair.small, pair.distance)),
        ]
        return out

    def _add(self, m: Module, pair: Any) -> Any:
        out = structured(self.total.layout, "total")
        m.d.comb += [
            out.magnitude.eq(Mux(pair.subtract, pair.large - pair.small, pair.large + pair.small)),
            out.sign.eq(pair.sign & (out.magnitude.any() | ~pair.subtract)),
            out.nan.eq(pair.nan),
            out.infinite.eq(pair.infinite),
            out.exponent.eq(pair.exponent + 1),
        ]
        return out
