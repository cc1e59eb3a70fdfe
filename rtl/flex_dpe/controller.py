"""The FlexDpe array's controller: walks a FlexJob's slots with counters alone."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl.flex_dpe import shapes
from rtl.unit import Unit
from simulator.arch.flex_dpe import FlexDpe

__all__ = ["Controller"]


class Controller(Unit):
    """Turns a job into loads, then vectors, then, if it drains, a slot for every level of the tree.

    Latency: a job accepted in one cycle has its slot 0 offered in the next. Throughput: one slot
    a cycle; the next job is accepted in the cycle of the current job's last slot. Back-pressure:
    nothing moves while `advance` is 0, and no job is accepted while one runs. Reset: idle.
    """

    def __init__(self, arch: FlexDpe) -> None:
        self.arch = arch
        super().__init__(
            {
                "job": In(stream.Signature(shapes.flex_job(arch))),
                "advance": In(1),
                "running": Out(1),
                "take_side": Out(1),
                "take_top": Out(1),
                "settings": Out(shapes.flex_job(arch)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the controller."""
        m = Module()
        job, depth = self.settings, self.arch.tree_depth
        loaded, streamed = Signal.like(job.loads), Signal.like(job.vectors)
        drained, end = Signal(shapes.drained(self.arch)), Signal()
        loading, streaming = loaded != job.loads, streamed != job.vectors
        last_vector = streamed + 1 == job.vectors
        last = Mux(streaming, last_vector & (~job.drain | (depth == 0)), drained + 1 == depth)
        m.d.comb += [
            self.take_top.eq(self.running & loading),
            self.take_side.eq(self.running & ~loading & streaming),
            end.eq(self.advance & self.running & ~loading & last),
            self.job.ready.eq(~self.running | end),
        ]
        with m.If(self.advance & self.running):
            with m.If(loading):
                m.d.sync += loaded.eq(loaded + 1)
            with m.Elif(streaming):
                m.d.sync += streamed.eq(streamed + 1)
            with m.Else():
                m.d.sync += drained.eq(drained + 1)
        with m.If(self.job.ready):
            m.d.sync += [self.running.eq(self.job.valid), job.eq(self.job.payload)]
            m.d.sync += [loaded.eq(0), streamed.eq(0), drained.eq(0)]
        return m
