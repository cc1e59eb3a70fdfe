"""How a unit that moves in slots meets its streams: one enable, and a result offered once."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Signal, Value

from rtl.shapes import COUNTER_BITS
from rtl.unit import Unit, structured

__all__ = ["Enable", "carried", "count_beats", "enable", "offer"]


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


def count_beats(m: Module, unit: Unit) -> None:
    """Count the beats of all three streams of a unit since reset."""
    for name in ("side", "top", "out"):
        port, total = getattr(unit, name), Signal(COUNTER_BITS, name=f"{name}_beats")
        m.d.sync += total.eq(total + (port.valid & port.ready))
        m.d.comb += getattr(unit.counters, f"{name}_beats").eq(total)
