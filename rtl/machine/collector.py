"""The collector: adds the array's results to the sums of their tile."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import fifo, stream
from amaranth.lib.wiring import In, Out

from rtl import shapes as array_shapes
from rtl.float import FP32, Adder
from rtl.machine import shapes
from rtl.machine.feeder import accumulated, counted
from rtl.shapes import Mode
from rtl.unit import Unit, structured
from simulator.arch import NMArray
from simulator.arch.nm_job import fold_rows

__all__ = ["Collector"]

JOBS = 4
"""Jobs whose results may be on their way."""


class Collector(Unit):
    """Adds every result to the sum its row and column name, in the order results leave the array.

    A sum of another tile counts as +0, so nothing needs clearing, and places outside the image are
    dropped. Latency: a result taken in one cycle is in its sum in the next; the adder has no
    pipeline, so that results may fall on the same sum in consecutive cycles. Back-pressure: none;
    `out` is always ready. `given` are a job's tokens: with its last result, or with `ended` - its
    last slot - if that comes later. Reset: no job.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        table = range(shapes.TABLE_ENTRIES)
        ports: dict[str, Any] = {
            "step": In(shapes.array_step(arch)),
            "load": In(1),
            "ended": In(1),
            "given": Out(len(shapes.CHANNELS)),
            "out": In(stream.Signature(array_shapes.out_beat(arch))),
        }
        for lane in range(arch.cols):
            ports |= {
                f"out_row_{lane}": Out(table),
                f"out_col_{lane}": Out(table),
                f"row_entry_{lane}": In(shapes.table_entry()),
                f"col_entry_{lane}": In(shapes.table_entry()),
                f"at_{lane}": Out(shapes.ITEM_BITS),
                f"sum_{lane}": In(shapes.sum_word()),
                f"total_{lane}": Out(shapes.sum_word()),
                f"enable_{lane}": Out(1),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the collector."""
        m = Module()
        layout = shapes.array_step(self.arch)
        m.submodules.queue = queue = fifo.SyncFIFO(width=layout.size, depth=JOBS)
        self._step = step = structured(layout, "current")
        last = Signal()
        ends, ended = Signal(range(JOBS + 1)), Signal()
        m.d.comb += [
            step.as_value().eq(queue.r_data),
            queue.w_data.eq(self.step),
            queue.w_en.eq(self.load),
            self.out.ready.eq(1),
            ended.eq(ends.any() | self.ended),
        ]
        all_in = Signal()
        pops = Signal()
        m.d.comb += [
            pops.eq(queue.r_rdy & (all_in | last) & ended),
            queue.r_en.eq(pops),
            self.given.eq(Mux(pops, step.gives, 0)),
        ]
        m.d.sync += [
            all_in.eq((all_in | last) & ~pops),
            ends.eq(ends + self.ended - pops),
        ]
        places = {
            Mode.OS: self._places_os(m, last),
            Mode.WS: self._places_ws(m, last),
            Mode.IS: self._places_is(m, last),
        }
        row, col, spread = (Signal(shapes.COUNT_BITS, name=n) for n in ("row", "col", "spread"))
        with m.Switch(step.job.mode):
            for mode, (at_row, at_col, by_row) in places.items():
                with m.Case(mode):
                    m.d.comb += [row.eq(at_row), col.eq(at_col), spread.eq(by_row)]
        for lane in range(self.arch.cols):
            self._add(m, lane, Mux(spread, row + lane, row), Mux(spread, col, col + lane))
        return m

    def _beats(self, mode: Mode) -> Value:
        return self.out.valid & (self._step.job.mode == mode)

    def _places_os(self, m: Module, last: Signal) -> tuple[Value, Value, int]:
        arch, step = self.arch, self._step
        (_, _, part, up), wraps = counted(
            m, self._beats(Mode.OS), [step.outer, step.inner, arch.interleave, arch.rows], "os"
        )
        first = accumulated(m, fold_rows(arch), wraps[1], wraps[0], "os_m")
        col = accumulated(m, arch.cols, wraps[2], wraps[1], "os_n")
        with m.If(wraps[0]):
            m.d.comb += last.eq(1)
        return first + part * arch.rows + (arch.rows - 1 - up), col, 0

    def _places_ws(self, m: Module, last: Signal) -> tuple[Value, Value, int]:
        step = self._step
        (_, _, vector), wraps = counted(
            m, self._beats(Mode.WS), [step.outer, step.inner, step.job.length], "ws"
        )
        col = accumulated(m, self.arch.cols, wraps[1], wraps[0], "ws_n")
        with m.If(wraps[0]):
            m.d.comb += last.eq(1)
        return vector, col, 0

    def _places_is(self, m: Module, last: Signal) -> tuple[Value, Value, int]:
        step = self._step
        (_, _, vector), wraps = counted(
            m, self._beats(Mode.IS), [step.outer, step.inner, step.job.length], "is"
        )
        row = accumulated(m, self.arch.cols, wraps[1], wraps[0], "is_m")
        with m.If(wraps[0]):
            m.d.comb += last.eq(1)
        return row, vector, 1

    def _add(self, m: Module, lane: int, row: Value, col: Value) -> None:
        step = self._step
        places = [getattr(self, f"{axis}_entry_{lane}") for axis in ("row", "col")]
        old, new = (getattr(self, f"{name}_{lane}") for name in ("sum", "total"))
        m.submodules[f"adder_{lane}"] = adder = Adder(0, FP32)
        y, x = (places[0].y + places[1].y, places[0].x + places[1].x)
        inside = (y >= 0) & (y < step.out_height) & (x >= 0) & (x < step.out_width)
        there = (row < step.m_limit) & (col < step.n_limit)
        m.d.comb += [
            getattr(self, f"out_row_{lane}").eq(step.out_row + row),
            getattr(self, f"out_col_{lane}").eq(step.out_col + col),
            getattr(self, f"at_{lane}").eq(step.out_base + places[0].address + places[1].address),
            adder.advance.eq(1),
            adder.a.eq(Mux(old.tag == step.tag, old.value, 0)),
            adder.b.eq(self.out.payload[lane]),
            new.value.eq(adder.y),
            new.tag.eq(step.tag),
            getattr(self, f"enable_{lane}").eq(self.out.valid & inside & there),
        ]
