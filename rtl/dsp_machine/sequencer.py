"""Queues, tokens and the start of every instruction."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import fifo
from amaranth.lib.wiring import In, Out

from rtl.dsp_machine import shapes
from rtl.dsp_machine.shapes import MODULES
from rtl.shapes import COUNTER_BITS
from rtl.unit import Unit
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["Sequencer", "spread"]


def spread(owner: Unit_, mask: Value) -> Value:
    """Return a bit for every module of a 5-bit mask of the others, the first of them highest."""
    others = [module for module in MODULES if module is not owner]
    bits = {module: mask[len(others) - 1 - place] for place, module in enumerate(others)}
    return Cat(bits.get(module, Const(0)) for module in MODULES)


class Sequencer(Unit):
    """Starts the instructions of six queues in order, each when its tokens are there.

    A module that is `free` - idle, or in the last cycle of its instruction - gets the next one with
    `go` when every token it waits for is there, those given in this very cycle included; it works
    from the next cycle on. `given` has a bit for each module that gets a token of the owner,
    `more` a second set (ST's link and memory may end together). `run` holds everything until the
    queues are primed.

    `stuck` says that nothing runs or is `pending` and the program has not ended; `missing` then has
    the sources of the tokens that a waiting instruction lacks. Reset: idle, no tokens.
    """

    def __init__(self) -> None:
        ports: dict[str, Any] = {
            "start": In(1),
            "run": In(1),
            "ended": In(1),
            "blocked": In(1),
            "pending": In(1),
            "set_channel": In(range(len(MODULES) ** 2)),
            "set_tokens": In(shapes.TOKEN_BITS),
            "set_enable": In(1),
            "more": In(len(MODULES)),
            "done": Out(1),
            "stuck": Out(1),
            "cycles": Out(COUNTER_BITS),
        }
        for module in MODULES:
            name, layout = module.lower(), shapes.instruction(module)
            ports |= {
                name: In(shapes.stream_of(layout)),
                f"{name}_go": Out(1),
                f"{name}_item": Out(layout),
                f"{name}_free": In(1),
                f"{name}_busy": In(1),
                f"{name}_given": In(len(MODULES)),
                f"{name}_cycles": Out(COUNTER_BITS),
                f"{name}_missing": Out(len(MODULES)),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the sequencer."""
        m = Module()
        waiting = []
        for module in MODULES:
            queue = self._queue(m, module)
            self._start(m, module, queue.r_rdy)
            waiting.append(queue.r_rdy)
            m.d.comb += queue.r_en.eq(getattr(self, f"{module.lower()}_go"))
        idle = ~Cat(getattr(self, f"{u.lower()}_busy") for u in MODULES).any()
        goes = Cat(getattr(self, f"{u.lower()}_go") for u in MODULES).any()
        empty = ~Cat(waiting).any()
        quiet = self.run & idle & ~goes & ~self.pending
        m.d.comb += [
            self.done.eq(quiet & empty & self.ended),
            self.stuck.eq(quiet & Mux(empty, self.blocked, self.ended | self.blocked)),
        ]
        self._count(m)
        return m

    def _queue(self, m: Module, module: Unit_) -> Any:
        name = module.lower()
        entry, item = getattr(self, name), getattr(self, f"{name}_item")
        queue = fifo.SyncFIFOBuffered(width=item.shape().size, depth=shapes.QUEUE)
        m.submodules[f"queue_{name}"] = queue
        m.d.comb += [
            queue.w_en.eq(entry.valid),
            queue.w_data.eq(entry.payload.as_value()),
            entry.ready.eq(queue.w_rdy),
            item.as_value().eq(queue.r_data),
        ]
        return queue

    def _start(self, m: Module, module: Unit_, there: Value) -> None:
        """Let a module start when it is free and its tokens are there."""
        name, place = module.lower(), MODULES.index(module)
        go, waits = getattr(self, f"{name}_go"), Signal(len(MODULES), name=f"{name}_waits")
        lack = getattr(self, f"{name}_missing")
        masked = spread(module, getattr(self, f"{name}_item").waits)
        m.d.comb += waits.eq(Mux(there, masked, 0))
        for source, giver in enumerate(MODULES):
            channel = source * len(MODULES) + place
            held = Signal(shapes.TOKEN_BITS, name=f"tokens_{giver.lower()}_{name}")
            given = getattr(self, f"{giver.lower()}_given")[place]
            more = self.more[place] if giver is Unit_.ST else Const(0)
            m.d.comb += lack[source].eq(waits[source] & (held == 0) & ~given & ~more)
            with m.If(self.set_enable & (self.set_channel == channel)):
                m.d.sync += held.eq(self.set_tokens)
            with m.Else():
                m.d.sync += held.eq(held + given + more - (go & waits[source]))
        m.d.comb += go.eq(self.run & there & getattr(self, f"{name}_free") & ~lack.any())

    def _count(self, m: Module) -> None:
        """Count cycles of the run up to the last of any module, and busy ones by module."""
        spent = Signal(COUNTER_BITS)
        works = [getattr(self, f"{module.lower()}_busy") for module in MODULES]
        m.d.sync += spent.eq(Mux(self.run, spent + 1, 0))
        with m.If(self.start):
            m.d.sync += self.cycles.eq(0)
        with m.Elif(self.run & Cat(works).any()):
            m.d.sync += self.cycles.eq(spent)
        for module, busy in zip(MODULES, works, strict=True):
            total = getattr(self, f"{module.lower()}_cycles")
            with m.If(self.start):
                m.d.sync += total.eq(0)
            with m.Elif(busy):
                m.d.sync += total.eq(total + 1)
