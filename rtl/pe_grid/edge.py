"""The PEGrid's operand edges: chunks are counted, decoded and broadcast."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl.pe_grid import shapes
from rtl.shapes import LENGTH_BITS
from rtl.unit import Unit
from simulator.arch.pe_grid import PEGrid

__all__ = ["Decoder", "Edge"]


class Decoder(Unit):
    """Moves a chunk's packed values to the positions of its bitmask, combinationally.

    Position p takes the value behind as many others as bits of the mask lie below p, so any chunk
    length will do. Absent positions read as zero.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(
            {
                "beat": In(shapes.chunk_beat(grid)),
                "chunk": Out(shapes.dense_chunk(grid)),
                "count": Out(shapes.bounded(grid.chunk)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the decoder."""
        m = Module()
        m.d.comb += self.chunk.mask.eq(self.beat.mask)
        index = Signal(shapes.position(self.grid), name="index_0")
        for position in range(self.grid.chunk):
            there = self.beat.mask[position]
            following = Signal(shapes.bounded(self.grid.chunk), name=f"index_{position + 1}")
            m.d.comb += [
                self.chunk.value[position].eq(Mux(there, self.beat.packed[index], 0)),
                following.eq(index + there),
            ]
            index = following
        m.d.comb += self.count.eq(index)
        return m


class Edge(Unit):
    """Accepts the chunks of one row (or column) and broadcasts each to all PEs in that cycle.

    Throughput: a chunk a cycle. Back-pressure: `ready` while a tile is open, its chunks are not
    all there and every FIFO has `space`; a tile opens with `restart` (the barrier of the one
    before) or in the cycle after `start`. `ready` does not depend on `valid`. Reset: no chunk
    counted. `count` is the number of present values of the chunk being pushed.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(
            {
                "stream": In(stream.Signature(shapes.chunk_beat(grid))),
                "running": In(1),
                "start": In(1),
                "restart": In(1),
                "chunks": In(LENGTH_BITS),
                "space": In(1),
                "push": Out(1),
                "chunk": Out(shapes.dense_chunk(grid)),
                "count": Out(shapes.bounded(grid.chunk)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the edge."""
        m = Module()
        m.submodules.decoder = decoder = Decoder(self.grid)
        taken, before = Signal(LENGTH_BITS), Signal(LENGTH_BITS)
        is_open = self.running & (self.restart | (taken != self.chunks))
        m.d.comb += [
            before.eq(Mux(self.restart, 0, taken)),
            self.stream.ready.eq(is_open & self.space),
            self.push.eq(self.stream.valid & self.stream.ready),
            decoder.beat.eq(self.stream.payload),
            self.chunk.eq(decoder.chunk),
            self.chunk.last.eq(before + 1 == self.chunks),
            self.count.eq(Mux(self.push, decoder.count, 0)),
        ]
        m.d.sync += taken.eq(Mux(self.start, 0, before + self.push))
        return m
