"""Floating-point multiplier."""

from typing import Any

from amaranth.hdl import Module

from rtl.float.formats import FP32, Exact, FloatFormat, binary_unit
from rtl.float.pipeline import pipelined
from rtl.float.rounding import rounding_steps
from rtl.float.unpack import is_zero, unpack
from rtl.unit import Unit, structured

__all__ = ["Multiplier"]


class Multiplier(Unit):
    """y = a * b, rounded to nearest even, subnormals included; NaN results are `quiet_nan`.

    fp16 operands with an fp32 result are never rounded. Latency: `latency` enabled cycles, 0 is
    combinational. Throughput: one a cycle. Back-pressure: nothing moves while `advance` is 0.
    Reset: none; what is inside stays undefined until it has been replaced.
    """

    def __init__(self, source: FloatFormat, latency: int, target: FloatFormat = FP32) -> None:
        self.source, self.target, self.latency = source, target, latency
        super().__init__(binary_unit(source, target))

    @property
    def product(self) -> Exact:
        """Shape of the exact product."""
        source = self.source
        lowest = 2 + self._offset
        return Exact(
            magnitude_bits=2 * source.significand_bits,
            lowest=lowest,
            highest=2 * source.top_exponent + self._offset,
        )

    @property
    def _offset(self) -> int:
        # The product's top bit has twice the weight of the product of both hidden bits.
        return 1 + self.target.bias - 2 * self.source.bias

    def elaborate(self, platform: object) -> Module:
        """Build the multiplier."""
        m = Module()
        steps = (self._multiply, *rounding_steps(self.product, self.target))
        m.d.comb += self.y.eq(pipelined(m, self.advance, steps, (self.a, self.b), self.latency))
        return m

    def _multiply(self, m: Module, operands: Any) -> Any:
        a, b = (unpack(m, self.source, word) for word in operands)
        out = structured(self.product.layout, "product")
        m.d.comb += [
            out.sign.eq(a.sign ^ b.sign),
            out.nan.eq(a.nan | b.nan | (a.infinite & is_zero(b)) | (b.infinite & is_zero(a))),
            out.infinite.eq(a.infinite | b.infinite),
            out.exponent.eq(a.exponent + b.exponent + self._offset),
            out.magnitude.eq(a.significand * b.significand),
        ]
        return out
