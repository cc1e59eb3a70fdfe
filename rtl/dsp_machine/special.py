"""MISC: rows of the out buffer through the special-function unit."""

from typing import Any, Final

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain.special import Special
from rtl.dsp_machine import shapes
from rtl.dsp_machine.sequencer import spread
from rtl.dsp_machine.shapes import MODULES
from rtl.dsp_machine.store import results_of
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import DspChain
from simulator.arch.special import FRACTION_BITS, SpecialOp
from simulator.dsp_isa.layout import NORM_EPSILON, MiscOp
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["RowUnit"]

NORMS: Final = (MiscOp.LAYERNORM, MiscOp.RMSNORM)
CODES: Final = tuple(SpecialOp[op.name].value for op in sorted(MiscOp))


class RowUnit(Unit):
    """The MISC module: a group of a row a cycle, statistics first where an operation needs them.

    `length` is the tokens attended to: its last group is what softmax looks at of its own, unless
    it is causal. Rows are a line of groups each, or `blocked`: a group of all rows after the other.
    Latency: `DspChain.misc_pipeline_cycles` from a group's turn to its results written.
    Throughput: one instruction at a time. Back-pressure: none. Reset: idle.
    """

    def __init__(self, arch: DspChain, *, part_module: str | None = None) -> None:
        self.arch, self.part_module = arch, part_module
        word = shapes.WORD_RESULTS * shapes.RESULT_BITS
        super().__init__(
            {
                "go": In(1),
                "item": In(shapes.instruction(Unit_.MISC)),
                "length": In(shapes.COUNT_BITS),
                "free": Out(1),
                "busy": Out(1),
                "given": Out(len(MODULES)),
                "a_at": Out(shapes.OUT_BITS),
                "a": In(word),
                "b_at": Out(shapes.OUT_BITS),
                "b": In(word),
                "write": Out(shapes.out_write(arch)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        m.submodules.unit = unit = Special(shapes.special(self.arch), part_module=self.part_module)
        self._held = held = structured(shapes.instruction(Unit_.MISC), "held")
        left, last = Signal(30), Signal()
        self._job(m, unit)
        self._operands(m, unit)
        m.d.comb += [
            last.eq(self.busy & unit.out.valid & (left == 1)),
            self.free.eq(~self.busy | last),
            self.given.eq(Mux(last, spread(Unit_.MISC, held.releases), 0)),
        ]
        row, group = self._walk(m, "written", unit.out.valid, Const(0), held.blocked)
        m.d.comb += [
            unit.out.ready.eq(1),
            self.write.at.eq((held.out << shapes.WORD_SHIFT) + row + group),
            self.write.results.eq(unit.out.payload.as_value()),
            self.write.enable.eq(Mux(unit.out.valid, (1 << shapes.WORD_RESULTS) - 1, 0)),
        ]
        with m.If(self.go):
            m.d.sync += [
                self.busy.eq(1),
                held.eq(self.item),
                left.eq(self.item.rows * self.item.groups),
            ]
        with m.Elif(unit.out.valid):
            m.d.sync += [self.busy.eq(~last), left.eq(left - 1)]
        return m

    def _job(self, m: Module, unit: Any) -> None:
        """Tell the unit what to do; rows are whole groups, but softmax's."""
        item, job = self.item, unit.job.payload
        tail = ((self.length - 1) & (CANDIDATES - 1)) + 1
        soft = item.op == MiscOp.SOFTMAX
        ends = Mux(soft, tail, CANDIDATES)
        length, causal = Signal(job.length.shape()), item.b != 0
        codes: Any = Array(Const(code, 3) for code in CODES)
        m.d.comb += [
            unit.job.valid.eq(self.go),
            job.op.as_value().eq(codes[item.op]),
            length.eq(Mux(soft & causal, item.b, (item.groups - 1) * CANDIDATES + ends)),
            job.length.eq(length),
            job.beats.eq(item.groups),
            job.grows.eq(soft & causal),
            job.rows.eq(item.rows),
            job.floor.eq(length * length * NORM_EPSILON),
        ]

    def _walk(
        self, m: Module, name: str, moves: Value, two: Value, blocked: Value
    ) -> tuple[Signal, Signal]:
        """Walk the groups of all rows, `two` times each row; returns where row and group lie."""
        held, again = self._held, Signal(name=f"{name}_again")
        row, group = (Signal(shapes.OUT_BITS, name=f"{name}_{part}") for part in ("row", "group"))
        count, ends = Signal(shapes.GROUP_BITS, name=f"{name}_count"), Signal(name=f"{name}_ends")
        m.d.comb += ends.eq(count + 1 == held.groups)
        with m.If(self.go):
            m.d.sync += [signal.eq(0) for signal in (row, group, count, again)]
        with m.Elif(moves):
            m.d.sync += [
                count.eq(Mux(ends, 0, count + 1)),
                group.eq(Mux(ends, 0, group + Mux(blocked, held.rows, 1))),
            ]
            with m.If(ends):
                m.d.sync += again.eq(two & ~again)
                with m.If(~two | again):
                    m.d.sync += row.eq(row + Mux(blocked, 1, held.groups))
        return row, group

    def _operands(self, m: Module, unit: Any) -> None:
        """Bring a's groups, twice where they are read twice, and b's beside the results'."""
        held = self._held
        two = Signal()
        m.d.comb += two.eq(
            (held.op == MiscOp.SOFTMAX) | Cat(held.op == norm for norm in NORMS).any()
        )
        row, group = self._walk(m, "a_read", unit.side.ready, two, held.blocked)
        b_row, b_group = self._walk(m, "b_read", unit.side.ready, two, Const(0))
        m.d.comb += [
            self.a_at.eq((held.a << shapes.WORD_SHIFT) + row + group),
            self.b_at.eq((held.b << shapes.WORD_SHIFT) + Mux(held.repeat, 0, b_row) + b_group),
            unit.side.valid.eq(1),
            unit.top.valid.eq(1),
        ]
        results = results_of(self.a)
        for place, result in enumerate(results):
            turned = results[place ^ CANDIDATES // 2]
            m.d.comb += unit.side.payload[place].eq(Mux(held.turn, turned, result))
        norm = Cat(held.op == each for each in NORMS).any()
        for place, other in enumerate(results_of(self.b)):
            pair = unit.top.payload[place]
            m.d.comb += pair[0].eq(Mux(norm, 1 << FRACTION_BITS, other))
