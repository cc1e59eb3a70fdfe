"""The MPE's event counters."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain import shapes
from rtl.unit import Unit
from simulator.arch.dsp_cells import MpeParams

__all__ = ["Monitor"]


class Monitor(Unit):
    """Counts events since reset.

    `cycles` runs from a job's first slot to its last one, both included, summed over jobs; a
    cycle inside that window without `advance` is a stall, charged to a refused result first, then
    to a missing side beat, then to a missing top beat: cycles = slots + stalls. Of the
    multiply-accumulates a pass has room for, those with a weight other than 0 and a token are
    full, the rest gated.

    Latency: a count shows one cycle after its event. Reset: all zero.
    """

    def __init__(self, params: MpeParams) -> None:
        self.params = params
        super().__init__(
            {
                "advance": In(1),
                "running": In(1),
                "last": In(1),
                "clear": In(1),
                "side_there": In(1),
                "used": In(shapes.tally(params)),
                "side_beat": In(1),
                "top_beat": In(1),
                "lanes": In(range(params.lanes + 1)),
                "out_beat": In(1),
                "counters": Out(shapes.counters()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        begun, window = Signal(), Signal()
        m.d.comb += window.eq(self.running & (begun | self.advance))
        with m.If(self.advance):
            m.d.sync += begun.eq(self.running & ~self.last)
        stalled = window & ~self.advance
        added = {
            "cycles": window,
            "stall_out": stalled & ~self.clear,
            "stall_side": stalled & self.clear & ~self.side_there,
            "stall_top": stalled & self.clear & self.side_there,
            "mac_full": Mux(self.side_beat, self.used, 0),
            "mac_gated": Mux(self.side_beat, self.params.peak_macs_per_cycle - self.used, 0),
            "side_beats": self.side_beat,
            "top_beats": self.top_beat,
            "out_beats": self.out_beat,
            "out_lanes": Mux(self.out_beat, self.lanes, 0),
        }
        for name, amount in added.items():
            total = getattr(self.counters, name)
            m.d.sync += total.eq(total + amount)
        return m
