"""Pipelining: a chain of combinational steps with a given number of registers spread over it."""

from collections.abc import Callable, Sequence
from typing import Any

from amaranth.hdl import Module, Signal, Value

__all__ = ["Step", "delayed", "pipelined"]

Step = Callable[[Module, Any], Any]
"""Adds combinational logic to a module and returns its result."""


def delayed(m: Module, advance: Value, value: Any, cycles: int) -> Any:
    """Return `value` as it was `cycles` enabled cycles ago; registers have no reset."""
    for _ in range(cycles):
        held = Signal(value.shape(), reset_less=True)
        with m.If(advance):
            m.d.sync += held.eq(value)
        value = held
    return value


def pipelined(m: Module, advance: Value, steps: Sequence[Step], value: Any, latency: int) -> Any:
    """Return `value` after all steps and exactly `latency` registers, as even as can be.

    The last step is always registered if any is; registers beyond one a step are plain delays
    behind a step, which synthesis may retime into it.
    """
    for position, step in enumerate(steps):
        before, after = (latency * done // len(steps) for done in (position, position + 1))
        value = delayed(m, advance, step(m, value), after - before)
    return value
