"""Barrel shifters and the leading-zero count, logarithmic in depth."""

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["leading_zeros", "shift_left", "shift_right_sticky"]


def leading_zeros(m: Module, value: Value) -> Value:
    """Return the zeros above the top one of `value`; more than its width less one if it is zero.

    Each level asks whether the upper half of what is left is zero, and drops it if so.
    """
    width = len(value)
    count = Signal(range(width + 1))
    rest = value
    for level in reversed(range(len(count))):
        step = 1 << level
        moved = Signal(width)
        m.d.comb += count[level].eq(~rest[-step:].any())
        m.d.comb += moved.eq(Mux(count[level], _lifted(rest, step), rest))
        rest = moved
    return count


def _lifted(value: Value, places: int) -> Value:
    return value.shift_left(places)[: len(value)]


def shift_left(m: Module, value: Value, places: Value) -> Value:
    """Return `value` shifted left, its width kept."""
    for level in range(len(places)):
        moved = Signal(len(value))
        m.d.comb += moved.eq(Mux(places[level], _lifted(value, 1 << level), value))
        value = moved
    return value


def shift_right_sticky(m: Module, value: Value, places: Value) -> Value:
    """Return `value` shifted right; its lowest bit is set if any set bit was shifted out."""
    width = len(value)
    for level in range(len(places)):
        step = min(1 << level, width)
        moved = Signal(width)
        lost = value[:step].any()
        m.d.comb += moved.eq(Mux(places[level], value.shift_right(step) | lost, value))
        value = moved
    return value
