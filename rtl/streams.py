"""How a unit that moves in slots meets its streams, and the events it counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Signal, Value

from rtl.unit import Unit, structured

__all__ = ["Enable", "beats", "carried", "count", "enable", "job_events", "offer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enable:
    """`advance`: the unit moves; `clear`: no result refused; `side_there`: no side beat missing."""

    advance: Signal
    clear: Value
    side_there: Value


def enable(m: Module, unit: Unit, take_side: Value, take_top: Value) -> Enable:
    """Connect the `ready` of both operand streams of a unit; returns when its slot happens.

    A slot happens when the beats it takes are present and no result is refused.
    """
    advance = Signal(name="advance")
    clear = ~unit.out.valid | unit.out.ready
    side_there, top_there = ~take_side | unit.side.valid, ~take_top | unit.top.valid
    m.d.comb += [
        advance.eq(side_there & top_there & clear),
        unit.side.ready.eq(take_side & top_there & clear),
        unit.top.ready.eq(take_top & side_there & clear),
    ]
    return Enable(advance=advance, clear=clear, side_there=side_there)


def carried(m: Module, advance: Value, value: Any, slots: int) -> Any:
    """Return a structured `value` as it was `slots` slots ago, 0 after a reset."""
    for slot in range(slots):
        held = structured(value.shape(), f"carried_{slot}")
        with m.If(advance):
            m.d.sync += held.eq(value)
        value = held
    return value


def offer(m: Module, out: Any, advance: Value, there: Value) -> None:
    """Offer, from the next slot on, the result that exists if `there`, until it is taken.

    It may leave while the unit waits for an operand.
    """
    with m.If(advance):
        m.d.sync += out.valid.eq(there)
    with m.Elif(out.ready):
        m.d.sync += out.valid.eq(0)


def count(m: Module, counters: Any, events: Mapping[str, Value | int]) -> None:
    """Add each event to its counter since reset, every cycle; it shows one cycle later."""
    for name, amount in events.items():
        total = Signal.like(getattr(counters, name), name=name)
        m.d.sync += total.eq(total + amount)
        m.d.comb += getattr(counters, name).eq(total)


def beats(unit: Unit) -> dict[str, Value]:
    """Return the events that a beat of each of the three streams of a unit passes."""
    ports = {name: getattr(unit, name) for name in ("side", "top", "out")}
    return {f"{name}_beats": port.valid & port.ready for name, port in ports.items()}


def job_events(m: Module, slot: Enable, running: Value, last: Value) -> dict[str, Value]:
    """Return the events that make up a job's time: `cycles`, and of them, stalls by cause.

    `cycles` runs from a job's first slot to its `last` one, both included; a cycle inside that
    window in which the unit does not move is a stall, charged to a refused result first, then to
    a missing side beat, then to a missing top beat: cycles = slots + stalls.
    """
    begun, window = Signal(name="begun"), Signal(name="window")
    m.d.comb += window.eq(running & (begun | slot.advance))
    with m.If(slot.advance):
        m.d.sync += begun.eq(running & ~last)
    stalled = window & ~slot.advance
    return {
        "cycles": window,
        "stall_out": stalled & ~slot.clear,
        "stall_side": stalled & slot.clear & ~slot.side_there,
        "stall_top": stalled & slot.clear & slot.side_there,
    }
