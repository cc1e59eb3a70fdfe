"""The NMArray's controller: walks an ArrayJob's slots with counters alone."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl import shapes
from rtl.nm_array.slots import by_mode
from rtl.shapes import Mode
from rtl.unit import Unit, structured
from simulator.arch import Dataflow, NMArray
from simulator.arch.nm_job import fold_rows, overhead_slots, swap_slots

__all__ = ["Controller"]


class Controller(Unit):
    """Turns a job into the controls and operand needs of each slot.

    Latency: a job accepted in one cycle has its slot 0 offered in the next. Throughput: one slot
    a cycle; the next job is accepted in the cycle of the current job's last slot, so jobs follow
    without a gap. Back-pressure: nothing moves while `advance` is 0, and no job is accepted while
    one runs. Reset: idle.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        super().__init__(
            {
                "job": In(stream.Signature(shapes.job(arch))),
                "advance": In(1),
                "running": Out(1),
                "streaming": Out(1),
                "mode": Out(Mode),
                "tap": Out(range(arch.max_m)),
                "take_side": Out(1),
                "take_top": Out(1),
                "row": Out(shapes.row_control(arch)),
                "load": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the controller."""
        m = Module()
        self._settings = settings = structured(shapes.job(self.arch), "settings")
        self._is_os = settings.mode == Mode.OS
        self._streaming, self._loading, self._stream_last = Signal(), Signal(), Signal()
        self._fold = Signal(shapes.LENGTH_BITS)
        self._fold_last = self._fold + 1 == settings.folds
        depth = Mux(settings.mode == Mode.IS, settings.group, settings.kept)
        m.d.comb += [self.mode.eq(settings.mode), self.tap.eq(depth - 1)]
        self._stream(m)
        self._load(m, depth)
        if self.arch.overlap:
            self._look_ahead(m)
        self._walk(m)
        return m

    def _count(
        self, m: Module, limit: Value | int, enable: Value, name: str
    ) -> tuple[Value, Value]:
        """Count enabled slots from 0 to limit - 1 and around; returns the counter and its last."""
        counter = Signal(range(limit) if isinstance(limit, int) else limit.shape(), name=name)
        last = Signal(name=f"{name}_last")
        m.d.comb += last.eq(enable & (counter + 1 == limit))
        with m.If(self.advance & enable):
            m.d.sync += counter.eq(Mux(last, 0, counter + 1))
        return counter, last

    def _stream(self, m: Module) -> None:
        """Walk a fold's stream: interleaved sums inside kept values inside blocks of the fold.

        A block is a group for OS and I streamed vectors, the last ones fewer, for WS and IS.
        """
        arch, kept = self.arch, self._settings.kept
        slot, value_last = self._count(m, arch.issue_slots, self._streaming, "slot")
        pick, pair, block_last = self._pick(m, value_last)
        done, step = Signal(shapes.LENGTH_BITS), by_mode(self.mode, self._block_items)
        active, first, fold_first, last = (
            Signal(name=n) for n in ("active", "first", "fold_first", "last")
        )
        m.d.comb += [
            self._stream_last.eq(block_last & (done + step >= self._settings.length)),
            active.eq(self._streaming & self._sums_exist(slot, done)),
            first.eq(self._streaming & (pick == 0)),
            fold_first.eq(first & (done == 0)),
            last.eq(pair + arch.macs_per_pe >= kept),
        ]
        with m.If(self.advance & block_last):
            m.d.sync += done.eq(Mux(self._stream_last, 0, done + step))
        fold_last = last & (done + step >= self._settings.length)
        m.d.comb += [
            self.take_side.eq(active & ((self.mode == Mode.IS) | first)),
            self.take_top.eq((self._streaming & self._is_os & (slot == 0)) | self._loading),
            self.row.active.eq(active),
            self.row.clear.eq(Mux(self._is_os, fold_first, first)),
            self.row.emit.eq(active & Mux(self._is_os, fold_last, last)),
            self.row.swap.eq(fold_first & (slot == 0) & ~self._is_os),
            self.row.pick.eq(pick),
            self.row.used.eq(Cat(pair + u < kept for u in range(arch.macs_per_pe))),
        ]

    def _pick(self, m: Module, value_last: Value) -> tuple[Value, Value, Value]:
        """Walk a block's kept values; returns slot, first pair, and whether the block ends."""
        macs, kept = self.arch.macs_per_pe, self._settings.kept
        pick = Signal(range(shapes.pair_slots(self.arch)))
        pair = Signal.like(kept)
        last = Signal(name="block_last")
        m.d.comb += last.eq(value_last & (pair + macs >= kept))
        with m.If(self.advance & value_last):
            m.d.sync += [pick.eq(Mux(last, 0, pick + 1)), pair.eq(Mux(last, 0, pair + macs))]
        return pick, pair, last

    def _block_items(self, dataflow: Dataflow) -> int:
        return 1 if dataflow is Dataflow.OS else self.arch.interleave

    def _sums_exist(self, slot: Value, done: Value) -> Value:
        """Tell whether one of the block's sums has its turn in this slot."""
        if self.arch.issue_slots == 1:
            return Const(1)
        there = self._is_os | (done + slot < self._settings.length)
        return (slot < self.arch.interleave) & there

    def _load(self, m: Module, depth: Value) -> None:
        """Walk a fold's load: values of a PE inside rows of the column."""
        _, item_last = self._count(m, depth, self._loading, "item")
        _, self._load_last = self._count(m, self.arch.rows, item_last, "load_row")
        m.d.comb += self.load.eq(self._loading)

    def _look_ahead(self, m: Module) -> None:
        """Load the next fold once this fold's swap has passed all rows (OS: its drain chain).

        `ahead` tells that the next fold may start in the next slot.
        """
        self._waiting, self._prefetching = Signal(), Signal()
        self._ready, self._ahead = Signal(), Signal()
        _, waited = self._count(m, by_mode(self.mode, self._hold), self._waiting, "waited")
        done = Mux(self._is_os, waited, self._prefetching & self._load_last)
        m.d.comb += self._ahead.eq(self._ready | done)
        with m.If(self.advance):
            with m.If(done):
                m.d.sync += [self._ready.eq(1), self._prefetching.eq(0)]
            with m.If(waited):
                m.d.sync += self._waiting.eq(0)
                m.d.sync += self._prefetching.eq(~self._is_os & ~self._fold_last)

    def _hold(self, dataflow: Dataflow) -> int:
        if dataflow is Dataflow.OS:
            return fold_rows(self.arch)
        return swap_slots(self.arch, dataflow)

    def _walk(self, m: Module) -> None:
        """Go through the job: LOAD (first, without overlap every fold), STREAM, PAD, TAIL."""
        tails = [overhead_slots(self.arch, dataflow) for dataflow in Dataflow]
        tail = by_mode(self.mode, lambda dataflow: overhead_slots(self.arch, dataflow))
        with m.FSM() as fsm:
            with m.State("IDLE"):
                self._accept(m)
            with m.State("LOAD"), m.If(self.advance & self._load_last):
                self._begin_stream(m)
            with m.State("STREAM"), m.If(self.advance & self._stream_last):
                self._stream_end(m, tail)
            if self.arch.overlap:
                with m.State("PAD"), m.If(self.advance & self._ahead):
                    self._next_fold(m)
            if max(tails):
                with m.State("TAIL"):
                    _, tail_last = self._count(m, tail, fsm.ongoing("TAIL"), "tail")
                    with m.If(self.advance & tail_last):
                        self._fold_end(m)
        prefetching = self._prefetching if self.arch.overlap else 0
        m.d.comb += [
            self.running.eq(~fsm.ongoing("IDLE")),
            self._streaming.eq(fsm.ongoing("STREAM")),
            self.streaming.eq(self._streaming),
            self._loading.eq(fsm.ongoing("LOAD") | prefetching),
        ]

    def _accept(self, m: Module) -> None:
        """Take the next job in this cycle, or idle."""
        m.d.comb += self.job.ready.eq(1)
        m.d.sync += self._fold.eq(0)
        m.next = "IDLE"
        with m.If(self.job.valid):
            m.d.sync += self._settings.eq(self.job.payload)
            with m.If(self.job.payload.mode == Mode.OS):
                self._begin_stream(m)
            with m.Else():
                m.next = "LOAD"

    def _begin_stream(self, m: Module) -> None:
        m.next = "STREAM"
        if self.arch.overlap:
            m.d.sync += [self._waiting.eq(1), self._ready.eq(0)]

    def _stream_end(self, m: Module, tail: Value | int) -> None:
        """Leave a fold's last stream slot."""

        def finish() -> None:
            if not isinstance(tail, int):
                m.next = "TAIL"
                with m.If(tail == 0):
                    self._fold_end(m)
            elif tail:
                m.next = "TAIL"
            else:
                self._fold_end(m)

        if not self.arch.overlap:
            finish()
            return
        with m.If(self._fold_last):
            finish()
        with m.Elif(self._ahead):
            self._next_fold(m)
        with m.Else():
            m.next = "PAD"

    def _fold_end(self, m: Module) -> None:
        with m.If(self._fold_last):
            self._accept(m)
        with m.Else():
            self._next_fold(m)

    def _next_fold(self, m: Module) -> None:
        m.d.sync += self._fold.eq(self._fold + 1)
        if self.arch.overlap:
            self._begin_stream(m)
            return
        with m.If(self._is_os):
            self._begin_stream(m)
        with m.Else():
            m.next = "LOAD"
