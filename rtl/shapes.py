"""Every width, layout and port shape of the RTL, as functions of the machine's parameters.

This is the only place in `rtl` where widths are computed. Lanes are ordered row 0 (column 0)
first, from the least significant bit; a lane's `valid` bit lies below its data.
"""

from amaranth.hdl import ShapeLike, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from simulator.arch import Dataflow, NMArray, Precision

__all__ = [
    "COUNTER_BITS",
    "LENGTH_BITS",
    "Mode",
    "candidates",
    "counters",
    "held_sums",
    "job",
    "kept_pair",
    "kept_pairs",
    "load_rows",
    "nm_array",
    "nm_float_sums",
    "nm_pe",
    "out_beat",
    "pair_slots",
    "row_control",
    "side_beat",
    "side_lane",
    "slot_counters",
    "stationary_bank",
    "sum_index",
    "sum_sets",
    "tally",
    "top_beat",
    "top_lane",
]

LENGTH_BITS = 32
"""Width of a job's length and fold count."""

COUNTER_BITS = 48
"""Width of every event counter."""


class Mode(enum.Enum, shape=2):
    """A dataflow's code on the job port."""

    OS = 0
    WS = 1
    IS = 2

    @classmethod
    def of(cls, dataflow: Dataflow) -> "Mode":
        """Return the code of `dataflow`."""
        return cls[dataflow.name]


def operand(arch: NMArray) -> ShapeLike:
    """One activation or weight: int8, or the bits of an fp16 number."""
    bits = arch.operand_bits
    return signed(bits) if arch.precision is Precision.INT8 else unsigned(bits)


def accumulator(arch: NMArray) -> ShapeLike:
    """One accumulator or partial sum: int32, or the bits of an fp32 number."""
    bits = arch.acc_bits
    return signed(bits) if arch.precision is Precision.INT8 else unsigned(bits)


def sum_index(arch: NMArray) -> ShapeLike:
    """Which of the sums a PE keeps in flight."""
    return range(arch.interleave)


def sum_sets(arch: NMArray) -> ShapeLike:
    """Count of final sets of sums, one of every row, that wait to leave."""
    return range(arch.interleave + 1)


def held_sums(arch: NMArray) -> data.ArrayLayout:
    """Final sums of a PE that wait to leave."""
    return data.ArrayLayout(accumulator(arch), arch.interleave)


def kept_pair(arch: NMArray) -> data.StructLayout:
    """A kept value and its position in the group."""
    return data.StructLayout({"value": operand(arch), "index": unsigned(arch.index_bits)})


def kept_pairs(arch: NMArray) -> data.ArrayLayout:
    """The kept pairs of one slot."""
    return data.ArrayLayout(kept_pair(arch), arch.macs_per_pe)


def candidates(arch: NMArray) -> data.ArrayLayout:
    """The operands of one group, unused positions zero."""
    return data.ArrayLayout(operand(arch), arch.max_m)


def stationary_bank(arch: NMArray) -> data.ArrayLayout:
    """What a PE holds of the stationary operand: kept pairs (WS) or values alone (IS)."""
    return data.ArrayLayout(kept_pair(arch), arch.max_m)


def pair_slots(arch: NMArray) -> int:
    """Slots a full group needs."""
    return -(-arch.max_m // arch.macs_per_pe)


def side_lane(arch: NMArray) -> data.StructLayout:
    """One row's operand: a group's candidates (OS, WS) or a slot's kept pairs (IS)."""
    operands = data.UnionLayout({"group": candidates(arch), "kept": kept_pairs(arch)})
    return data.StructLayout({"valid": 1, "data": operands})


def top_lane(arch: NMArray) -> data.StructLayout:
    """One column's operand: a slot's kept pairs (OS) or, in pair 0, one load (WS, IS)."""
    return data.StructLayout({"valid": 1, "kept": kept_pairs(arch)})


def side_beat(arch: NMArray) -> data.ArrayLayout:
    """All rows' side lanes."""
    return data.ArrayLayout(side_lane(arch), arch.rows)


def top_beat(arch: NMArray) -> data.ArrayLayout:
    """All columns' top lanes."""
    return data.ArrayLayout(top_lane(arch), arch.cols)


def out_beat(arch: NMArray) -> data.ArrayLayout:
    """One result of every column."""
    return data.ArrayLayout(accumulator(arch), arch.cols)


def job(arch: NMArray) -> data.StructLayout:
    """Run-time settings of one ArrayJob."""
    group = unsigned(bits_for(arch.max_m))
    return data.StructLayout(
        {
            "mode": Mode,
            "kept": group,
            "group": group,
            "length": unsigned(LENGTH_BITS),
            "folds": unsigned(LENGTH_BITS),
        }
    )


def load_rows(arch: NMArray) -> ShapeLike:
    """Counter of a column's rows."""
    return range(arch.rows + 1)


def row_control(arch: NMArray) -> data.StructLayout:
    """What travels with a row's operand, one PE a slot.

    active: the PE works in this slot; clear: its accumulator restarts; emit: its sum is final
    after this slot; swap: it takes over the loaded bank; pick: slot within the group; used: which
    of the slot's pairs exist.
    """
    return data.StructLayout(
        {
            "active": 1,
            "clear": 1,
            "emit": 1,
            "swap": 1,
            "pick": range(pair_slots(arch)),
            "used": arch.macs_per_pe,
        }
    )


def tally(arch: NMArray, pes: int) -> ShapeLike:
    """Count of multiplier uses of `pes` PEs in one slot."""
    return range(pes * arch.macs_per_pe + 1)


def counters() -> data.StructLayout:
    """Event counters, cumulative since reset."""
    names = (
        "cycles",
        "array_busy",
        "stall_side",
        "stall_top",
        "stall_out",
        "mac_full",
        "mac_gated",
        "side_lanes",
        "top_lanes",
        "out_beats",
    )
    return data.StructLayout(dict.fromkeys(names, unsigned(COUNTER_BITS)))


def slot_counters() -> data.StructLayout:
    """Event counters of a unit whose results are lanes that may be there, since reset."""
    names = (
        *("cycles", "stall_side", "stall_top", "stall_out", "mac_full", "mac_gated"),
        *("side_beats", "top_beats", "out_beats", "out_lanes"),
    )
    return data.StructLayout(dict.fromkeys(names, unsigned(COUNTER_BITS)))


def nm_array(arch: NMArray) -> dict[str, wiring.Member]:
    """Ports of the whole array."""
    return {
        "job": In(stream.Signature(job(arch))),
        "side": In(stream.Signature(side_beat(arch))),
        "top": In(stream.Signature(top_beat(arch))),
        "out": Out(stream.Signature(out_beat(arch))),
        "counters": Out(counters()),
    }


def nm_pe(arch: NMArray) -> dict[str, wiring.Member]:
    """Ports of one processing element."""
    return {
        "advance": In(1),
        "mode": In(Mode),
        "tap": In(range(arch.max_m)),
        "side_in": In(side_lane(arch)),
        "side_out": Out(side_lane(arch)),
        "control_in": In(row_control(arch)),
        "control_out": Out(row_control(arch)),
        "kept_in": In(kept_pairs(arch)),
        "kept_out": Out(kept_pairs(arch)),
        "load": In(1),
        "load_valid": In(1),
        "chain_in": In(kept_pair(arch)),
        "chain_out": Out(kept_pair(arch)),
        "sum_in": In(accumulator(arch)),
        "sum_out": Out(accumulator(arch)),
        "release": In(1),
        **_drain(arch),
        "full": Out(tally(arch, 1)),
        "gated": Out(tally(arch, 1)),
    }


def _drain(arch: NMArray) -> dict[str, wiring.Member]:
    """OS results leave through the int8 PE's partial sums, through a chain of their own in fp16."""
    if arch.precision is Precision.INT8:
        return {"fresh": Out(1)}
    return {"drain_in": In(accumulator(arch)), "drain_out": Out(accumulator(arch))}


def nm_float_sums(arch: NMArray) -> dict[str, wiring.Member]:
    """Ports of the fp16 PE's arithmetic."""
    return {
        "advance": In(1),
        "mode": In(Mode),
        "operand": In(operand(arch)),
        "value": In(operand(arch)),
        "use": In(1),
        "clear": In(1),
        "emit": In(1),
        "sum_in": In(accumulator(arch)),
        "sum_out": Out(accumulator(arch)),
        "release": In(1),
        "drain_in": In(accumulator(arch)),
        "drain_out": Out(accumulator(arch)),
    }
