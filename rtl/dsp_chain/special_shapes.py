"""Every width, layout and port shape of the special-function unit."""

from amaranth.hdl import ShapeLike, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from rtl.shapes import COUNTER_BITS, LENGTH_BITS
from simulator.arch.special import (
    ELEMENT_BITS,
    EXPONENT_BITS,
    FORM_BITS,
    FRACTION_BITS,
    MAX_LENGTH,
    POWER_BITS,
    SpecialOp,
    SpecialParams,
)

__all__ = [
    "ELEMENT",
    "EXPONENT",
    "FORM",
    "MANTISSA",
    "PEAK",
    "PLACE",
    "POWER",
    "SCALE",
    "SQUARES",
    "SUMS",
    "TOTAL",
    "Op",
    "beat_control",
    "lane_ports",
    "special_job",
    "special_ports",
    "statistics",
    "statistics_ports",
]

ELEMENT: ShapeLike = signed(ELEMENT_BITS)
EXPONENT: ShapeLike = signed(17 + EXPONENT_BITS - FRACTION_BITS)
"""t = x * log2(e), a bit longer than x."""

PEAK: ShapeLike = signed(9)
"""Integer maximum of a row's t."""

POWER: ShapeLike = unsigned(POWER_BITS + 1)
"""2**(t - peak), 1 at most."""

TOTAL: ShapeLike = unsigned(POWER_BITS + bits_for(MAX_LENGTH))
SUMS: ShapeLike = signed(15 + bits_for(MAX_LENGTH))
SQUARES: ShapeLike = unsigned(30 + bits_for(MAX_LENGTH))
FORM: ShapeLike = unsigned(FORM_BITS)
"""length**2 * (variance + epsilon); softmax's total stands at its upper end."""

MANTISSA: ShapeLike = unsigned(16)
SCALE: ShapeLike = unsigned(17)
"""1 / total or 1 / deviation, 1 at most, with 16 fraction bits."""

PLACE: ShapeLike = range(64)


class Op(enum.Enum, shape=3):
    """An operation's code on the job port: that of `SpecialOp`."""

    ADD = SpecialOp.ADD.value
    MUL = SpecialOp.MUL.value
    SILU = SpecialOp.SILU.value
    SOFTMAX = SpecialOp.SOFTMAX.value
    LAYERNORM = SpecialOp.LAYERNORM.value
    RMSNORM = SpecialOp.RMSNORM.value


def special_job(params: SpecialParams) -> data.StructLayout:
    """Run-time settings of one SpecialJob."""
    return data.StructLayout(
        {
            "op": Op,
            "length": range(MAX_LENGTH + 1),
            "beats": range(MAX_LENGTH + 1),
            "grows": 1,
            "rows": unsigned(LENGTH_BITS),
            "floor": unsigned(48),
        }
    )


def beat_control(params: SpecialParams) -> data.StructLayout:
    """What a slot's beat is: read for statistics, a row's first or last such, or for results."""
    return data.StructLayout(
        {"gathers": 1, "first": 1, "last": 1, "there": 1, "op": Op, "valid": params.lanes}
    )


def statistics() -> data.StructLayout:
    """A row's statistics: its peak, its sum, and by what its elements are scaled."""
    return data.StructLayout({"peak": PEAK, "sums": SUMS, "scale": SCALE, "down": PLACE})


def statistics_ports(params: SpecialParams) -> dict[str, wiring.Member]:
    """Ports of what gathers a row's statistics."""
    return {
        "advance": In(1),
        "control": In(beat_control(params)),
        "length": In(range(MAX_LENGTH + 1)),
        "floor": In(unsigned(48)),
        "x": In(data.ArrayLayout(ELEMENT, params.lanes)),
        "exponents": In(data.ArrayLayout(EXPONENT, params.lanes)),
        "powers": In(data.ArrayLayout(POWER, params.lanes)),
        "found": Out(statistics()),
    }


def lane_ports() -> dict[str, wiring.Member]:
    """Ports of one lane."""
    return {
        "advance": In(1),
        "op": In(Op),
        "valid": In(1),
        "length": In(range(MAX_LENGTH + 1)),
        "found": In(statistics()),
        "x": In(ELEMENT),
        "other": In(data.ArrayLayout(ELEMENT, 2)),
        "exponent": Out(EXPONENT),
        "power": Out(POWER),
        "result": Out(ELEMENT),
    }


def special_ports(params: SpecialParams) -> dict[str, wiring.Member]:
    """Ports of the unit: lane 0 lowest; the second operand, or gamma, below beta."""
    elements = data.ArrayLayout(ELEMENT, params.lanes)
    pairs = data.ArrayLayout(data.ArrayLayout(ELEMENT, 2), params.lanes)
    counts = dict.fromkeys(("side_beats", "top_beats", "out_beats"), unsigned(COUNTER_BITS))
    return {
        "job": In(stream.Signature(special_job(params))),
        "side": In(stream.Signature(elements)),
        "top": In(stream.Signature(pairs)),
        "out": Out(stream.Signature(elements)),
        "counters": Out(data.StructLayout(counts)),
    }
