"""The special-function unit in Amaranth: lanes, row statistics and controller."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import enum

from rtl.dsp_chain import special_shapes as shapes
from rtl.dsp_chain.arithmetic import looked_up, rounded, saturated, top_bit
from rtl.dsp_chain.special_shapes import Op
from rtl.float.pipeline import delayed
from rtl.shapes import LENGTH_BITS
from rtl.streams import beats, carried, count, enable, offer
from rtl.unit import Unit, add_part, structured
from simulator.arch.special import (
    ELEMENT_BITS,
    EXP2,
    EXPONENT_BITS,
    FRACTION_BITS,
    LOG2E,
    LOWEST_PEAK,
    MAX_LENGTH,
    POWER_BITS,
    PRECISE_BITS,
    RECIPROCAL,
    RSQRT,
    SIGMOID,
    SpecialParams,
)

__all__ = ["Special", "SpecialLane", "Statistics"]


def is_norm(op: Value) -> Value:
    """Tell whether an operation is one of the norms."""
    return (op == Op.LAYERNORM) | (op == Op.RMSNORM)


def is_two_phase(op: Value) -> Value:
    """Tell whether an operation reads its rows twice."""
    return (op == Op.SOFTMAX) | is_norm(op)


class SpecialLane(Unit):
    """Everything done to one element.

    `exponent` (softmax's t) is out 1 slot after its element, `power` 3 slots, `result` 6 slots;
    the row's sum is read in the element's slot, the peak 2 slots, scale and shift 3 and 4 slots
    after it. Throughput: one element a slot. Back-pressure: holds while `advance` is 0.
    """

    def __init__(self, params: SpecialParams) -> None:
        super().__init__(shapes.lane_ports())

    def elaborate(self, platform: object) -> Module:
        """Build the lane."""
        m = Module()
        op, found = self._later(m, self.op, 4), self.found
        early = Mux(op == Op.SILU, self._silu(m), self._later(m, self._element(), 4))
        product = self._later(m, self._power(m) * found.scale, 1)
        soft = saturated(rounded(product, found.down), ELEMENT_BITS)
        sixth = self._later(m, Mux(op == Op.SOFTMAX, soft, early), 1)
        norm = self._norm(m)
        result = Mux(is_norm(self._later(m, op, 1)), norm, sixth)
        valid = self._later(m, self.valid, 5)
        with m.If(self.advance):
            m.d.sync += self.result.eq(Mux(valid, result, 0))
        return m

    def _later(self, m: Module, value: Value, slots: int) -> Value:
        return delayed(m, self.advance, value, slots)

    def _element(self) -> Value:
        """Return the sum or product of both operands."""
        product = rounded(self.x * self.other[0], FRACTION_BITS)
        value = Mux(self.op == Op.MUL, product, self.x + self.other[0])
        return saturated(value, ELEMENT_BITS)

    def _silu(self, m: Module) -> Value:
        """Return SiLU 4 slots after its element."""
        x = self._later(m, self.x, 1)
        size = self._later(m, Mux(self.x < 0, -self.x, self.x)[:ELEMENT_BITS], 1)
        limit = (len(SIGMOID.knots) - 1) << SIGMOID.low_bits
        inside = looked_up(m, "sigmoid", SIGMOID, size[: limit.bit_length() - 1])
        gate = Mux(size < limit, inside, 1 << ELEMENT_BITS)
        gate = Mux(x < 0, (1 << ELEMENT_BITS) - gate, gate)[: ELEMENT_BITS + 1]
        product = self._later(m, self._later(m, x, 1) * self._later(m, gate, 1), 1)
        return self._later(m, saturated(rounded(product, ELEMENT_BITS), ELEMENT_BITS), 1)

    def _power(self, m: Module) -> Value:
        """Return softmax's power of two 3 slots after its element."""
        exponent = rounded(self.x * LOG2E, FRACTION_BITS + 14 - EXPONENT_BITS)
        with m.If(self.advance):
            m.d.sync += self.exponent.eq(exponent)
        t = self._later(m, self.exponent, 1)
        below = self.found.peak - (t >> EXPONENT_BITS)
        down = Mux(below > POWER_BITS + 2, POWER_BITS + 2, below)[:5]
        power = looked_up(m, "exp2", EXP2, t[:EXPONENT_BITS])
        with m.If(self.advance):
            m.d.sync += self.power.eq(rounded(power, down))
        return self.power

    def _norm(self, m: Module) -> Value:
        """Return a norm 5 slots after its element."""
        sums = Mux(self.op == Op.LAYERNORM, self.found.sums, 0)
        beta = Mux(self.op == Op.LAYERNORM, self.other[1], 0)
        difference = self._later(m, self.length * self.x - sums, 3)
        scaled = self._later(m, difference * self.found.scale, 1)
        precise = self._later(m, rounded(scaled, self.found.down), 1)
        product = rounded(precise * self._later(m, self.other[0], 5), PRECISE_BITS)
        return saturated(product + self._later(m, beta, 5), ELEMENT_BITS)


class Statistics(Unit):
    """A row's peak, sums and scale, gathered in its first reading.

    `peak` and `sums` hold 2 slots after an element has been read, scale and shift 7 slots after a
    row's last one; they stay until the next row's first, or last, element has gone as far.
    Throughput: a beat a slot. Back-pressure: holds while `advance` is 0.
    """

    def __init__(self, params: SpecialParams) -> None:
        self.params = params
        super().__init__(shapes.statistics_ports(params))

    def elaborate(self, platform: object) -> Module:
        """Build the unit."""
        m = Module()
        total, squares = self._powers(m), self._sums(m)
        form = Signal(shapes.FORM, name="form")
        sums = Mux(self.control.op == Op.LAYERNORM, self.found.sums, 0)
        spread = Signal(shapes.FORM, name="spread")
        padding = len(form) - len(total)
        m.d.comb += spread.eq(self.length * squares - sums * sums + self.floor)
        with m.If(self._later(m, self.control.last, 4) & self.advance):
            soft = self.control.op == Op.SOFTMAX
            m.d.sync += form.eq(Mux(soft, total << padding, Mux(spread == 0, 1, spread)))
        self._scale(m, form, padding)
        return m

    def _later(self, m: Module, value: Value, slots: int) -> Value:
        return delayed(m, self.advance, value, slots)

    def _valid(self, m: Module, values: Any, otherwise: int, slots: int) -> list[Value]:
        valid = self._later(m, self.control.valid, slots)
        return [Mux(valid[lane], value, otherwise) for lane, value in enumerate(values)]

    def _powers(self, m: Module) -> Signal:
        """Keep the peak, and the sum of powers of two relative to it."""
        gathers, first = (self._later(m, self.control[n], 1) for n in ("gathers", "first"))
        ceilings = [-(-t >> EXPONENT_BITS) for t in self.exponents]
        higher, peak = Signal(shapes.PEAK, name="higher"), self.found.peak
        m.d.comb += higher.eq(
            highest([Mux(first, LOWEST_PEAK, peak), *self._valid(m, ceilings, LOWEST_PEAK, 1)])
        )
        grown = self._later(m, (higher - peak).as_unsigned()[:9], 2)
        total = Signal(shapes.TOTAL, name="total")
        with m.If(gathers & self.advance):
            m.d.sync += peak.eq(higher)
        before = Mux(self._later(m, first, 2), 0, total >> grown)
        added = sum(self._valid(m, self.powers, 0, 3))
        with m.If(self._later(m, gathers, 2) & self.advance):
            m.d.sync += total.eq(before + added)
        return total

    def _sums(self, m: Module) -> Signal:
        """Keep the sum of elements; returns that of their squares."""
        gathers, first = (self._later(m, self.control[n], 1) for n in ("gathers", "first"))
        x = self._valid(m, self.x, 0, 0)
        sums, squares = self.found.sums, Signal(shapes.SQUARES, name="squares")
        beat_sum = self._later(m, sum(x[1:], x[0]), 1)
        beat_squares = self._later(m, sum((e * e for e in x[1:]), x[0] * x[0]), 1)
        with m.If(gathers & self.advance):
            m.d.sync += [
                sums.eq(Mux(first, 0, sums) + beat_sum),
                squares.eq(Mux(first, 0, squares) + beat_squares),
            ]
        return squares

    def _scale(self, m: Module, form: Signal, padding: int) -> None:
        """Turn the total or spread into a factor and a shift, in the 2 slots after `form`."""
        norm = is_norm(self._later(m, self.control.op, 5))
        norm_late = is_norm(self._later(m, self.control.op, 6))
        place = top_bit(m, "place", form)
        up = (len(form) - 1 - place - (norm & ~place[0]))[:6]
        down = Mux(norm, (place >> 1) + ELEMENT_BITS - PRECISE_BITS, place - padding + 1)
        upper = (form << up)[: len(form)][-ELEMENT_BITS:]
        found, down_late = Signal(shapes.MANTISSA, name="mantissa"), Signal(shapes.PLACE)
        root = looked_up(m, "rsqrt", RSQRT, found)
        reciprocal = looked_up(m, "reciprocal", RECIPROCAL, found[:-1])
        with m.If(self._later(m, self.control.last, 5) & self.advance):
            m.d.sync += [found.eq(upper), down_late.eq(down)]
        with m.If(self._later(m, self.control.last, 6) & self.advance):
            m.d.sync += [
                self.found.scale.eq(Mux(norm_late, root, reciprocal)),
                self.found.down.eq(down_late),
            ]


def highest(values: list[Any]) -> Value:
    """Return the largest value: a tree."""
    while len(values) > 1:
        pairs = list(zip(values[::2], values[1::2], strict=False))
        values = [Mux(a > b, a, b) for a, b in pairs] + values[2 * len(pairs) :]
    return values[0]


class Reading(enum.Enum, shape=2):
    """What a slot does with a row."""

    GATHER = 0
    TURN = 1
    RESULT = 2


class Special(Unit):
    """Softmax, LayerNorm, RMSNorm, SiLU, sums and products of rows, `lanes` elements a slot.

    Softmax and norms take every row twice, with `SpecialParams.turn` slots between, in which
    nothing is taken. Rows of a job that `grows` have one element more than the row before. It moves
    in slots, all of it or none.

    Latency: a job accepted in one cycle has its slot 0 offered in the next; a beat's results are
    offered `SpecialParams.latency` slots after it. Throughput: one beat a slot, rows and jobs
    without a gap. Back-pressure: `ready` of either operand depends on the other's `valid` and on
    `out.ready`; `out.valid` depends on registers only. Reset: synchronous, idle, counters zero.
    """

    def __init__(self, params: SpecialParams, *, part_module: str | None = None) -> None:
        self.params, self.part_module = params, part_module
        super().__init__(shapes.special_ports(params))

    def elaborate(self, platform: object) -> Module:
        """Build the unit."""
        m = Module()
        self._settings = settings = structured(shapes.special_job(self.params), "settings")
        self._running = Signal(name="running")
        self._reading = Signal(Reading, name="reading")
        results = self._running & (self._reading == Reading.RESULT)
        alone = (settings.op == Op.SILU) | (settings.op == Op.SOFTMAX)
        take_side = self._running & (self._reading != Reading.TURN)
        slot = enable(m, self, take_side, results & ~alone)
        control = structured(shapes.beat_control(self.params), "control")
        self._walk(m, slot.advance, control)
        m.d.comb += [control.op.eq(settings.op), control.there.eq(results)]
        self._lanes(m, slot.advance, control)
        line = carried(m, slot.advance, control, self.params.latency - 1)
        offer(m, self.out, slot.advance, line.there)
        count(m, self.counters, beats(self))
        return m

    def _walk(self, m: Module, advance: Value, control: Any) -> None:
        """Walk beats, turns and rows; says what the beat of a slot is."""
        settings, reading = self._settings, self._reading
        beat, row = Signal(range(MAX_LENGTH + 1), name="beat"), Signal(LENGTH_BITS, name="row")
        gathers = self._running & (reading == Reading.GATHER)
        turning = reading == Reading.TURN
        limit = Mux(turning, self.params.turn, settings.beats)
        beats_end, ends = Signal(name="beats_end"), Signal(name="ends")
        row_ends = beats_end & (reading == Reading.RESULT)
        length = settings.length + Mux(settings.grows, row, 0)
        m.d.comb += [
            beats_end.eq(beat + 1 == limit),
            ends.eq(self._running & advance & row_ends & (row + 1 == settings.rows)),
            self.job.ready.eq(~self._running | ends),
            control.gathers.eq(gathers),
            control.first.eq(gathers & (beat == 0)),
            control.last.eq(gathers & beats_end),
        ]
        for lane in range(self.params.lanes):
            m.d.comb += control.valid[lane].eq(beat * self.params.lanes + lane < length)
        with m.If(self._running & advance):
            m.d.sync += [beat.eq(Mux(beats_end, 0, beat + 1)), row.eq(row + row_ends)]
            with m.If(beats_end):
                again = Mux(is_two_phase(settings.op), Reading.GATHER, Reading.RESULT)
                m.d.sync += reading.eq(
                    Mux(row_ends, again, Mux(turning, Reading.RESULT, Reading.TURN))
                )
        with m.If(self.job.ready):
            begin = Mux(is_two_phase(self.job.payload.op), Reading.GATHER, Reading.RESULT)
            m.d.sync += [
                self._running.eq(self.job.valid),
                settings.eq(self.job.payload),
                reading.eq(begin),
                row.eq(0),
            ]

    def _lanes(self, m: Module, advance: Value, control: Any) -> None:
        m.submodules.statistics = statistics = Statistics(self.params)
        m.d.comb += [
            statistics.advance.eq(advance),
            statistics.control.eq(control),
            statistics.length.eq(self._settings.length),
            statistics.floor.eq(self._settings.floor),
            statistics.x.eq(self.side.payload),
        ]
        for position in range(self.params.lanes):
            lane: Any = add_part(
                m,
                f"lane_{position}",
                shapes.lane_ports(),
                lambda: SpecialLane(self.params),
                self.part_module,
            )
            m.d.comb += [
                lane.advance.eq(advance),
                lane.op.eq(control.op),
                lane.valid.eq(control.valid[position]),
                lane.length.eq(self._settings.length),
                lane.found.eq(statistics.found),
                lane.x.eq(self.side.payload[position]),
                lane.other.eq(self.top.payload[position]),
                statistics.exponents[position].eq(lane.exponent),
                statistics.powers[position].eq(lane.power),
                self.out.payload[position].eq(lane.result),
            ]
