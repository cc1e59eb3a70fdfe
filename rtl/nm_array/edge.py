"""The NMArray's operand edges: lanes are masked, held for a group and skewed."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.nm_array.slots import late
from rtl.shapes import Mode
from rtl.unit import Unit, structured
from simulator.arch import Dataflow, NMArray
from simulator.arch.nm_job import row_hop

__all__ = ["SideEdge", "TopEdge"]


def _masked(lane: Any, payload: Value) -> Value:
    return Mux(lane.valid, Value.cast(payload), 0)


class SideEdge(Unit):
    """Presents the side beat to row r, r hops late, and again every max(I, L) slots.

    A lane comes round until the next one is taken in its place, so I interleaved groups are held
    at a time (one of int8). Latency: 0 slots for row 0, r times the dataflow's hop for row r.
    Throughput: a beat a slot. Back-pressure: nothing
    moves while `advance` is 0. Reset: lanes invalid. An invalid lane reads as zero.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        rows = arch.rows
        super().__init__(
            {
                "advance": In(1),
                "mode": In(Mode),
                "take": In(1),
                "beat": In(shapes.side_beat(arch)),
                "control": In(shapes.row_control(arch)),
                "lanes": Out(data.ArrayLayout(shapes.side_lane(arch), rows)),
                "controls": Out(data.ArrayLayout(shapes.row_control(arch), rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the edge."""
        m = Module()
        for row in range(self.arch.rows):
            lane = structured(shapes.side_lane(self.arch), f"lane_{row}")
            held = late(m, self.advance, lane, self.arch.issue_slots, f"held_{row}")
            offered = self.beat[row]
            m.d.comb += lane.eq(held)
            with m.If(self.take):
                m.d.comb += [
                    lane.valid.eq(offered.valid),
                    lane.data.eq(_masked(offered, offered.data)),
                ]
            m.d.comb += [
                self.lanes[row].eq(self._skewed(m, lane, row)),
                self.controls[row].eq(self._hopped(m, row) if row else self.control),
            ]
        return m

    @property
    def _hop(self) -> int:
        return row_hop(self.arch, Dataflow.WS)

    def _skewed(self, m: Module, lane: Any, row: int) -> Any:
        near = late(m, self.advance, lane, row, f"row_{row}")
        far = late(m, self.advance, near, row * (self._hop - 1), f"row_{row}_far")
        return self._by_hop(near, far)

    def _hopped(self, m: Module, row: int) -> Any:
        # When WS follows OS the longer way is empty: an OS job ends L slots after its last control.
        near = late(m, self.advance, self.controls[row - 1], 1, f"control_{row}")
        far = late(m, self.advance, near, self._hop - 1, f"control_{row}_far")
        return self._by_hop(near, far)

    def _by_hop(self, near: Any, far: Any) -> Any:
        if self._hop == 1:
            return near
        return Mux(self.mode == Mode.OS, Value.cast(near), Value.cast(far))


class TopEdge(Unit):
    """Presents the top beat to column c, c slots late, and tells which columns hold operands.

    A beat is held until the next one is taken, while the interleaved sums use it. `valids[c]`
    says whether column c takes part in the fold being loaded: the last load beat's lane, which
    belongs to row 0 and so exists wherever the column holds anything, was valid.

    Latency: 0 slots for column 0, c for column c. Throughput: a beat a slot. Back-pressure:
    nothing moves while `advance` is 0. Reset: lanes invalid. An invalid lane reads as zero.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        cols = arch.cols
        super().__init__(
            {
                "advance": In(1),
                "take": In(1),
                "beat": In(shapes.top_beat(arch)),
                "load": In(1),
                "kept": Out(data.ArrayLayout(shapes.kept_pairs(arch), cols)),
                "loads": Out(cols),
                "valids": Out(cols),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the edge."""
        m = Module()
        load = self.load
        for col in range(self.arch.cols):
            lane = structured(shapes.top_lane(self.arch), f"lane_{col}")
            entering = self._held(m, col) if self.arch.issue_slots > 1 else self.beat[col]
            m.d.comb += lane.eq(late(m, self.advance, entering, col, f"col_{col}"))
            load = late(m, self.advance, load, min(col, 1), f"load_{col}")
            held = Signal(name=f"held_{col}")
            with m.If(self.advance & load):
                m.d.sync += held.eq(lane.valid)
            m.d.comb += [
                self.kept[col].eq(_masked(lane, lane.kept)),
                self.loads[col].eq(load),
                self.valids[col].eq(held),
            ]
        return m

    def _held(self, m: Module, col: int) -> Any:
        entering = structured(shapes.top_lane(self.arch), f"entering_{col}")
        held = late(m, self.advance, entering, 1, f"beat_{col}")
        m.d.comb += entering.eq(held)
        with m.If(self.take):
            m.d.comb += entering.eq(self.beat[col])
        return entering
