"""Combinational fixed-point steps: rounding, saturation, tables, the highest bit."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory

from simulator.arch.special import Table

__all__ = ["looked_up", "rounded", "saturated", "top_bit"]


def rounded(value: Value, bits: Any) -> Value:
    """Return value / 2**bits rounded to nearest, halves up."""
    half: Any = (1 << bits) >> 1
    return (value + half) >> bits


def saturated(value: Value, bits: int) -> Value:
    """Return the nearest signed number of `bits` bits."""
    high = (1 << (bits - 1)) - 1
    return Mux(value > high, high, Mux(value < -high - 1, -high - 1, value))


def looked_up(m: Module, name: str, table: Table, at: Value) -> Value:
    """Return a table's piecewise linear function of `at`."""
    steps = [after - knot for knot, after in zip(table.knots, table.knots[1:], strict=False)]
    layout: Any = data.StructLayout(
        {
            "knot": unsigned(max(table.knots).bit_length()),
            "step": signed(max(map(abs, steps)).bit_length() + 1),
        }
    )
    rows: Any = [{"knot": k, "step": s} for k, s in zip(table.knots, steps, strict=False)]
    rom: Any = memory.Memory(shape=layout, depth=len(steps), init=rows)
    m.submodules[name] = rom
    port = rom.read_port(domain="comb")
    m.d.comb += port.addr.eq(at >> table.low_bits)
    low = at[: table.low_bits]
    return port.data.knot + rounded(port.data.step * low, table.low_bits)


def top_bit(m: Module, name: str, value: Value) -> Signal:
    """Return the place of the highest set bit, 0 for zero."""
    place = Signal(range(len(value)), name=name)
    for position in range(len(value)):
        with m.If(value[position]):
            m.d.comb += place.eq(position)
    return place
