"""The dequantiser in Amaranth: densely packed codes of 3, 4, 5 or 8 bits to scaled int8."""

from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.float.pipeline import delayed
from rtl.shapes import COUNTER_BITS, LENGTH_BITS
from rtl.streams import beats, carried, count, enable, offer
from rtl.unit import Unit, add_part, structured
from simulator.arch.dequantiser import CODE_BITS, SCALE_BITS, SHIFT_BITS, DequantiserParams

__all__ = ["Dequantiser", "DequantiserLane", "dequantiser_job", "dequantiser_ports"]

WORD_UNITS = 8
"""Bits of a code at most; a word holds as many units of one bit a lane."""


def dequantiser_job() -> data.StructLayout:
    """Run-time settings of one DequantiserJob."""
    lengths = dict.fromkeys(("beats", "scale_beats"), unsigned(LENGTH_BITS))
    return data.StructLayout({"bits": unsigned(4), **lengths})


def _factor() -> data.StructLayout:
    return data.StructLayout({"scale": unsigned(SCALE_BITS), "shift": unsigned(SHIFT_BITS)})


def dequantiser_ports(params: DequantiserParams) -> dict[str, wiring.Member]:
    """Ports of the dequantiser: lane 0 lowest, words as they lie in memory."""
    counts = dict.fromkeys(("side_beats", "top_beats", "out_beats"), unsigned(COUNTER_BITS))
    return {
        "job": In(stream.Signature(dequantiser_job())),
        "side": In(stream.Signature(unsigned(WORD_UNITS * params.lanes))),
        "top": In(stream.Signature(_factor())),
        "out": Out(stream.Signature(data.ArrayLayout(signed(8), params.lanes))),
        "counters": Out(data.StructLayout(counts)),
    }


def _lane() -> dict[str, wiring.Member]:
    return {
        "advance": In(1),
        "code": In(signed(8)),
        "factor": In(_factor()),
        "weight": Out(signed(8)),
    }


class DequantiserLane(Unit):
    """Scales one code: a product, then a rounding shift that saturates.

    Latency: 2 slots. Throughput: one code a slot. Back-pressure: holds while `advance` is 0.
    """

    def __init__(self, params: DequantiserParams) -> None:
        super().__init__(_lane())

    def elaborate(self, platform: object) -> Module:
        """Build the lane."""
        m = Module()
        product = delayed(m, self.advance, self.code * self.factor.scale, 1)
        shift = delayed(m, self.advance, self.factor.shift, 1)
        down = (product + ((1 << shift) >> 1)) >> shift
        with m.If(self.advance):
            m.d.sync += self.weight.eq(Mux(down > 127, 127, Mux(down < -128, -128, down)))
        return m


class Dequantiser(Unit):
    """Takes codes packed without gaps and hands over int8 weights, `lanes` a beat.

    It moves in slots, all of it or none: a slot takes a word if the bits left over do not fill its
    beat, and a scale and shift if its beat starts a group.

    Latency: a job accepted in one cycle has its slot 0 offered in the next; weights are offered
    `DequantiserParams.latency` slots after their beat's. Throughput: one beat a slot, jobs without
    a gap. Back-pressure: `ready` of either operand depends on the other's `valid` and on
    `out.ready`; `out.valid` depends on registers only. Reset: synchronous, idle, counters zero.
    """

    def __init__(self, params: DequantiserParams, *, part_module: str | None = None) -> None:
        self.params, self.part_module = params, part_module
        super().__init__(dequantiser_ports(params))

    def elaborate(self, platform: object) -> Module:
        """Build the dequantiser."""
        m = Module()
        self._settings = structured(dequantiser_job(), "settings")
        self._running, self._first = Signal(name="running"), Signal(name="first")
        left = Signal(range(WORD_UNITS), name="left")
        take_side = self._running & (left < self._settings.bits)
        slot = enable(m, self, take_side, self._running & self._first)
        ends = self._walk(m, slot.advance)
        bits = self._unpack(m, slot.advance, take_side, left, ends)
        self._lanes(m, slot.advance, bits)
        there = structured(data.StructLayout({"there": 1}), "slot")
        m.d.comb += there.there.eq(self._running)
        line = carried(m, slot.advance, there, self.params.latency - 1)
        offer(m, self.out, slot.advance, line.there)
        count(m, self.counters, beats(self))
        return m

    def _walk(self, m: Module, advance: Value) -> Value:
        """Count beats of groups and of the job; returns whether this slot ends the job."""
        settings, ends = self._settings, Signal(name="ends")
        beat, in_group = (Signal(LENGTH_BITS, name=name) for name in ("beat", "in_group"))
        m.d.comb += [
            ends.eq(self._running & advance & (beat + 1 == settings.beats)),
            self._first.eq(in_group == 0),
            self.job.ready.eq(~self._running | ends),
        ]
        with m.If(self._running & advance):
            wraps = ends | (in_group + 1 == settings.scale_beats)
            m.d.sync += [beat.eq(Mux(ends, 0, beat + 1)), in_group.eq(Mux(wraps, 0, in_group + 1))]
        with m.If(self.job.ready):
            m.d.sync += [self._running.eq(self.job.valid), settings.eq(self.job.payload)]
        return ends

    def _unpack(
        self, m: Module, advance: Value, take_side: Value, left: Signal, ends: Value
    ) -> Value:
        """Keep the bits that are left over; returns this slot's, lowest first.

        A unit is a bit for every lane: a word has 8 of them, a beat as many as a code has bits.
        """
        lanes, bits = self.params.lanes, self._settings.bits
        kept = Signal((WORD_UNITS - 1) * lanes, name="kept")
        both = Signal((2 * WORD_UNITS - 1) * lanes, name="both")
        placed = Array(self.side.payload << (units * lanes) for units in range(WORD_UNITS))[left]
        rest = Array(both >> (units * lanes) for units in range(WORD_UNITS + 1))[bits]
        m.d.comb += both.eq(kept | Mux(take_side, placed, 0))
        with m.If(advance & self._running):
            m.d.sync += [
                kept.eq(Mux(ends, 0, rest)),
                left.eq(Mux(ends, 0, left + Mux(take_side, WORD_UNITS, 0) - bits)),
            ]
        return both

    def _lanes(self, m: Module, advance: Value, bits: Value) -> None:
        held, factor = (structured(_factor(), name) for name in ("held", "factor"))
        m.d.comb += factor.eq(Mux(self._first, Value.cast(self.top.payload), Value.cast(held)))
        with m.If(advance):
            m.d.sync += held.eq(factor)
        for position in range(self.params.lanes):
            lane: Any = add_part(
                m,
                f"lane_{position}",
                _lane(),
                lambda: DequantiserLane(self.params),
                self.part_module,
            )
            m.d.comb += [
                lane.advance.eq(advance),
                lane.factor.eq(factor),
                lane.code.eq(self._code(m, bits, position)),
                self.out.payload[position].eq(lane.weight),
            ]

    def _code(self, m: Module, bits: Value, position: int) -> Value:
        """Return a lane's code for the job's width."""
        code = Signal(signed(8), name=f"code_{position}")
        with m.Switch(self._settings.bits):
            for width in CODE_BITS:
                with m.Case(width):
                    field = bits[position * width : (position + 1) * width]
                    m.d.comb += code.eq(field.as_signed())
        return code
