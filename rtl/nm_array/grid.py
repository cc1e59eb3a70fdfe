"""The NMArray's grid: R x C processing elements and the wires between neighbours."""

from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.nm_array.pe import ProcessingElement
from rtl.shapes import Mode
from rtl.unit import Unit
from simulator.arch import NMArray

__all__ = ["Grid"]


class Grid(Unit):
    """Wires the PEs: operands and control to the right, kept pairs, loads and sums downwards.

    Latency: PE (r, c) sees a row's operand c slots and a column's operand r slots after it enters.
    Throughput: one slot a cycle. Back-pressure: nothing moves while `advance` is 0. Reset: clears
    every PE. `full` and `gated` count the slot's multiplier uses a cycle late.

    With `pe_module` the PEs are instances of a module of that name, elaborated elsewhere once.
    """

    def __init__(self, arch: NMArray, *, pe_module: str | None = None) -> None:
        self.arch = arch
        self.pe_module = pe_module
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
        m.d.comb += [self.sums[col].eq(pes[-1][col].sum_out) for col in cols]
        m.d.comb += self.emitting.eq(pes[-1][-1].control_in.emit)
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
        name = f"pe_{row}_{col}"
        if self.pe_module is None:
            m.submodules[name] = pe = ProcessingElement(self.arch)
            return pe
        # The instance's ports as free signals: nothing of the PE is elaborated here.
        pe = wiring.Signature(shapes.nm_pe(self.arch)).create(path=(name,))
        ports = {
            f"{'i' if member.flow is In else 'o'}_{port}": Value.cast(getattr(pe, port))
            for port, member in shapes.nm_pe(self.arch).items()
        }
        m.submodules[name] = Instance(
            self.pe_module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports
        )
        return pe

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
            pe.release.eq(pes[-1][col].fresh),
        ]
