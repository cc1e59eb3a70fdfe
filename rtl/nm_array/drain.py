"""The fp16 array's drain: when each column puts its next set of sums on the drain chain."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.nm_array.slots import late
from rtl.unit import Unit
from simulator.arch import NMArray

__all__ = ["DrainPace"]


class DrainPace(Unit):
    """Releases a set of `rows` sums whenever one is final and the set before has left the chain.

    `emit` tells that the bottom PE of column 0 takes the last product of its next sum. From L
    slots later on a set is `release`d every `rows` slots, a column one slot after its neighbour;
    `leaving` marks the slots in which the column's bottom shows the set; `first` precedes the last
    column's release by a slot. Back-pressure: nothing moves while `advance` is 0. Reset: nothing
    to release.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "advance": In(1),
                "emit": In(1),
                "release": Out(arch.cols),
                "leaving": Out(arch.cols),
                "first": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the pace."""
        m = Module()
        arch = self.arch
        final = late(m, self.advance, self.emit, arch.adder_latency - 1, "final")
        sets = Signal(shapes.sum_sets(arch))
        left = Signal(range(arch.rows))
        start, leaving = Signal(), Signal()
        m.d.comb += [
            start.eq((final | sets.any()) & (left == 0)),
            leaving.eq(start | left.any()),
        ]
        with m.If(self.advance):
            m.d.sync += [
                sets.eq(sets + final - start),
                left.eq(Mux(start, arch.rows - 1, Mux(left == 0, 0, left - 1))),
            ]
        before = start
        for col in range(arch.cols):
            m.d.comb += self.first.eq(before)
            before = late(m, self.advance, before, 1, f"release_{col}")
            leaving = late(m, self.advance, leaving, 1, f"leaving_{col}")
            m.d.comb += [self.release[col].eq(before), self.leaving[col].eq(leaving)]
        return m
