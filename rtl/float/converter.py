"""Conversion between floating-point formats."""

from typing import Any

from amaranth.hdl import Module

from rtl.float.formats import Exact, FloatFormat, unary_unit
from rtl.float.pipeline import pipelined
from rtl.float.rounding import rounding_steps
from rtl.float.unpack import unpack
from rtl.unit import Unit, structured

__all__ = ["Converter"]


class Converter(Unit):
    """y = a in another format, rounded to nearest even, subnormals included.

    Too large a number becomes infinity; any NaN becomes `quiet_nan`. Widening is exact. Latency:
    `latency` enabled cycles, 0 is combinational. Throughput: one a cycle. Back-pressure: nothing
    moves while `advance` is 0. Reset: none; what is inside is undefined until replaced.
    """

    def __init__(self, source: FloatFormat, target: FloatFormat, latency: int) -> None:
        self.source, self.target, self.latency = source, target, latency
        super().__init__(unary_unit(source, target))

    @property
    def number(self) -> Exact:
        """Shape of the number to round."""
        return Exact(
            magnitude_bits=self.source.significand_bits,
            lowest=1 + self._offset,
            highest=self.source.top_exponent + self._offset,
        )

    @property
    def _offset(self) -> int:
        return self.target.bias - self.source.bias

    def elaborate(self, platform: object) -> Module:
        """Build the converter."""
        m = Module()
        steps = (self._rebias, *rounding_steps(self.number, self.target))
        m.d.comb += self.y.eq(pipelined(m, self.advance, steps, self.a, self.latency))
        return m

    def _rebias(self, m: Module, word: Any) -> Any:
        parts = unpack(m, self.source, word)
        out = structured(self.number.layout, "number")
        m.d.comb += [
            out.sign.eq(parts.sign),
            out.nan.eq(parts.nan),
            out.infinite.eq(parts.infinite),
            out.exponent.eq(parts.exponent + self._offset),
            out.magnitude.eq(parts.significand),
        ]
        return out
