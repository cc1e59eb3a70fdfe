"""The PEGrid's event counters."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from rtl.pe_grid import shapes
from rtl.streams import count
from rtl.unit import Unit, tree_sum
from simulator.arch.pe_grid import PEGrid

__all__ = ["Monitor"]


class Monitor(Unit):
    """Counts events since reset.

    `cycles` runs from the first chunk a job accepts to the barrier of its last tile, both
    included. In each of them every PE counts once as working, passing an empty chunk, waiting for
    a chunk, or done while others are not (imbalance) or while all wait for the shadow registers
    (drain). Latency: a count shows one cycle after its event. Reset: all zero.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(
            {
                "running": In(1),
                "finish": In(1),
                "tally": In(shapes.grid_tally(grid)),
                "side_push": In(grid.rows),
                "side_values": In(shapes.bounded(grid.rows * grid.chunk)),
                "top_push": In(grid.cols),
                "top_values": In(shapes.bounded(grid.cols * grid.chunk)),
                "out_beat": In(1),
                "counters": Out(shapes.counters()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        begun, window = Signal(), Signal()
        m.d.comb += window.eq(self.running & (begun | self.side_push.any() | self.top_push.any()))
        m.d.sync += begun.eq(window & ~self.finish)
        finished = self._sum("finished")
        all_finished = Cat(each.finished for each in self._pes()).all()
        inside = {
            "cycles": 1,
            "array_busy": Cat(each.work for each in self._pes()).any(),
            "pe_work": self._sum("work"),
            "pe_vacant": self._sum("vacant"),
            "pe_wait": self._sum("wait"),
            "pe_imbalance": Mux(all_finished, 0, finished),
            "pe_drain": Mux(all_finished, finished, 0),
        }
        added = {name: Mux(window, amount, 0) for name, amount in inside.items()} | {
            "effectual": self._sum("effectual"),
            "mac_full": self._sum("full"),
            "mac_gated": self._sum("gated"),
            "empty_chunks": self._sum("empty"),
            "side_chunks": tree_sum(list(self.side_push)),
            "side_values": self.side_values,
            "top_chunks": tree_sum(list(self.top_push)),
            "top_values": self.top_values,
            "out_beats": self.out_beat,
        }
        count(m, self.counters, added)
        return m

    def _pes(self) -> list[Any]:
        return [self.tally[pe] for pe in range(self.grid.pes)]

    def _sum(self, name: str) -> Value:
        return tree_sum([getattr(each, name) for each in self._pes()])
