"""The FIFO in front of a PE: a shift register read at an address."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out

from rtl.pe_grid import shapes
from rtl.unit import Unit, structured
from simulator.arch.pe_grid import PEGrid

__all__ = ["ChunkFifo"]


class ChunkFifo(Unit):
    """Holds up to `fifo_depth` chunks; several of the oldest can be seen and popped at once.

    Latency: a chunk pushed in one cycle is seen in the next. Throughput: a push a cycle and any
    number of pops. Back-pressure: `space` counts places freed by `pops` in the same cycle.
    Reset: empty.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(
            {
                "push": In(1),
                "chunk": In(shapes.dense_chunk(grid)),
                "pops": In(shapes.bounded(shapes.seen_chunks(grid))),
                "space": Out(1),
                "level": Out(shapes.bounded(grid.fifo_depth)),
                "heads": Out(shapes.heads(grid)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the FIFO."""
        m = Module()
        store = structured(shapes.stored_chunks(self.grid), "store")
        level = Signal.like(self.level, name="filled")
        with m.If(self.push):
            m.d.sync += store[0].eq(self.chunk)
            for place in range(1, self.grid.fifo_depth):
                m.d.sync += store[place].eq(store[place - 1])
        m.d.sync += level.eq(level + self.push - self.pops)
        m.d.comb += [
            self.level.eq(level),
            self.space.eq((level != self.grid.fifo_depth) | (self.pops != 0)),
        ]
        for age in range(shapes.seen_chunks(self.grid)):
            address = Signal(range(self.grid.fifo_depth), name=f"address_{age}")
            m.d.comb += [address.eq(level - 1 - age), self.heads[age].eq(store[address])]
        return m
