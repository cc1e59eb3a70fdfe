"""The NMArray's grid: R x C processing elements and the wires between neighbours."""

from typing import Any, assert_never

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.nm_array.drain import DrainPace
from rtl.nm_array.pe import ProcessingElement
from rtl.nm_array.slots import late
from rtl.shapes import Mode
from rtl.unit import Unit, add_part
from simulator.arch import Dataflow, NMArray, Precision
from simulator.arch.nm_job import sum_slots

__all__ = ["Grid"]


class Grid(Unit):
    """Wires the PEs: operands and control to the right, kept pairs, loads and sums downwards.

    Latency: PE (r, c) sees a row's operand c slots and a column's operand r slots after it enters.
    Throughput: one slot a cycle. Back-pressure: nothing moves while `advance` is 0. Reset: clears
    every PE. `full` and `gated` count the slot's multiplier uses a cycle late. The last column's
    result stands in the slot after `emitting`, a column's `rows` ones in those after `draining`.

    With `part_module` the PEs are instances of a module of that name, elaborated elsewhere once.
    """

    def __init__(self, arch: NMArray, *, part_module: str | None = None) -> None:
        self.arch = arch
        self.part_module = part_module
        super().__init__(
            {
                "advance": In(1),
                "mode": In(Mode),
                "tap": In(range(arch.max_m)),
                "lanes": In(data.ArrayLayout(shapes.side_lane(arch), arch.rows)),
                "controls": In(data.ArrayLayout(shapes.row_control(arch), arch.rows)),
                "kept": In(data.ArrayLayout(shapes.kept_pairs(arch), arch.cols)),
                "loads": In(arch.cols),
                "valids": In(arch.cols),
                "sums": Out(shapes.out_beat(arch)),
                "draining": Out(1),
                "emitting": Out(1),
                "full": Out(shapes.tally(arch, arch.pes)),
                "gated": Out(shapes.tally(arch, arch.pes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the grid."""
        m = Module()
        rows, cols = range(self.arch.rows), range(self.arch.cols)
        pes = [[self._place(m, row, col) for col in cols] for row in rows]
        for row in rows:
            for col in cols:
                self._connect(m, pes, row, col)
        match self.arch.precision:
            case Precision.INT8:
                self._lead_out(m, pes)
            case Precision.FP16:
                self._lead_out_floats(m, pes)
            case _:
                assert_never(self.arch.precision)
        for name in ("full", "gated"):
            m.d.comb += getattr(self, name).eq(sum(self._row_tally(m, row, name) for row in pes))
        return m

    def _row_tally(self, m: Module, row: list[Any], name: str) -> Signal:
        # A register a row keeps the adder tree off the array's critical path.
        tally = Signal(shapes.tally(self.arch, self.arch.cols))
        m.d.sync += tally.eq(0)
        with m.If(self.advance):
            m.d.sync += tally.eq(sum(getattr(pe, name) for pe in row))
        return tally

    def _place(self, m: Module, row: int, col: int) -> Any:
        members, arch = shapes.nm_pe(self.arch), self.arch
        return add_part(
            m, f"pe_{row}_{col}", members, lambda: ProcessingElement(arch), self.part_module
        )

    def _connect(self, m: Module, pes: list[list[Any]], row: int, col: int) -> None:
        pe = pes[row][col]
        left = pes[row][col - 1] if col else None
        above = pes[row - 1][col] if row else None
        kept = self.kept[col]
        m.d.comb += [
            pe.advance.eq(self.advance),
            pe.mode.eq(self.mode),
            pe.tap.eq(self.tap),
            pe.side_in.eq(left.side_out if left else self.lanes[row]),
            pe.control_in.eq(left.control_out if left else self.controls[row]),
            pe.kept_in.eq(above.kept_out if above else kept),
            pe.load.eq(self.loads[col]),
            pe.load_valid.eq(self.valids[col]),
            pe.chain_in.eq(above.chain_out if above else kept[0]),
            pe.sum_in.eq(above.sum_out if above else 0),
        ]

    def _lead_out(self, m: Module, pes: list[list[Any]]) -> None:
        """Take int8 results from the partial sums, which OS drains once the bottom one is fresh."""
        emit, is_os = pes[-1][-1].control_in.emit, self.mode == Mode.OS
        m.d.comb += [self.draining.eq(emit & is_os), self.emitting.eq(emit & ~is_os)]
        for col in range(self.arch.cols):
            bottom = pes[-1][col]
            m.d.comb += self.sums[col].eq(bottom.sum_out)
            m.d.comb += [row[col].release.eq(bottom.fresh) for row in pes]

    def _lead_out_floats(self, m: Module, pes: list[list[Any]]) -> None:
        """Take fp16 results from the drain chains while sets leave, else from the partial sums."""
        arch, is_os = self.arch, self.mode == Mode.OS
        m.submodules.pace = pace = DrainPace(arch)
        emit = pes[-1][-1].control_in.emit & ~is_os
        before = sum_slots(arch, Dataflow.WS) - 1
        m.d.comb += [
            pace.advance.eq(self.advance),
            pace.emit.eq(pes[-1][0].control_in.emit & is_os),
            self.draining.eq(pace.first),
            self.emitting.eq(late(m, self.advance, emit, before, "emitting")),
        ]
        for col in range(arch.cols):
            bottom = pes[-1][col]
            leaves = pace.leaving[col]
            m.d.comb += self.sums[col].eq(Mux(leaves, bottom.drain_out, bottom.sum_out))
            for above, row in zip([None, *pes], pes, strict=False):
                m.d.comb += row[col].release.eq(pace.release[col])
                m.d.comb += row[col].drain_in.eq(above[col].drain_out if above else 0)
