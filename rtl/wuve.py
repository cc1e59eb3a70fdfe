"""WUVE (SAT, arXiv 2309.13015) in Amaranth: the weight-update vector engine."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.float.adder import Adder
from rtl.float.converter import Converter
from rtl.float.formats import FP16, FP32
from rtl.float.multiplier import Multiplier
from rtl.float.pipeline import delayed
from rtl.shapes import COUNTER_BITS, LENGTH_BITS
from rtl.streams import count
from rtl.unit import Unit, add_part, structured
from simulator.arch.wuve import WuveParams

__all__ = ["UpdateLane", "Wuve", "wuve_job", "wuve_operand", "wuve_ports", "wuve_result"]


def wuve_job() -> data.StructLayout:
    """Run-time settings of one WuveJob, fp32 but for the number of beats."""
    return data.StructLayout({**_settings(), "beats": unsigned(LENGTH_BITS)})


def _settings() -> dict[str, Any]:
    names = ("learning_rate", "momentum", "weight_decay")
    return dict.fromkeys(names, unsigned(FP32.bits))


def wuve_operand() -> data.StructLayout:
    """One lane's weight, momentum and gradient."""
    return data.StructLayout({"weight": FP32.bits, "velocity": FP32.bits, "gradient": FP16.bits})


def wuve_result() -> data.StructLayout:
    """One lane's updated weight and momentum, and the weight's fp16 copy."""
    return data.StructLayout({"weight": FP32.bits, "velocity": FP32.bits, "copy": FP16.bits})


def _counters() -> data.StructLayout:
    """Beats taken and handed over since reset."""
    return data.StructLayout(dict.fromkeys(("in_beats", "out_beats"), unsigned(COUNTER_BITS)))


def wuve_ports(params: WuveParams) -> dict[str, wiring.Member]:
    """Ports of the engine."""
    return {
        "job": In(stream.Signature(wuve_job())),
        "side": In(stream.Signature(data.ArrayLayout(wuve_operand(), params.lanes))),
        "out": Out(stream.Signature(data.ArrayLayout(wuve_result(), params.lanes))),
        "counters": Out(_counters()),
    }


def _lane() -> dict[str, wiring.Member]:
    return {
        "advance": In(1),
        "settings": In(data.StructLayout(_settings())),
        "operand": In(wuve_operand()),
        "result": Out(wuve_result()),
    }


class UpdateLane(Unit):
    """Updates one element a slot: 3 multipliers, 3 adders and the converters.

    Latency: `WuveParams.latency` slots; the settings must hold from a beat's slot until its result
    is out. Throughput: one element a slot. Back-pressure: nothing moves while `advance` is 0.
    Reset: none; what is inside stays undefined until it has been replaced.
    """

    def __init__(self, params: WuveParams) -> None:
        self.params = params
        super().__init__(_lane())

    def elaborate(self, platform: object) -> Module:
        """Build the lane."""
        m = Module()
        adder, multiplier = self.params.adder_latency, self.params.multiplier_latency
        settings, operand = self.settings, self.operand

        def later(value: Value, slots: int) -> Value:
            return delayed(m, self.advance, value, slots)

        m.submodules.widen = widen = Converter(FP16, FP32, 0)
        m.d.comb += widen.a.eq(later(operand.gradient, multiplier))
        decay = self._multiply(m, "decay", settings.weight_decay, operand.weight)
        gradient = self._add(m, "gradient", widen.y, decay)
        kept = self._multiply(m, "kept", settings.momentum, later(operand.velocity, adder))
        velocity = self._add(m, "velocity", kept, gradient)
        step = self._multiply(m, "step", settings.learning_rate, velocity)
        weight = self._add(
            m,
            "weight",
            later(operand.weight, 2 * (multiplier + adder)),
            Cat(step[:-1], ~step[-1]),
        )
        m.submodules.narrow = narrow = Converter(FP32, FP16, 1)
        m.d.comb += [
            narrow.advance.eq(self.advance),
            narrow.a.eq(weight),
            self.result.weight.eq(later(weight, 1)),
            self.result.velocity.eq(later(velocity, multiplier + adder + 1)),
            self.result.copy.eq(narrow.y),
        ]
        return m

    def _multiply(self, m: Module, name: str, a: Value, b: Value) -> Value:
        return self._binary(m, name, Multiplier(FP32, self.params.multiplier_latency), a, b)

    def _add(self, m: Module, name: str, a: Value, b: Value) -> Value:
        return self._binary(m, name, Adder(self.params.adder_latency), a, b)

    def _binary(self, m: Module, name: str, unit: Any, a: Value, b: Value) -> Value:
        m.submodules[name] = unit
        m.d.comb += [unit.advance.eq(self.advance), unit.a.eq(a), unit.b.eq(b)]
        result: Value = unit.y
        return result


class Wuve(Unit):
    """Momentum SGD with weight decay on fp32 weights, with an fp16 copy of each out.

    WUVE moves in slots, all of it or none: in a cycle in which the slot's beat is present and no
    result is refused. A job takes a beat in each of its first `beats` slots; the slots after them
    need none and bring the last result out.

    Latency: a job accepted in one cycle has its slot 0 offered in the next; a beat's result is
    offered `WuveParams.latency` slots after the beat's. Throughput: one beat a cycle; the next job
    is accepted in the slot before the last result is offered. Back-pressure: one enable for the
    whole engine; `side.ready` depends on `out.ready`, `out.valid` on registers only; a result is
    offered until it is taken, and once. Reset: synchronous, idle, counters zero.
    """

    def __init__(self, params: WuveParams, *, part_module: str | None = None) -> None:
        self.params = params
        self.part_module = part_module
        super().__init__(wuve_ports(params))

    def elaborate(self, platform: object) -> Module:
        """Build the engine."""
        m = Module()
        settings = structured(wuve_job(), "settings")
        advance, clear, taking = (Signal(name=name) for name in ("advance", "clear", "taking"))
        m.d.comb += [
            clear.eq(~self.out.valid | self.out.ready),
            advance.eq(clear & (~taking | self.side.valid)),
            self.side.ready.eq(taking & clear),
        ]
        last = self._walk(m, settings.beats, advance, taking)
        with m.If(last):
            m.d.sync += settings.eq(self.job.payload)
        self._offer(m, advance, delayed_valid(m, advance, taking, self.params.latency))
        self._lanes(m, settings, advance)
        ports = {"in_beats": self.side, "out_beats": self.out}
        count(m, self.counters, {name: port.valid & port.ready for name, port in ports.items()})
        return m

    def _walk(self, m: Module, beats: Value, advance: Value, taking: Value) -> Value:
        """Go through a job's slots; returns whether a new job may be accepted."""
        running, taken = Signal(name="running"), Signal(LENGTH_BITS, name="taken")
        drained = Signal(range(self.params.latency), name="drained")
        last = Signal(name="last")
        m.d.comb += [
            taking.eq(running & (taken != beats)),
            last.eq(~running | (advance & (drained == self.params.latency - 2))),
            self.job.ready.eq(last),
        ]
        with m.If(advance & running):
            with m.If(taking):
                m.d.sync += taken.eq(taken + 1)
            with m.Else():
                m.d.sync += drained.eq(drained + 1)
        with m.If(last):
            m.d.sync += [running.eq(self.job.valid), taken.eq(0), drained.eq(0)]
        return last

    def _offer(self, m: Module, advance: Value, there: Value) -> None:
        """Offer a slot's result until it is taken; it may leave while WUVE waits for a beat."""
        gone = Signal(name="gone")
        m.d.comb += self.out.valid.eq(there & ~gone)
        with m.If(advance):
            m.d.sync += gone.eq(0)
        with m.Elif(self.out.valid & self.out.ready):
            m.d.sync += gone.eq(1)

    def _lanes(self, m: Module, settings: Any, advance: Value) -> None:
        for position in range(self.params.lanes):
            lane = add_part(
                m,
                f"lane_{position}",
                _lane(),
                lambda: UpdateLane(self.params),
                self.part_module,
            )
            m.d.comb += [lane.settings[name].eq(settings[name]) for name in _settings()]
            m.d.comb += [
                lane.advance.eq(advance),
                lane.operand.eq(self.side.payload[position]),
                self.out.payload[position].eq(lane.result),
            ]


def delayed_valid(m: Module, advance: Value, valid: Value, slots: int) -> Value:
    """Return `valid` as it was `slots` slots ago, 0 after a reset."""
    line = Signal(slots, name="line")
    with m.If(advance):
        m.d.sync += line.eq(Cat(valid, line))
    return line[-1]
