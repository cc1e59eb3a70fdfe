"""The MPE's controller: walks a ChainJob's slots with counters alone."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain import shapes
from rtl.shapes import LENGTH_BITS
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import MpeParams

__all__ = ["Controller"]


class Controller(Unit):
    """Turns a job into the loads and passes of each slot.

    A step lasts until its set's passes are done and the next set is loaded; a job is the first
    set's load and one step a set.

    Latency: a job accepted in one cycle has its slot 0 offered in the next. Throughput: one slot
    a cycle; the next job is accepted in the cycle of the current job's last slot. Back-pressure:
    nothing moves while `advance` is 0, and no job is accepted while one runs. Reset: idle.
    """

    def __init__(self, params: MpeParams) -> None:
        self.params = params
        super().__init__(
            {
                "job": In(stream.Signature(shapes.chain_job())),
                "advance": In(1),
                "running": Out(1),
                "take_side": Out(1),
                "take_top": Out(1),
                "bank": Out(shapes.bank_load(params.chain)),
                "control": Out(shapes.pass_control(params)),
                "single": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the controller."""
        m = Module()
        settings = structured(shapes.chain_job(), "settings")
        computes, step = Signal(name="computes"), Signal(name="step")
        passes_done, last_pass = self._passes(m, settings.tokens, computes, step)
        first_group, last_group, last_set = self._sets(m, settings, computes & step)
        loads = ~computes | ~last_set
        loaded = self._loads(m, loads, step)
        end = step & computes & last_set
        m.d.comb += [
            step.eq(self.running & self.advance & passes_done & loaded),
            self.control.there.eq(self.take_side),
            self.control.first.eq(first_group),
            self.control.last.eq(last_group),
            self.single.eq(last_pass & settings.tokens[0]),
            self.job.ready.eq(~self.running | end),
        ]
        with m.If(step):
            m.d.sync += [computes.eq(~end), self.bank.bank.eq(~self.bank.bank)]
        with m.If(self.job.ready):
            m.d.sync += [self.running.eq(self.job.valid), settings.eq(self.job.payload)]
        return m

    def _passes(
        self, m: Module, tokens: Value, computes: Value, step: Value
    ) -> tuple[Value, Value]:
        """Walk a set's passes; returns whether they are done after this slot, or in the last."""
        passes = (tokens + 1) >> 1
        taken = Signal.like(passes, name="taken")
        last = taken + 1 == passes
        m.d.comb += [
            self.take_side.eq(self.running & computes & (taken != passes)),
            self.control.address.eq(taken),
        ]
        with m.If(step):
            m.d.sync += taken.eq(0)
        with m.Elif(self.advance & self.take_side):
            m.d.sync += taken.eq(taken + 1)
        return ~self.take_side | last, last

    def _loads(self, m: Module, loads: Value, step: Value) -> Value:
        """Walk a set's loads; returns whether they are done after this slot."""
        blocks = self.params.chain.load_slots
        block = Signal(range(blocks + 1), name="loaded")
        m.d.comb += [
            self.take_top.eq(self.running & loads & (block != blocks)),
            self.bank.load.eq(self.take_top & self.advance),
            self.bank.block.eq(block),
        ]
        with m.If(step):
            m.d.sync += block.eq(0)
        with m.Elif(self.bank.load):
            m.d.sync += block.eq(block + 1)
        return ~self.take_top | (block + 1 == blocks)

    def _sets(self, m: Module, settings: Any, done: Value) -> tuple[Value, Value, Value]:
        """Walk the sets; returns whether one is a tile's first, a tile's last, or the last."""
        group, tile = (Signal(LENGTH_BITS, name=name) for name in ("group", "tile"))
        last_group = group + 1 == settings.groups
        last = last_group & (tile + 1 == settings.tiles)
        with m.If(done):
            m.d.sync += group.eq(Mux(last_group, 0, group + 1))
            with m.If(last_group):
                m.d.sync += tile.eq(Mux(last, 0, tile + 1))
        return group == 0, last_group, last
