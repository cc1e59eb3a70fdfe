"""The DSP slice: pre-adder, multiplier and accumulator, behavioural."""

from amaranth.hdl import Module, Mux, Signal

from rtl.dsp_chain import shapes
from rtl.dsp_chain.shapes import Addend
from rtl.unit import Unit
from simulator.arch.dsp_cells import DspSlice

__all__ = ["Dsp"]


class Dsp(Unit):
    """(wide + added) * narrow, plus nothing, the cascade, or the last sum.

    `wide_out` and `narrow_out` are the operands one slot later, for the next slice's operand
    cascade. It has the registers of the silicon's fully pipelined mode: one for either summand, two
    for `narrow`, one each for pre-adder, product and sum.

    Latency: `DspSlice.latency` slots; `cascade` and `addend` act in the last of them. Throughput:
    one operand pair a slot. Back-pressure: nothing moves while `advance` is 0. Reset: the sum is
    0; operands inside stay undefined until they have been replaced.
    """

    def __init__(self, dsp: DspSlice) -> None:
        super().__init__(shapes.dsp(dsp))

    def elaborate(self, platform: object) -> Module:
        """Build the slice."""
        m = Module()
        wide, added, packed = (
            Signal.like(self.wide, name=name, reset_less=True)
            for name in ("wide_held", "added_held", "packed")
        )
        narrow, narrow_late = (
            Signal.like(self.narrow, name=name, reset_less=True)
            for name in ("narrow_held", "narrow_late")
        )
        product = Signal((packed * narrow).shape(), reset_less=True)
        total = Signal.like(self.sum, name="total")
        last = Mux(self.addend == Addend.SUM, total, 0)
        with m.If(self.advance):
            m.d.sync += [
                wide.eq(self.wide),
                added.eq(self.added),
                narrow.eq(self.narrow),
                packed.eq(wide + added),
                narrow_late.eq(narrow),
                product.eq(packed * narrow_late),
                total.eq(product + Mux(self.addend == Addend.CASCADE, self.cascade, last)),
            ]
        m.d.comb += [self.sum.eq(total), self.wide_out.eq(wide), self.narrow_out.eq(narrow)]
        return m
