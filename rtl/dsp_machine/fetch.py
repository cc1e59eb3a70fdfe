"""Instruction fetch and decode: words of a program from memory to the queues of six modules."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from rtl.dsp_machine import shapes
from rtl.dsp_machine.reader import Reader
from rtl.dsp_machine.shapes import MODULES
from rtl.unit import Unit
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa.layout import OPCODES, WORDS

__all__ = ["Decoder", "Fetch"]


class Fetch(Unit):
    """Reads a program's `words`, from address 0 of its memory on, as fast as they are taken.

    It asks for `BURST_WORDS` at a time when there is room for them, so `r.ready` is always 1.
    Latency: that of the memory and a register. Throughput: a word a cycle. Reset: idle.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "start": In(1),
                "words": In(shapes.COUNT_BITS),
                "bus": Out(shapes.reading(arch)),
                "word": Out(shapes.stream_of(shapes.WORD_BITS)),
                "ended": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the fetch."""
        m = Module()
        m.submodules.reader = reader = Reader(self.arch)
        m.submodules.words = words = fifo.SyncFIFOBuffered(
            width=shapes.WORD_BITS, depth=shapes.FETCHED
        )
        wiring.connect(m, wiring.flipped(self.bus.ar), reader.ar)
        at, left = Signal(shapes.BEAT_BITS), Signal(shapes.COUNT_BITS)
        held, taken = Signal(range(shapes.FETCHED + 1)), Signal()
        burst, room = Signal(range(shapes.BURST_WORDS + 1)), Signal()
        m.d.comb += [
            burst.eq(Mux(left < shapes.BURST_WORDS, left, shapes.BURST_WORDS)),
            room.eq(held <= shapes.FETCHED - shapes.BURST_WORDS),
            reader.go.eq((left != 0) & reader.free & room & ~self.start),
            reader.start.eq(at),
            reader.beats.eq(burst),
            self.bus.r.ready.eq(1),
            words.w_en.eq(self.bus.r.valid),
            words.w_data.eq(self.bus.r.payload.data),
            self.word.valid.eq(words.r_rdy),
            self.word.payload.eq(words.r_data),
            words.r_en.eq(self.word.ready),
            taken.eq(self.word.valid & self.word.ready),
            self.ended.eq((left == 0) & (held == 0)),
        ]
        m.d.sync += held.eq(held + Mux(reader.go, burst, 0) - taken)
        with m.If(self.start):
            m.d.sync += [at.eq(0), left.eq(self.words)]
        with m.Elif(reader.go):
            m.d.sync += [at.eq(at + burst), left.eq(left - burst)]
        return m


class Decoder(Unit):
    """Gathers the words of an instruction and puts it into the queue of its module.

    Latency: one cycle for every word; the last one goes into the queue at once. Back-pressure: a
    full queue holds all that follow; `waits` says so. An unknown opcode ends decoding and sets
    `unknown`. Reset: nothing gathered, number 0.
    """

    def __init__(self) -> None:
        queues = {m.lower(): Out(shapes.stream_of(shapes.instruction(m))) for m in MODULES}
        super().__init__(
            {
                "start": In(1),
                "word": In(shapes.stream_of(shapes.WORD_BITS)),
                "waits": Out(1),
                "unknown": Out(1),
                "idle": Out(1),
                **queues,
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the decoder."""
        m = Module()
        longest = max(WORDS.values())
        kept = [Signal(shapes.WORD_BITS, name=f"word_{i}") for i in range(longest - 1)]
        count, number = Signal(range(longest)), Signal(shapes.NUMBER_BITS)
        first = Mux(count == 0, self.word.payload, kept[0])
        complete, room = Signal(), Signal()
        m.d.comb += self.idle.eq(count == 0)
        with m.Switch(first[28:]):
            for module, opcode in OPCODES.items():
                with m.Case(opcode):
                    self._offer(m, module, kept, count, number, complete, room)
            with m.Default():
                m.d.comb += complete.eq(0)
                with m.If(self.word.valid & ~self.start):
                    m.d.sync += self.unknown.eq(1)
        m.d.comb += [
            self.word.ready.eq(~self.unknown & (~complete | room)),
            self.waits.eq(self.word.valid & complete & ~room),
        ]
        with m.If(self.word.valid & self.word.ready):
            m.d.sync += count.eq(Mux(complete, 0, count + 1))
            m.d.sync += number.eq(number + complete)
            for position, word in enumerate(kept):
                with m.If(count == position):
                    m.d.sync += word.eq(self.word.payload)
        with m.If(self.start):
            m.d.sync += [count.eq(0), number.eq(0), self.unknown.eq(0)]
        return m

    def _offer(
        self,
        m: Module,
        module: Any,
        kept: list[Signal],
        count: Signal,
        number: Signal,
        complete: Signal,
        room: Signal,
    ) -> None:
        """Offer the instruction to its queue with its last word."""
        queue, words = getattr(self, module.lower()), WORDS[module]
        gathered: list[Value] = [*kept[: words - 1], self.word.payload]
        m.d.comb += [
            complete.eq(count == words - 1),
            room.eq(queue.ready),
            queue.valid.eq(self.word.valid & complete & ~self.unknown),
            queue.payload.as_value().eq(Cat(*gathered, number)),
        ]
