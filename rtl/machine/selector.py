"""Selections: SORE with a place for its pairs, and the transposer in front of it."""

from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, fifo
from amaranth.lib.wiring import In, Out

from rtl.machine import shapes
from rtl.machine.feeder import accumulated, counted
from rtl.sore import Sore
from rtl.unit import Unit, structured
from simulator.arch import NMArray
from simulator.arch.sore import SoreParams

__all__ = ["Selector", "Transposer", "values"]

JOBS = 16
"""Selections whose values may be under way."""


def values(lanes: int) -> data.ArrayLayout:
    """One fp16 value of every lane."""
    return data.ArrayLayout(shapes.VALUE_BITS, lanes)


class Transposer(Unit):
    """Takes blocks of M beats of M values and hands each over transposed.

    Latency: the first transposed beat stands in the cycle after the block's last beat. Throughput:
    a beat a cycle. Back-pressure: none; a block leaves while the next one comes. Reset: empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(
            {
                "valid": In(1),
                "beat": In(values(size)),
                "out_valid": Out(1),
                "out": Out(values(size)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the transposer."""
        m = Module()
        size = self.size
        filling, leaving = (
            [structured(values(size), f"{name}_{i}") for i in range(size)]
            for name in ("filling", "leaving")
        )
        taken, left = Signal(range(size)), Signal(range(size + 1))
        full = Signal()
        m.d.comb += [full.eq(self.valid & (taken == size - 1)), self.out_valid.eq(left != 0)]
        with m.If(self.valid):
            m.d.sync += taken.eq(Mux(full, 0, taken + 1))
            m.d.sync += Array(row.as_value() for row in filling)[taken].eq(self.beat)
        with m.If(full):
            m.d.sync += left.eq(size)
            m.d.sync += [now.eq(row) for now, row in zip(leaving, filling, strict=True)]
            m.d.sync += leaving[-1].eq(self.beat)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
            for row in leaving:
                m.d.sync += row.as_value().eq(row.as_value() >> shapes.VALUE_BITS)
        m.d.comb += [self.out[i].eq(row[0]) for i, row in enumerate(leaving)]
        return m


class Selector(Unit):
    """SORE, told of every selection ahead of its values, with a place for each one's pairs.

    Latency: pairs of a group are written from the cycle after its last value on, one a lane and
    cycle. `given` are a selection's tokens with its last pairs. Back-pressure: none: SORE is ready
    for a value a cycle, since no group is shorter than its N. Reset: no selection.
    """

    def __init__(self, params: SoreParams, arch: NMArray) -> None:
        self.params, self.arch = params, arch
        super().__init__(
            {
                "place": In(shapes.place()),
                "place_enable": In(1),
                "valid": In(1),
                "beat": In(values(params.lanes)),
                "weight": Out(1),
                "given": Out(len(shapes.CHANNELS)),
                **{f"write_{i}": Out(shapes.item_write(arch)) for i in range(params.lanes)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the selector."""
        m = Module()
        m.submodules.sore = sore = Sore(self.params)
        # A selection may begin in the next cycle already: its job need not wait in the queue.
        passes_by, waiting = Signal(), Signal()
        job = self._queue(m, "jobs", sore.job.ready, self.place_enable & ~passes_by)
        chosen = Mux(waiting, job.place.as_value(), self.place.as_value())
        told = structured(shapes.place(), "told")
        settings = sore.job.payload
        m.d.comb += [
            waiting.eq(job.ready),
            passes_by.eq(~waiting & sore.job.ready),
            told.as_value().eq(chosen),
            sore.job.valid.eq(waiting | self.place_enable),
            settings.kept.eq(told.kept),
            settings.group.eq(told.group),
            settings.length.eq(told.length),
            settings.passes.eq(1),
            sore.side.valid.eq(self.valid),
            sore.side.payload.eq(self.beat),
            sore.out.ready.eq(1),
        ]
        last = Signal()
        place = self._queue(m, "places", last, self.place_enable).place
        _, wraps = counted(m, sore.out.valid, [place.outer, place.inner, place.kept], "pair")
        m.d.comb += [
            last.eq(wraps[0]),
            self.weight.eq(place.weight),
            self.given.eq(Mux(last, place.gives, 0)),
        ]
        outer = accumulated(m, place.outer_stride, wraps[1], wraps[0], "outer")
        inner = accumulated(m, place.inner_stride, wraps[2], wraps[1], "inner")
        within = accumulated(m, place.pair_stride, sore.out.valid, wraps[2], "within")
        for lane in range(self.params.lanes):
            write, kept = getattr(self, f"write_{lane}"), sore.out.payload[lane]
            at = place.base + outer + inner + within + lane * place.lane_stride
            m.d.comb += [
                write.enable.eq(sore.out.valid),
                write.address.eq(at),
                write.item.eq(kept.as_value()),
            ]
        return m

    def _queue(self, m: Module, name: str, pops: Any, enters: Any) -> Any:
        """Return the head of a queue of places, `place`, and whether there is one, `ready`."""
        layout = shapes.place()
        m.submodules[name] = queue = fifo.SyncFIFO(width=layout.size, depth=JOBS)
        head = structured(data.StructLayout({"place": layout, "ready": 1}), f"{name}_head")
        m.d.comb += [
            queue.w_data.eq(self.place),
            queue.w_en.eq(enters),
            queue.r_en.eq(pops),
            head.place.as_value().eq(queue.r_data),
            head.ready.eq(queue.r_rdy),
        ]
        return head
