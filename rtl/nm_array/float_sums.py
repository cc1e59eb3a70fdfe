"""The fp16 PE's arithmetic: product, interleaved sums, passing partial sum and drain."""

from amaranth.hdl import Module, Mux, Signal, Value

from rtl import shapes
from rtl.float import FP16, Adder, Multiplier
from rtl.nm_array.slots import late
from rtl.shapes import Mode
from rtl.unit import Unit, structured
from simulator.arch import NMArray

__all__ = ["FloatSums"]


class FloatSums(Unit):
    """Adds a product a slot to one of I sums, which take turns and return every max(I, L) slots.

    The sums live in the adder's pipeline and the registers behind it, so a sum meets its next
    product when it comes round. A product without `use` counts as +0: padding times infinity must
    not give NaN. A final sum leaves in one of two ways. WS and IS add the passing partial sum in
    an adder of its own. OS keeps the I sums until `release` puts the next one, in order, on the
    drain chain; the sum just becoming final may be released in the same slot.

    Latency: a final sum is on `drain_out` L slots after its last product at the earliest, and in
    `sum_out` after 2 L. Throughput: a product a slot. Back-pressure: nothing moves while `advance`
    is 0. Reset: no sums are held; the adders' contents are undefined until replaced.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(shapes.nm_float_sums(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the sums."""
        m = Module()
        latency, is_os = self.arch.adder_latency, self.mode == Mode.OS
        result = self._sum(m, self._product(m))
        keep = late(m, self.advance, self.emit & is_os, latency, "keep")
        hand_over = late(m, self.advance, self.emit & ~is_os, latency, "hand_over")
        m.submodules.passing = passing = Adder(latency)
        m.d.comb += [
            passing.advance.eq(self.advance),
            passing.a.eq(self.sum_in),
            passing.b.eq(Mux(hand_over, result, 0)),
            self.sum_out.eq(passing.y),
        ]
        self._drain(m, keep, result)
        return m

    def _product(self, m: Module) -> Value:
        m.submodules.multiplier = multiplier = Multiplier(FP16, latency=0)
        m.d.comb += [multiplier.a.eq(self.operand), multiplier.b.eq(self.value)]
        return Mux(self.use, multiplier.y, 0)

    def _sum(self, m: Module, product: Value) -> Value:
        """Return the sum that took its product L slots ago."""
        arch = self.arch
        m.submodules.adder = adder = Adder(arch.adder_latency)
        behind = arch.issue_slots - arch.adder_latency
        back = late(m, self.advance, adder.y, behind, "waiting")
        m.d.comb += [
            adder.advance.eq(self.advance),
            adder.a.eq(Mux(self.clear, 0, back)),
            adder.b.eq(product),
        ]
        return adder.y

    def _drain(self, m: Module, keep: Value, result: Value) -> None:
        held = structured(shapes.held_sums(self.arch), "held")
        kept, released = (Signal(shapes.sum_index(self.arch), name=n) for n in ("kept", "released"))
        chain = Signal.like(self.drain_in)
        head = Mux(keep & (kept == released), result, held[released])
        m.d.comb += self.drain_out.eq(Mux(self.release, head, chain))
        with m.If(self.advance):
            m.d.sync += chain.eq(self.drain_in)
            with m.If(keep):
                m.d.sync += [held[kept].eq(result), kept.eq(self._next(kept))]
            with m.If(self.release):
                m.d.sync += released.eq(self._next(released))

    def _next(self, index: Value) -> Value:
        return Mux(index == self.arch.interleave - 1, 0, index + 1)
