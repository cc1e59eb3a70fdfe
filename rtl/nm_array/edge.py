"""The NMArray's operand edges: lanes are masked, held for a group and skewed."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.unit import Unit, structured
from simulator.arch import NMArray

__all__ = ["SideEdge", "TopEdge"]


def _masked(lane: Any, payload: Value) -> Value:
    return Mux(lane.valid, Value.cast(payload), 0)


class SideEdge(Unit):
    """Presents the side beat to row r, r slots late, and holds it until the next one is taken.

    Latency: 0 slots for row 0, r for row r. Throughput: a beat a slot. Back-pressure: nothing
    moves while `advance` is 0. Reset: lanes invalid. An invalid lane reads as zero.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        rows = arch.rows
        super().__init__(
            {
                "advance": In(1),
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
            held = Signal.like(lane, name=f"held_{row}")
            offered = self.beat[row]
            m.d.comb += lane.eq(held)
            with m.If(self.take):
                m.d.comb += [
                    lane.valid.eq(offered.valid),
                    lane.data.eq(_masked(offered, offered.data)),
                ]
            with m.If(self.advance):
                m.d.sync += held.eq(lane)
            m.d.comb += self.lanes[row].eq(_late(m, self.advance, lane, row, f"row_{row}"))
            above = self.control if row == 0 else self.controls[row - 1]
            slots = min(row, 1)
            m.d.comb += self.controls[row].eq(
                _late(m, self.advance, above, slots, f"control_{row}")
            )
        return m


class TopEdge(Unit):
    """Presents the top beat to column c, c slots late, and tells which columns hold operands.

    `valids[c]` says whether column c takes part in the fold being loaded: the last load beat's
    lane, which belongs to row 0 and so exists wherever the column holds anything, was valid.
    Latency: 0 slots for column 0, c for column c. Throughput: a beat a slot. Back-pressure:
    nothing moves while `advance` is 0. Reset: lanes invalid. An invalid lane reads as zero.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        cols = arch.cols
        super().__init__(
            {
                "advance": In(1),
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
            m.d.comb += lane.eq(_late(m, self.advance, self.beat[col], col, f"col_{col}"))
            load = _late(m, self.advance, load, min(col, 1), f"load_{col}")
            held = Signal(name=f"held_{col}")
            with m.If(self.advance & load):
                m.d.sync += held.eq(lane.valid)
            m.d.comb += [
                self.kept[col].eq(_masked(lane, lane.kept)),
                self.loads[col].eq(load),
                self.valids[col].eq(held),
            ]
        return m


def _late(m: Module, advance: Value, value: Any, slots: int, name: str) -> Any:
    """Return `value` delayed by `slots` slots."""
    for stage in range(slots):
        register = Signal.like(value, name=f"{name}_{stage}")
        with m.If(advance):
            m.d.sync += register.eq(value)
        value = register
    return value
