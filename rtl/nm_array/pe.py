"""The unified sparse processing element of the NMArray."""

from typing import Any, assert_never

from amaranth.hdl import Cat, Module, Mux, Signal, Value

from rtl import shapes
from rtl.nm_array.float_sums import FloatSums
from rtl.shapes import Mode
from rtl.unit import Unit, structured
from simulator.arch import NMArray, Precision

__all__ = ["ProcessingElement"]


class ProcessingElement(Unit):
    """Selects candidates by index and accumulates `macs_per_pe` products a slot.

    Latency: operands and control leave for the neighbours one slot after they arrive; an int8 sum
    that is final in a slot stands on `sum_out` in the next one, fp16 sums as `FloatSums` says.
    Throughput: one slot a cycle. Back-pressure: nothing moves while `advance` is 0. Reset: all
    registers of operands, control and int8 sums clear to zero.

    The int8 partial-sum register is also the drain chain of OS: a captured result is `fresh` and
    stays until `release` (the bottom PE of the column has become fresh), then moves down a row a
    slot. A capture wins over the shift, so the next fold may follow as soon as `rows` slots later.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(shapes.nm_pe(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the PE."""
        m = Module()
        arch, control = self.arch, self.control_in
        bank, bank_valid = self._bank(m)
        kept = self._kept(m, bank)
        group = structured(shapes.candidates(arch), "group")
        group_valid = Signal()
        m.d.comb += [
            group.eq(self.side_in.data.group),
            group_valid.eq(self.side_in.valid),
        ]
        with m.If(self.mode == Mode.IS):
            m.d.comb += [
                group.eq(Cat(bank[p].value for p in range(arch.max_m))),
                group_valid.eq(bank_valid),
            ]
        self._tally(m, kept, group_valid)
        match arch.precision:
            case Precision.INT8:
                self._accumulate(m, sum(group[pair.index] * pair.value for pair in kept))
            case Precision.FP16:
                self._add_floats(m, group[kept[0].index], kept[0].value)
            case _:
                assert_never(arch.precision)
        with m.If(self.advance):
            m.d.sync += [
                self.side_out.eq(self.side_in),
                self.control_out.eq(control),
                self.kept_out.eq(self.kept_in),
            ]
        return m

    def _bank(self, m: Module) -> tuple[Any, Value]:
        """Shift loads through the shadow bank; a swap hands it to the working bank at once."""
        shadow, working, bank = (
            structured(shapes.stationary_bank(self.arch), name)
            for name in ("shadow", "working", "bank")
        )
        working_valid, bank_valid = Signal(), Signal()
        swap = self.control_in.swap
        m.d.comb += [
            self.chain_out.eq(shadow[self.tap]),
            bank.eq(Mux(swap, shadow.as_value(), working.as_value())),
            bank_valid.eq(Mux(swap, self.load_valid, working_valid)),
        ]
        with m.If(self.advance & self.load):
            m.d.sync += shadow.eq(Cat(self.chain_in, shadow))
        with m.If(self.advance):
            m.d.sync += [working.eq(bank), working_valid.eq(bank_valid)]
        return bank, bank_valid

    def _kept(self, m: Module, bank: Any) -> list[Any]:
        """Choose the slot's kept pairs by dataflow; pairs that do not exist read as value 0."""
        arch = self.arch
        kept = structured(shapes.kept_pairs(arch), "kept")
        with m.Switch(self.mode):
            with m.Case(Mode.WS):
                width = kept.as_value().shape().width
                slot = bank.as_value().word_select(self.control_in.pick, width)
                m.d.comb += kept.eq(slot)
            with m.Case(Mode.IS):
                m.d.comb += kept.eq(self.side_in.data.kept)
            with m.Default():
                m.d.comb += kept.eq(self.kept_in)
        used = structured(shapes.kept_pairs(arch), "used")
        for position in range(arch.macs_per_pe):
            with m.If(self.control_in.active & self.control_in.used[position]):
                m.d.comb += used[position].eq(kept[position])
        return [used[position] for position in range(arch.macs_per_pe)]

    def _tally(self, m: Module, kept: list[Any], group_valid: Value) -> None:
        hits = sum(group_valid & self._is_nonzero(pair.value) for pair in kept)
        with m.If(self.control_in.active):
            m.d.comb += [self.full.eq(hits), self.gated.eq(len(kept) - hits)]

    def _is_nonzero(self, value: Value) -> Value:
        """Tell whether a kept value is not zero; fp16 has zeros of both signs."""
        return value != 0 if self.arch.precision is Precision.INT8 else value[:-1].any()

    def _add_floats(self, m: Module, operand: Value, value: Value) -> None:
        m.submodules.sums = sums = FloatSums(self.arch)
        control = self.control_in
        m.d.comb += [
            sums.operand.eq(operand),
            sums.value.eq(value),
            sums.use.eq(self.full),
            sums.clear.eq(control.clear),
            sums.emit.eq(control.emit),
            self.sum_out.eq(sums.sum_out),
            self.drain_out.eq(sums.drain_out),
        ]
        for name in ("advance", "mode", "sum_in", "release", "drain_in"):
            m.d.comb += getattr(sums, name).eq(getattr(self, name))

    def _accumulate(self, m: Module, products: Value) -> None:
        control = self.control_in
        total, restart, local = (Signal.like(self.sum_in, name=n) for n in ("total", "base", "own"))
        m.d.comb += [
            restart.eq(Mux(control.clear, 0, total)),
            local.eq(restart + products),
        ]
        with m.If(self.advance & control.active):
            m.d.sync += total.eq(local)
        with m.If(self.advance):
            with m.If(control.emit & (self.mode == Mode.OS)):
                m.d.sync += [self.sum_out.eq(local), self.fresh.eq(1)]
            with m.Elif(~self.fresh | self.release):
                own = Mux(control.emit, local, 0)
                m.d.sync += [self.sum_out.eq(self.sum_in + own), self.fresh.eq(0)]
