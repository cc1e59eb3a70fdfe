"""The DMA's address side: one transfer at a time, a beat a cycle, loads and stores in turn."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, fifo
from amaranth.lib.wiring import In, Out

from rtl.machine import shapes
from rtl.unit import Unit, structured
from simulator.arch import NMArray

__all__ = ["Dma", "Walk"]

OUTSTANDING = 16
"""Loads whose data may be under way."""

INCR = 1


class Walk(Unit):
    """Walks a transfer's beats through runs and three strides, cut into bursts.

    `beat` is the current beat's address, `burst` the beats of a burst that starts there, `head`
    whether one does, `last` the transfer's last beat. Moves on with `advance`; `load` starts anew.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "step": In(shapes.dma_step(arch)),
                "load": In(1),
                "advance": In(1),
                "beat": Out(shapes.BEAT_BITS),
                "burst": Out(range(shapes.BURST_BEATS + 1)),
                "head": Out(1),
                "burst_last": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the walk; `step` need only hold while `load`."""
        m = Module()
        step = structured(shapes.dma_step(self.arch), "held")
        left, run, burst = (
            Signal(shapes.COUNT_BITS, name=n) for n in ("left", "run", "burst_left")
        )
        counts = [Signal(shapes.COUNT_BITS, name=f"count_{level}") for level in range(3)]
        starts = [Signal(shapes.BEAT_BITS, name=f"start_{level}") for level in range(3)]
        page = shapes.PAGE_BYTES // shapes.beat_bytes(self.arch)
        to_page = page - self.beat[: (page - 1).bit_length()]
        limit = Signal(shapes.COUNT_BITS)
        run_last = Signal()
        m.d.comb += [
            limit.eq(Mux(to_page < shapes.BURST_BEATS, to_page, shapes.BURST_BEATS)),
            self.burst.eq(Mux(run < limit, run, limit)),
            self.head.eq(burst == 0),
            self.burst_last.eq(Mux(self.head, self.burst, burst) == 1),
            self.last.eq(left == 1),
            run_last.eq(run == 1),
        ]
        with m.If(self.load):
            m.d.sync += [step.eq(self.step), left.eq(self.step.beats), run.eq(self.step.run)]
            m.d.sync += [self.beat.eq(self.step.address), burst.eq(0)]
            m.d.sync += [signal.eq(self.step.address) for signal in starts]
            m.d.sync += [
                count.eq(self.step[f"count_{level}"]) for level, count in enumerate(counts)
            ]
        with m.Elif(self.advance):
            m.d.sync += [left.eq(left - 1), burst.eq(Mux(self.head, self.burst, burst) - 1)]
            with m.If(run_last):
                m.d.sync += run.eq(step.run)
                self._next_run(m, step, counts, starts, 0)
            with m.Else():
                m.d.sync += [run.eq(run - 1), self.beat.eq(self.beat + 1)]
        return m

    def _next_run(
        self, m: Module, step: Any, counts: list[Signal], starts: list[Signal], level: int
    ) -> None:
        """Place the next run: by this level's stride, or the next level's when it is through."""
        if level == len(counts):
            return
        place = (starts[level] + step[f"stride_{level}"])[: shapes.BEAT_BITS]
        with m.If(counts[level] > 1):
            m.d.sync += [counts[level].eq(counts[level] - 1), self.beat.eq(place)]
            m.d.sync += [start.eq(place) for start in starts[: level + 1]]
            m.d.sync += [counts[lower].eq(step[f"count_{lower}"]) for lower in range(level)]
        with m.Else():
            self._next_run(m, step, counts, starts, level + 1)


class Dma(Unit):
    """Issues read addresses, and writes the beats it is offered.

    A step occupies the DMA for its beats. A load's burst address leaves `READ_DELAY` cycles after
    its first beat's turn, once all writes issued before it are acknowledged; its data come back
    to the `Receiver`, which is told of every load with `begun`. A store's beat leaves a cycle
    after its turn. `taking` marks the cycles in which `beat` is consumed, `first` the first of a
    step, `quiet` that all writes are acknowledged. Back-pressure: a channel that is not ready holds
    the DMA, and so does a write burst while 127 are not acknowledged or have passed a waiting read.
    Reset: idle.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        bits = shapes.beat_bits(arch)
        super().__init__(
            {
                "go": In(1),
                "step": In(shapes.dma_step(arch)),
                "free": Out(1),
                "given": Out(len(shapes.CHANNELS)),
                "begun": Out(shapes.dma_step(arch)),
                "begun_enable": Out(1),
                "room": In(1),
                "current": Out(shapes.dma_step(arch)),
                "taking": Out(1),
                "first": Out(1),
                "beat": In(bits),
                "bus": Out(shapes.axi(arch)),
                "busy": Out(1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the DMA."""
        m = Module()
        m.submodules.walk = walk = Walk(self.arch)
        current = self.current
        advance, last = Signal(), Signal()
        m.d.comb += [
            walk.step.eq(self.step),
            walk.load.eq(self.go),
            walk.advance.eq(advance),
            last.eq(advance & walk.last),
            self.free.eq(~self.busy | last),
            self.given.eq(Mux(last, current.frees, 0)),
            self.begun.eq(current),
            self.begun_enable.eq(advance & self.first & ~current.store),
            self.taking.eq(advance & current.store),
        ]
        with m.If(self.go):
            m.d.sync += [current.eq(self.step), self.busy.eq(1), self.first.eq(1)]
        with m.Elif(last):
            m.d.sync += self.busy.eq(0)
        with m.Elif(advance):
            m.d.sync += self.first.eq(0)
        issued = Signal(shapes.WRITE_BITS)
        reads_go = self._reads(m, walk, advance, issued)
        m.d.comb += self.quiet.eq(self._done == issued)
        writes_go = self._writes(m, walk, advance, issued)
        room = ~self.first | self.room
        m.d.comb += advance.eq(self.busy & Mux(current.store, writes_go, reads_go & room))
        return m

    def _address(self, walk: Walk, port: Any) -> list[Any]:
        size = (shapes.beat_bytes(self.arch) - 1).bit_length()
        return [
            port.addr.eq(walk.beat << size),
            port.len.eq(walk.burst - 1),
            port.size.eq(size),
            port.burst.eq(INCR),
        ]

    def _reads(self, m: Module, walk: Walk, advance: Value, issued: Signal) -> Value:
        """Issue read addresses behind the writes before them; returns whether a beat may go."""
        self._done = done = Signal(shapes.WRITE_BITS, name="acknowledged")
        entry = data.StructLayout(
            {"address": shapes.read_address(), "seen": shapes.WRITE_BITS, "valid": 1}
        )
        stages = [structured(entry, f"read_{stage}") for stage in range(shapes.READ_DELAY)]
        out = stages[-1]
        behind, ahead = Signal(shapes.WRITE_BITS), Signal(shapes.WRITE_BITS)
        self._full = ahead[-1]
        moves = Signal(name="reads_move")
        m.d.comb += [
            behind.eq(done - out.seen),
            # Counts wrap: writes wait while one more could make a difference of them ambiguous.
            ahead.eq(issued + 1 - Mux(out.valid, out.seen, done)),
            self.bus.ar.valid.eq(out.valid & ~behind[-1]),
            self.bus.ar.payload.eq(out.address),
            moves.eq(~out.valid | (self.bus.ar.valid & self.bus.ar.ready)),
            self.bus.b.ready.eq(1),
        ]
        with m.If(self.bus.b.valid):
            m.d.sync += done.eq(done + 1)
        with m.If(moves):
            m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
            m.d.sync += [
                *self._address(walk, stages[0].address),
                stages[0].seen.eq(issued),
                stages[0].valid.eq(advance & ~self.current.store & walk.head),
            ]
        return moves

    def _writes(self, m: Module, walk: Walk, advance: Value, issued: Signal) -> Value:
        """Hold a write address and a write beat each until taken; returns whether a beat may go."""
        aw, w = self.bus.aw, self.bus.w
        begins = (~aw.valid | aw.ready) & ~self._full
        goes = (~walk.head | begins) & (~w.valid | w.ready)
        taking = Signal(name="writing")
        m.d.comb += taking.eq(advance & self.current.store)
        with m.If(aw.ready):
            m.d.sync += aw.valid.eq(0)
        with m.If(w.ready):
            m.d.sync += w.valid.eq(0)
        with m.If(taking):
            m.d.sync += [
                w.valid.eq(1),
                w.payload.data.eq(self.beat),
                w.payload.strb.eq(Const(-1, shapes.beat_bytes(self.arch))),
                w.payload.last.eq(walk.burst_last),
            ]
            with m.If(walk.head):
                m.d.sync += [aw.valid.eq(1), issued.eq(issued + 1)]
                m.d.sync += self._address(walk, aw.payload)
        return goes


class Receiver(Unit):
    """The data side of loads: takes beats as they come and cuts them into items.

    Items of a beat are written in its cycle. `given` are the tokens of a load whose last beat is
    here and that needs no selection; the others' beats are offered on `picked`. Back-pressure:
    never. Reset: no load is under way.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "begun": In(shapes.dma_step(arch)),
                "begun_enable": In(1),
                "room": Out(1),
                "valid": In(1),
                "data": In(shapes.beat_bits(arch)),
                "current": Out(shapes.dma_step(arch)),
                "first": Out(1),
                "last": Out(1),
                "given": Out(len(shapes.CHANNELS)),
                "picked": Out(1),
                **{
                    f"write_{i}": Out(shapes.item_write(arch))
                    for i in range(shapes.beat_items(arch))
                },
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the receiver."""
        m = Module()
        layout = shapes.dma_step(self.arch)
        m.submodules.queue = queue = fifo.SyncFIFO(width=layout.size, depth=OUTSTANDING)
        beats, done = Signal(shapes.COUNT_BITS), Signal(shapes.COUNT_BITS)
        current = self.current
        m.d.comb += [
            queue.w_data.eq(self.begun),
            queue.w_en.eq(self.begun_enable),
            self.room.eq(queue.w_rdy),
            current.as_value().eq(queue.r_data),
            self.first.eq(beats == 0),
            self.last.eq(self.valid & (beats + 1 == current.beats)),
            queue.r_en.eq(self.last),
            self.given.eq(Mux(self.last & ~current.select, current.gives, 0)),
            self.picked.eq(self.valid & current.select),
        ]
        with m.If(self.valid):
            m.d.sync += beats.eq(Mux(self.last, 0, beats + 1))
        self._cut(m, current, done)
        return m

    def _cut(self, m: Module, current: Any, done: Signal) -> None:
        """Join the beat to the bits left over and write the whole items."""
        most, width = shapes.pair_bits(self.arch), shapes.beat_bits(self.arch)
        held, size = Signal(most), Signal(range(most))
        bits, there = Signal(most + width), Signal(range(most + width + 1))
        m.d.comb += [bits.eq(held | (self.data << size)), there.eq(size + width)]
        for extra in range(self.arch.index_bits + 1):
            item = shapes.VALUE_BITS + extra
            with m.If(current.extra == extra):
                count = Signal(range(shapes.beat_items(self.arch) + 1), name=f"items_{extra}")
                m.d.comb += count.eq(
                    sum(there >= item * (i + 1) for i in range(shapes.beat_items(self.arch)))
                )
                for i in range(shapes.beat_items(self.arch)):
                    write = getattr(self, f"write_{i}")
                    m.d.comb += [
                        write.address.eq(current.base + done + i),
                        write.item.eq(bits[i * item : (i + 1) * item]),
                        write.enable.eq(
                            self.valid & ~current.select & (i < count) & (done + i < current.items)
                        ),
                    ]
                with m.If(self.valid):
                    m.d.sync += [
                        held.eq(bits >> (count * item)),
                        size.eq(there - count * item),
                        done.eq(done + count),
                    ]
        with m.If(self.last):
            m.d.sync += [held.eq(0), size.eq(0), done.eq(0)]


class Packer(Unit):
    """The data side of stores: packs items of 16 + `extra` bits tight into beats.

    It asks for the items from number `asked` on and makes a beat of them in the same cycle; items
    beyond the transfer's are zero. Moves on with `taking`. Reset: nothing left over.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "step": In(shapes.dma_step(arch)),
                "first": In(1),
                "taking": In(1),
                "asked": Out(shapes.COUNT_BITS),
                "beat": Out(shapes.beat_bits(arch)),
                **{f"item_{i}": In(shapes.pair_bits(arch)) for i in range(shapes.beat_items(arch))},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the packer."""
        m = Module()
        most, width = shapes.pair_bits(self.arch), shapes.beat_bits(self.arch)
        items = shapes.beat_items(self.arch)
        held, held_size, next_item = Signal(most), Signal(range(most)), Signal(shapes.COUNT_BITS)
        left, size = Signal(most), Signal(range(most))
        bits = Signal(items * most + most)
        m.d.comb += [
            left.eq(Mux(self.first, 0, held)),
            size.eq(Mux(self.first, 0, held_size)),
            self.asked.eq(Mux(self.first, 0, next_item)),
            self.beat.eq(bits),
        ]
        for extra in range(self.arch.index_bits + 1):
            item = shapes.VALUE_BITS + extra
            with m.If(self.step.extra == extra):
                joined: Any = left
                for i in range(items):
                    there = self.asked + i < self.step.items
                    word = Mux(there, getattr(self, f"item_{i}")[:item], 0)
                    joined = joined | (word << (i * item) << size)
                count = Signal(range(items + 1), name=f"items_{extra}")
                m.d.comb += [
                    bits.eq(joined),
                    # As many as it takes to fill the beat.
                    count.eq(sum(size + item * i < width for i in range(items))),
                ]
                with m.If(self.taking):
                    m.d.sync += [
                        held.eq(bits >> width),
                        held_size.eq(size + count * item - width),
                        next_item.eq(self.asked + count),
                    ]
        return m
