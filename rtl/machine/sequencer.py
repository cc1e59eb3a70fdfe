"""The sequencer: starts every unit's instructions when their tokens are there."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import In, Out

from rtl.machine import shapes
from rtl.machine.shapes import CHANNELS, UNITS, Bank
from rtl.shapes import COUNTER_BITS
from rtl.unit import Unit, structured
from simulator.arch import NMArray
from simulator.schedule import Unit as Step

__all__ = ["Sequencer"]


class Sequencer(Unit):
    """Program memories, token counters and the barrier between operators.

    A unit that is `free` - idle, or in the last cycle of its step - gets its next instruction with
    `go` when all tokens it waits for are there, those given in this very cycle included; it works
    from the next cycle on. So steps follow without a gap. When every unit is free and none has
    another instruction of the operator, the next operator's first instructions go in that same
    cycle, with that operator's initial tokens.

    Latency: `start` to the first `go` one cycle. Reset: idle; memories keep their contents.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        mask = len(CHANNELS)
        ports: dict[str, Any] = {
            "load": In(shapes.load_word(arch)),
            "load_enable": In(1),
            "start": In(1),
            "done": Out(1),
            "given": In(mask),
            "cycles": Out(COUNTER_BITS),
            "op_index": In(range(shapes.OPS)),
            "op_cycles": Out(COUNTER_BITS),
        }
        for unit, layout in shapes.steps(arch).items():
            ports |= {f"{unit}_go": Out(1), f"{unit}_step": Out(layout), f"{unit}_free": In(1)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the sequencer."""
        m = Module()
        running, op = Signal(), Signal(shapes.OP_BITS, init=shapes.OP_BEFORE)
        counters = structured(shapes.tokens(), "counters")
        following = (op + 1)[: shapes.OP_BITS]
        initial = self._initial(m, following)
        steps = {unit: self._program(m, unit) for unit in UNITS}
        here = {unit: steps[unit].op == op for unit in UNITS}
        barrier, last = Signal(), Signal()
        m.d.comb += [
            barrier.eq(running & Cat(self._free(u) & ~here[u] for u in UNITS).all()),
            last.eq(barrier & ~Cat(steps[u].op == following for u in UNITS).any()),
        ]
        there, fresh = Signal(len(CHANNELS)), Signal(len(CHANNELS))
        for bit in range(len(CHANNELS)):
            m.d.comb += [
                there[bit].eq(counters[bit].any() | self.given[bit]),
                fresh[bit].eq(initial[bit].any()),
            ]
        taken: Value = Cat(0)
        for unit in UNITS:
            step, go = steps[unit], getattr(self, f"{unit}_go")
            in_turn = here[unit] & ~(step.waits & ~there).any()
            begins = barrier & (step.op == following) & ~(step.waits & ~fresh).any()
            m.d.comb += go.eq(running & self._free(unit) & (in_turn | begins))
            taken = taken | Mux(go, step.waits, 0)
        for bit in range(len(CHANNELS)):
            held = Mux(barrier, initial[bit], counters[bit] + self.given[bit])
            m.d.sync += counters[bit].eq(held - taken[bit])
        with m.If(self.start):
            m.d.sync += [running.eq(1), self.done.eq(0), self.cycles.eq(0)]
        with m.Elif(last):
            m.d.sync += [running.eq(0), self.done.eq(1)]
        with m.If(self.start):
            m.d.sync += op.eq(shapes.OP_BEFORE)
        with m.Elif(barrier):
            m.d.sync += op.eq(following)
        self._count(m, running, barrier, op)
        return m

    def _free(self, unit: str) -> Value:
        free: Value = getattr(self, f"{unit}_free")
        return free

    def _loaded(self, m: Module, words: memory.Memory, bank: Bank) -> None:
        port = words.write_port()
        m.d.comb += [
            port.addr.eq(self.load.address),
            port.data.eq(self.load.word),
            port.en.eq(self.load_enable & (self.load.bank == bank)),
        ]

    def _program(self, m: Module, unit: Step) -> Any:
        """Return the unit's next instruction."""
        step = getattr(self, f"{unit}_step")
        depth = shapes.PROGRAM_STEPS[unit]
        words: Any = memory.Memory(shape=step.shape().size, depth=depth, init=[])
        m.submodules[f"{unit}_program"] = words
        self._loaded(m, words, Bank[unit.name])
        counter = Signal(range(depth), name=f"{unit}_counter")
        read = words.read_port(domain="comb")
        m.d.comb += [read.addr.eq(counter), step.as_value().eq(read.data)]
        with m.If(self.start):
            m.d.sync += counter.eq(0)
        with m.Elif(getattr(self, f"{unit}_go")):
            m.d.sync += counter.eq(counter + 1)
        return step

    def _initial(self, m: Module, op: Value) -> Any:
        """Return the initial tokens of an operator."""
        layout = shapes.tokens()
        words: Any = memory.Memory(shape=layout.size, depth=2**shapes.OP_BITS, init=[])
        m.submodules.tokens = words
        self._loaded(m, words, Bank.TOKENS)
        read, found = words.read_port(domain="comb"), structured(layout, "initial")
        m.d.comb += [read.addr.eq(op), found.as_value().eq(read.data)]
        return found

    def _count(self, m: Module, running: Value, barrier: Value, op: Value) -> None:
        """Count all cycles, and those of every operator: from one barrier to the next."""
        words: Any = memory.Memory(shape=COUNTER_BITS, depth=2**shapes.OP_BITS, init=[])
        m.submodules.op_cycles = words
        spent = Signal(COUNTER_BITS)
        write, read = words.write_port(), words.read_port(domain="comb")
        begun = op != shapes.OP_BEFORE
        m.d.sync += spent.eq(Mux(barrier, 1, spent + 1))
        with m.If(running & begun):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        m.d.comb += [
            write.addr.eq(op),
            write.data.eq(spent),
            write.en.eq(barrier & begun),
            read.addr.eq(self.op_index),
            self.op_cycles.eq(read.data),
        ]
