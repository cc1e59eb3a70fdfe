"""SORE (SAT, arXiv 2309.13015) in Amaranth: the streaming top-N-of-M selector."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, ShapeLike, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from rtl.shapes import COUNTER_BITS, LENGTH_BITS
from rtl.streams import count
from rtl.unit import Unit, add_part, structured
from simulator.arch.sore import SoreFormat, SoreParams

__all__ = ["SelectorLane", "Sore", "sore_job", "sore_pairs", "sore_ports", "sore_values"]


def _value(params: SoreParams) -> ShapeLike:
    return unsigned(params.value.value_bits)


def _pair(params: SoreParams) -> data.StructLayout:
    """A kept value and its index in the group, as the array reads them."""
    return data.StructLayout({"value": _value(params), "index": unsigned(params.index_bits)})


def sore_values(params: SoreParams) -> data.ArrayLayout:
    """One value of every lane, lane 0 lowest."""
    return data.ArrayLayout(_value(params), params.lanes)


def sore_pairs(params: SoreParams) -> data.ArrayLayout:
    """One kept pair of every lane, lane 0 lowest."""
    return data.ArrayLayout(_pair(params), params.lanes)


def sore_job(params: SoreParams) -> data.StructLayout:
    """Run-time settings of one SoreJob."""
    return data.StructLayout(
        {
            "kept": unsigned(bits_for(params.max_n)),
            "group": unsigned(bits_for(params.max_m)),
            "length": unsigned(LENGTH_BITS),
            "passes": unsigned(LENGTH_BITS),
        }
    )


def _counters() -> data.StructLayout:
    """Beats taken and handed over since reset."""
    return data.StructLayout(dict.fromkeys(("in_beats", "out_beats"), unsigned(COUNTER_BITS)))


def sore_ports(params: SoreParams) -> dict[str, wiring.Member]:
    """Ports of the selector."""
    return {
        "job": In(stream.Signature(sore_job(params))),
        "side": In(stream.Signature(sore_values(params))),
        "out": Out(stream.Signature(sore_pairs(params))),
        "counters": Out(_counters()),
    }


def _step(params: SoreParams) -> data.StructLayout:
    """What all lanes do in a cycle.

    take: the lane's value joins its group at position `index`; fill: into a free place; place:
    the place it gets, one-hot; used: places that N allows; last: the group is then complete and
    moves to the bank; shift: the bank's first pair leaves.
    """
    return data.StructLayout(
        {
            "take": 1,
            "fill": 1,
            "last": 1,
            "shift": 1,
            "index": unsigned(params.index_bits),
            "place": unsigned(params.max_n),
            "used": unsigned(params.max_n),
        }
    )


def _lane(params: SoreParams) -> dict[str, wiring.Member]:
    return {
        "step": In(_step(params)),
        "value": In(_value(params)),
        "pair": Out(_pair(params)),
    }


class SelectorLane(Unit):
    """Keeps the N largest magnitudes of a group in order of arrival, and hands the last N over.

    A larger newcomer pushes the smallest kept value out - the latest of equal ones - and those
    behind close up, so the places always hold rising indices and need no sorting. Latency: a
    group's first pair stands on `pair` the cycle after its last value. Throughput: one value a
    cycle. Back-pressure: nothing moves without `take` or `shift`. Reset: places and bank zero.
    """

    def __init__(self, params: SoreParams) -> None:
        self.params = params
        super().__init__(_lane(params))

    def elaborate(self, platform: object) -> Module:
        """Build the lane."""
        m = Module()
        places, bank, chosen = (self._pairs(name) for name in ("place", "bank", "chosen"))
        self._choose(m, places, chosen)
        for position, (place, banked, next_place) in enumerate(
            zip(places, bank, chosen, strict=True)
        ):
            behind = bank[position + 1].as_value() if position + 1 < len(bank) else 0
            with m.If(self.step.take):
                m.d.sync += place.eq(Mux(self.step.last, 0, next_place.as_value()))
            with m.If(self.step.take & self.step.last):
                m.d.sync += banked.eq(next_place)
            with m.Elif(self.step.shift):
                m.d.sync += banked.eq(behind)
        m.d.comb += self.pair.eq(bank[0])
        return m

    def _pairs(self, name: str) -> list[Any]:
        layout = _pair(self.params)
        return [structured(layout, f"{name}_{position}") for position in range(self.params.max_n)]

    def _choose(self, m: Module, places: list[Any], chosen: list[Any]) -> None:
        """Work out the places after this cycle's value has joined."""
        newcomer = structured(_pair(self.params), "newcomer")
        rank = self._magnitude(m, self.value)
        least, victim = self._least(m, places)
        replace = Signal()
        m.d.comb += [
            newcomer.value.eq(self.value),
            newcomer.index.eq(self.step.index),
            replace.eq(~self.step.fill & (rank > least)),
        ]
        for position, (place, next_place) in enumerate(zip(places, chosen, strict=True)):
            m.d.comb += next_place.eq(place)
            with m.If(self.step.place[position] & (self.step.fill | replace)):
                m.d.comb += next_place.eq(newcomer)
            if position + 1 < len(places):
                with m.Elif(replace & (victim <= position)):
                    m.d.comb += next_place.eq(places[position + 1])

    def _magnitude(self, m: Module, value: Value) -> Value:
        magnitude = Signal(self.params.value.magnitude_bits)
        if self.params.value is SoreFormat.FP16:
            m.d.comb += magnitude.eq(value)
        else:
            m.d.comb += magnitude.eq(Mux(value[-1], -value, value))
        return magnitude

    def _least(self, m: Module, places: list[Any]) -> tuple[Value, Value]:
        """Return the smallest magnitude in use and its place, the last of equal ones: a tree."""
        items: list[tuple[Value, Value]] = []
        for position, place in enumerate(places):
            key = Signal(self.params.value.magnitude_bits + 1, name=f"key_{position}")
            m.d.comb += [
                key.eq(self._magnitude(m, place.value)),
                key[-1].eq(~self.step.used[position]),
            ]
            items.append((key, Const(position, range(len(places)))))
        while len(items) > 1:
            pairs = zip(items[::2], items[1::2], strict=False)
            joined = [self._smaller(m, *pair) for pair in pairs]
            items = joined + items[2 * len(joined) :]
        return items[0]

    def _smaller(
        self, m: Module, left: tuple[Value, Value], right: tuple[Value, Value]
    ) -> tuple[Value, Value]:
        key, place = Signal.like(left[0], name="least"), Signal.like(left[1], name="least_place")
        later = right[0] <= left[0]
        m.d.comb += [
            key.eq(Mux(later, right[0], left[0])),
            place.eq(Mux(later, right[1], left[1])),
        ]
        return key, place


class Sore(Unit):
    """Selects N of every M values a lane by magnitude, ties keeping the lower index.

    Every job streams `passes` columns of `length` values a lane and gets N (value, index) pairs a
    group back, indices rising, missing ones of a ragged last group value 0, index 0.

    Latency: a job accepted in one cycle has its first beat taken in the next at the earliest; a
    group's first pair is offered in the cycle after its last beat was taken. Throughput: one beat
    a cycle in, and at the same time one out; the next job is accepted in the cycle of the last
    beat. Back-pressure: the last beat of a group waits until the pairs of the group before have
    left, the last of them in the same cycle at the earliest, so `side.ready` depends on
    `out.ready`; `out.valid` depends on registers only. Reset: synchronous, idle, counters zero.
    """

    def __init__(self, params: SoreParams, *, part_module: str | None = None) -> None:
        self.params = params
        self.part_module = part_module
        super().__init__(sore_ports(params))

    def elaborate(self, platform: object) -> Module:
        """Build the selector."""
        m = Module()
        self._settings = settings = structured(sore_job(self.params), "settings")
        self._running = Signal(name="running")
        left = Signal.like(settings.kept, name="left")
        step = structured(_step(self.params), "step")
        job_last = self._walk(m, step)
        free = (left == 0) | ((left == 1) & self.out.ready)
        m.d.comb += [
            self.side.ready.eq(self._running & (~step.last | free)),
            step.take.eq(self.side.valid & self.side.ready),
            self.out.valid.eq(left != 0),
            step.shift.eq(self.out.valid & self.out.ready),
            self.job.ready.eq(~self._running | (step.take & job_last)),
        ]
        with m.If(step.take & step.last):
            m.d.sync += left.eq(settings.kept)
        with m.Elif(step.shift):
            m.d.sync += left.eq(left - 1)
        with m.If(self.job.ready):
            m.d.sync += self._running.eq(self.job.valid)
            m.d.sync += settings.eq(self.job.payload)
        self._lanes(m, step)
        count(m, self.counters, {"in_beats": step.take, "out_beats": step.shift})
        return m

    def _walk(self, m: Module, step: Any) -> Value:
        """Count positions, column lengths and passes; returns whether this beat ends the job."""
        settings = self._settings
        index = Signal(range(self.params.max_m), name="index")
        taken, passed = (Signal(LENGTH_BITS, name=name) for name in ("taken", "passed"))
        column_last, job_last = Signal(name="column_last"), Signal(name="job_last")
        m.d.comb += [
            column_last.eq(taken + 1 == settings.length),
            job_last.eq(column_last & (passed + 1 == settings.passes)),
            step.last.eq(column_last | (index + 1 == settings.group)),
            step.index.eq(index),
            step.fill.eq(index < settings.kept),
        ]
        for position in range(self.params.max_n):
            newest = Mux(step.fill, index == position, settings.kept == position + 1)
            m.d.comb += [
                step.place[position].eq(newest),
                step.used[position].eq(position < settings.kept),
            ]
        with m.If(step.take):
            m.d.sync += [
                index.eq(Mux(step.last, 0, index + 1)),
                taken.eq(Mux(column_last, 0, taken + 1)),
            ]
            with m.If(column_last):
                m.d.sync += passed.eq(Mux(job_last, 0, passed + 1))
        return job_last

    def _lanes(self, m: Module, step: Any) -> None:
        for position in range(self.params.lanes):
            lane = add_part(
                m,
                f"lane_{position}",
                _lane(self.params),
                lambda: SelectorLane(self.params),
                self.part_module,
            )
            m.d.comb += [
                lane.step.eq(step),
                lane.value.eq(self.side.payload[position]),
                self.out.payload[position].eq(lane.pair),
            ]
