"""The NMArray's result port: columns are aligned and offered as beats."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.unit import Unit
from simulator.arch import NMArray

__all__ = ["ResultPort"]


class ResultPort(Unit):
    """Delays column c by cols - 1 - c slots and offers each slot's beat once.

    Latency: a beat is offered in the slot after `emitting`, `rows` of them in the slots after
    `draining`: that is when they stand at the last column's bottom. Throughput: a beat a slot.
    Back-pressure: `clear` is 0 while a beat is refused, which holds the array; a beat taken while
    the array waits for operands is not offered again. Reset: nothing to offer.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "advance": In(1),
                "sums": In(shapes.out_beat(arch)),
                "draining": In(1),
                "emitting": In(1),
                "clear": Out(1),
                "out": Out(stream.Signature(shapes.out_beat(arch))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the port."""
        m = Module()
        left = Signal(shapes.load_rows(self.arch))
        taken = Signal()
        with m.If(self.advance):
            m.d.sync += taken.eq(0)
            with m.If(self.draining):
                m.d.sync += left.eq(self.arch.rows)
            with m.Elif(self.emitting):
                m.d.sync += left.eq(1)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
        with m.Elif(self.out.valid & self.out.ready):
            m.d.sync += taken.eq(1)
        m.d.comb += [
            self.out.valid.eq((left != 0) & ~taken),
            self.clear.eq(~self.out.valid | self.out.ready),
        ]
        for col in range(self.arch.cols):
            value = self.sums[col]
            for stage in range(self.arch.cols - 1 - col):
                aligned = Signal.like(value, name=f"aligned_{col}_{stage}")
                with m.If(self.advance):
                    m.d.sync += aligned.eq(value)
                value = aligned
            m.d.comb += self.out.payload[col].eq(value)
        return m
