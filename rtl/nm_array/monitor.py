"""The NMArray's event counters."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.nm_array.slots import by_mode
from rtl.shapes import Mode
from rtl.streams import Enable, count, job_events
from rtl.unit import Unit
from simulator.arch import Dataflow, NMArray
from simulator.arch.nm_job import skew_slots

__all__ = ["Monitor"]


class Monitor(Unit):
    """Counts events since reset.

    Cycles and stalls are those of `job_events`, summed over jobs. `array_busy` counts advances in
    which some PE has a fold's stream; lanes and beats count at their acceptance.

    Latency: a count shows one cycle after its event, multiplier uses two. Reset: all zero.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "advance": In(1),
                "running": In(1),
                "last": In(1),
                "mode": In(Mode),
                "working": In(1),
                "clear": In(1),
                "side_there": In(1),
                "full": In(shapes.tally(arch, arch.pes)),
                "gated": In(shapes.tally(arch, arch.pes)),
                "side_lanes": In(range(arch.rows + 1)),
                "top_lanes": In(range(arch.cols + 1)),
                "out_beat": In(1),
                "counters": Out(shapes.counters()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        slot = Enable(advance=self.advance, clear=self.clear, side_there=self.side_there)
        events = {
            **job_events(m, slot, self.running, self.last),
            "array_busy": self.advance & self._busy(m),
            "mac_full": self.full,
            "mac_gated": self.gated,
            "side_lanes": self.side_lanes,
            "top_lanes": self.top_lanes,
            "out_beats": self.out_beat,
        }
        count(m, self.counters, events)
        return m

    def _busy(self, m: Module) -> Value:
        """Tell whether a stream is at a PE: for the array's skew after it has left PE (0, 0)."""
        most = max(skew_slots(self.arch, dataflow) for dataflow in Dataflow)
        skew = by_mode(self.mode, lambda dataflow: skew_slots(self.arch, dataflow))
        left = Signal(range(most + 1))
        with m.If(self.advance):
            with m.If(self.working):
                m.d.sync += left.eq(skew)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
        return self.working | (left != 0)
