"""ST: results of the out buffer rounded to int8, to memory or over the link."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import fifo
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain.arithmetic import rounded, saturated
from rtl.dsp_machine import shapes
from rtl.dsp_machine.reader import INCR, Walk
from rtl.dsp_machine.sequencer import spread
from rtl.dsp_machine.shapes import MODULES
from rtl.machine import shapes as machine_shapes
from rtl.unit import Unit, structured
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["Store", "narrow", "results_of"]


def narrow(value: Value, shift: Value) -> Value:
    """Return a result divided by 2**shift as int8: halves up, saturated."""
    return saturated(rounded(value, shift), 8)


def results_of(word: Value) -> list[Value]:
    """Return the results of a word of the out buffer."""
    bits = shapes.RESULT_BITS
    return [word[bits * i :][:bits].as_signed() for i in range(shapes.WORD_RESULTS)]


class Store(Unit):
    """The ST module: a beat of memory, or a word of the link, a cycle.

    The link of a single core leads back into its own out buffer. Memory's tokens come with the
    acknowledgement of a store's last burst, the link's in its last cycle.

    Latency: a beat is on the bus in the cycle after its turn. Back-pressure: a channel that is not
    ready holds the module. Reset: idle, nothing unanswered.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        axi = machine_shapes.axi(arch).members
        super().__init__(
            {
                "go": In(1),
                "item": In(shapes.instruction(Unit_.ST)),
                "base": In(shapes.LINE_BITS),
                "free": Out(1),
                "busy": Out(1),
                "pending": Out(1),
                "given": Out(len(MODULES)),
                "linked": Out(len(MODULES)),
                "at": Out(shapes.OUT_BITS),
                "seen": In(shapes.WORD_RESULTS * shapes.RESULT_BITS),
                "write": Out(shapes.out_write(arch)),
                **{name: axi[name] for name in ("aw", "w", "b")},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        self._held = held = structured(shapes.instruction(Unit_.ST), "held")
        self._count = count = Signal(shapes.COUNT_BITS, name="count")
        self._last = last = Signal(name="last_turn")
        self._go_memory = self.go & ~self.item.link
        linking, memory_last = Signal(), Signal()
        advance = self._write(m, memory_last)
        with m.If(self.go):
            m.d.sync += [held.eq(self.item), count.eq(0), linking.eq(self.item.link)]
        with m.Elif(last):
            m.d.sync += linking.eq(0)
        with m.Elif(advance | linking):
            m.d.sync += count.eq(count + 1)
        link_last = linking & ((count + 1) * shapes.WORD_RESULTS >= held.bytes)
        m.d.comb += [
            last.eq(link_last | memory_last),
            self.busy.eq(linking | self._walk.busy),
            self.free.eq(~self.busy | last),
            self.linked.eq(Mux(link_last, spread(Unit_.ST, held.releases), 0)),
        ]
        self._data(m, linking)
        return m

    def _write(self, m: Module, last: Signal) -> Value:
        """Offer write addresses and beats; returns whether a beat's turn is used."""
        m.submodules.walk = self._walk = walk = Walk(self.arch)
        size = (shapes.beat_bytes(self.arch) - 1).bit_length()
        line = (shapes.line_beats(self.arch) - 1).bit_length()
        aw, w, advance = self.aw, self.w, Signal(name="advance")
        answers = self._answers(m, walk, advance)
        place, pitch = shapes.pieces(self.arch, self.item.split)
        goes = (~walk.head | ((~aw.valid | aw.ready) & answers)) & (~w.valid | w.ready)
        m.d.comb += [
            walk.go.eq(self._go_memory),
            walk.start.eq((self.base << line) + (self.item.address << place)),
            walk.pitch.eq(pitch),
            walk.beats.eq(self.item.bytes >> size),
            walk.advance.eq(advance),
            advance.eq(walk.busy & goes),
            last.eq(advance & walk.last),
        ]
        with m.If(aw.ready):
            m.d.sync += aw.valid.eq(0)
        with m.If(w.ready):
            m.d.sync += w.valid.eq(0)
        with m.If(advance):
            m.d.sync += [
                w.valid.eq(1),
                w.payload.strb.eq(Const(-1, shapes.beat_bytes(self.arch))),
                w.payload.last.eq(walk.burst_last),
            ]
            with m.If(walk.head):
                m.d.sync += [
                    aw.valid.eq(1),
                    aw.payload.addr.eq(walk.at << size),
                    aw.payload.len.eq(walk.burst - 1),
                    aw.payload.size.eq(size),
                    aw.payload.burst.eq(INCR),
                ]
        return advance

    def _answers(self, m: Module, walk: Walk, advance: Value) -> Value:
        """Keep what each unanswered burst gives when it is; returns whether there is room."""
        queue = fifo.SyncFIFO(width=len(MODULES), depth=shapes.STORES)
        m.submodules.answers = queue
        # A burst that ends its store has the store's tokens: it is the one its last beat ends.
        ends = advance & walk.burst_last
        gives = Mux(walk.last, spread(Unit_.ST, self._held.releases), 0)
        open_bursts = Signal(range(shapes.STORES + 1))
        begins = advance & walk.head
        m.d.comb += [
            queue.w_en.eq(ends),
            queue.w_data.eq(gives),
            queue.r_en.eq(self.b.valid),
            self.b.ready.eq(1),
            self.given.eq(Mux(self.b.valid, queue.r_data, 0)),
            self.pending.eq(open_bursts != 0),
        ]
        m.d.sync += open_bursts.eq(open_bursts + begins - self.b.valid)
        return open_bursts != shapes.STORES

    def _data(self, m: Module, linking: Value) -> None:
        """Read a word of results, narrow it, and hand on the beat's part or all of it."""
        held, count = self._held, self._count
        elements = shapes.beat_bytes(self.arch)
        parts = shapes.WORD_RESULTS // elements
        bytes_ = []
        for place, result in enumerate(results_of(self.seen)):
            byte = Signal(signed(8), name=f"narrow_{place}")
            m.d.comb += byte.eq(narrow(result, held.shift))
            bytes_.append(byte)
        beats: Any = Array(Cat(bytes_[elements * p :][:elements]) for p in range(parts))
        part_bits = (parts - 1).bit_length()
        word = Mux(linking, count, count >> part_bits)
        m.d.comb += [
            self.at.eq((held.bank << shapes.WORD_SHIFT) + word),
            self.write.at.eq((held.address[: shapes.LINES_BITS] << shapes.WORD_SHIFT) + count),
            self.write.results.eq(
                Cat((byte << held.shift)[: shapes.RESULT_BITS] for byte in bytes_)
            ),
            self.write.enable.eq(Mux(linking, (1 << shapes.WORD_RESULTS) - 1, 0)),
        ]
        with m.If(self._walk.advance):
            m.d.sync += self.w.payload.data.eq(beats[count[:part_bits]])
