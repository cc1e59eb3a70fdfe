"""The PEGrid's controller: tiles, barriers and the drain."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl.pe_grid import shapes
from rtl.shapes import LENGTH_BITS
from rtl.unit import Unit, structured
from simulator.arch.pe_grid import PEGrid

__all__ = ["Controller", "Drain"]


class Controller(Unit):
    """Runs a job's tiles from barrier to barrier.

    `barrier` is the cycle in which every PE is done and the shadow registers are `clear`; `drop`
    tells that the tile or job that follows starts from sums of zero. Latency:
    a job accepted in one cycle is `running` in the next. Throughput: the next job is accepted in
    the barrier cycle of the last tile. Back-pressure: no job is accepted while one runs.
    Reset: idle.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(
            {
                "job": In(stream.Signature(shapes.grid_job(grid))),
                "done": In(1),
                "clear": In(1),
                "running": Out(1),
                "chunks": Out(LENGTH_BITS),
                "start": Out(1),
                "barrier": Out(1),
                "restart": Out(1),
                "finish": Out(1),
                "drop": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the controller."""
        m = Module()
        settings = structured(shapes.grid_job(self.grid), "settings")
        tile, running = Signal(LENGTH_BITS), Signal(name="runs")
        last = tile + 1 == settings.tiles
        m.d.comb += [
            self.running.eq(running),
            self.chunks.eq(settings.chunks),
            self.barrier.eq(running & self.done & self.clear),
            self.restart.eq(self.barrier & ~last),
            self.finish.eq(self.barrier & last),
            self.job.ready.eq(~running | self.finish),
            self.start.eq(self.job.valid & self.job.ready),
            self.drop.eq(
                (self.start & ~self.job.payload.accumulate) | (self.restart & ~settings.accumulate)
            ),
        ]
        with m.If(self.start):
            m.d.sync += [settings.eq(self.job.payload), tile.eq(0), running.eq(1)]
        with m.Elif(self.barrier):
            m.d.sync += [tile.eq(tile + 1), running.eq(~self.finish)]
        return m


class Drain(Unit):
    """Offers the shadow registers as beats, from the cycle after `barrier` on.

    Throughput: a beat a cycle. Back-pressure: `clear` is 0 while beats are left after this
    cycle, which holds the next barrier; `out.valid` depends on registers only. Reset: nothing
    to offer.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(
            {
                "barrier": In(1),
                "results": In(shapes.out_beat(grid)),
                "clear": Out(1),
                "shift": Out(1),
                "out": Out(stream.Signature(shapes.out_beat(grid))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the drain."""
        m = Module()
        beats = self.grid.drain_beats
        left = Signal(shapes.bounded(beats))
        after = Signal.like(left)
        m.d.comb += [
            self.out.valid.eq(left != 0),
            self.out.payload.eq(self.results),
            self.shift.eq(self.out.valid & self.out.ready),
            after.eq(left - self.shift),
            self.clear.eq(after == 0),
        ]
        m.d.sync += left.eq(Mux(self.barrier, beats, after))
        return m
