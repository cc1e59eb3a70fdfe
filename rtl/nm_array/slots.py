"""Delays in slots, and numbers of slots that depend on the dataflow."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value

from rtl.shapes import Mode
from simulator.arch import Dataflow

__all__ = ["by_mode", "late"]


def late(m: Module, advance: Value, value: Any, slots: int, name: str) -> Any:
    """Return `value` delayed by `slots` slots; its registers are reset."""
    for stage in range(slots):
        register = Signal.like(value, name=f"{name}_{stage}")
        with m.If(advance):
            m.d.sync += register.eq(value)
        value = register
    return value


def by_mode(mode: Value, slots: Callable[[Dataflow], int]) -> Value | int:
    """Return the slots of the running dataflow (IS is WS); a plain number where all agree."""
    own, other = slots(Dataflow.OS), slots(Dataflow.WS)
    return own if own == other else Mux(mode == Mode.OS, own, other)
