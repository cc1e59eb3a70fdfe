"""Every width, layout and port shape of the FlexDpe array, as functions of its parameters.

Arrays are ordered first element lowest: multiplier 0, position 0, engine 0.
"""

from amaranth.hdl import ShapeLike, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from rtl.shapes import LENGTH_BITS, slot_counters
from simulator.arch.flex_dpe import FlexDpe

__all__ = [
    "adder_ports",
    "drained",
    "engine_ports",
    "flex_job",
    "flex_ports",
    "load_block",
    "loads",
    "multiplier",
    "nonzeros",
    "out_beat",
    "partial",
    "route_stage",
    "side_beat",
    "stationary",
    "stationary_ports",
    "top_beat",
    "tree_lane",
    "tree_lanes",
    "within_beat",
]


def operand(arch: FlexDpe) -> ShapeLike:
    """One stationary or streamed value."""
    return signed(arch.operand_bits)


def multiplier(arch: FlexDpe) -> ShapeLike:
    """Which multiplier; clusters of a pass are numbered as far."""
    return range(arch.peak_macs_per_cycle)


def nonzeros(arch: FlexDpe) -> ShapeLike:
    """How many multipliers."""
    return unsigned(bits_for(arch.peak_macs_per_cycle))


def within_beat(arch: FlexDpe) -> int:
    """Bits of a multiplier's place within its load beat."""
    return ceil_log2(arch.loads_per_cycle)


def load_block(arch: FlexDpe) -> ShapeLike:
    """Which of the blocks of multipliers that one load beat fills."""
    return range(arch.peak_macs_per_cycle // arch.loads_per_cycle)


def loads(arch: FlexDpe) -> ShapeLike:
    """How many load beats of one job."""
    return unsigned(bits_for(arch.peak_macs_per_cycle // arch.loads_per_cycle))


def drained(arch: FlexDpe) -> ShapeLike:
    """How many levels of the tree."""
    return unsigned(bits_for(arch.tree_depth))


def route_stage(arch: FlexDpe) -> ShapeLike:
    """One stage of a distribution network: the rows that take their partner's value."""
    return unsigned(arch.dpe_size)


def routes(arch: FlexDpe) -> data.ArrayLayout:
    """Settings of one engine's distribution network, its first stage lowest."""
    return data.ArrayLayout(route_stage(arch), len(arch.route_distances))


def stationary(arch: FlexDpe) -> data.StructLayout:
    """A stationary value and its cluster."""
    return data.StructLayout({"value": operand(arch), "cluster": multiplier(arch)})


def held(arch: FlexDpe) -> data.ArrayLayout:
    """What every multiplier holds."""
    return data.ArrayLayout(stationary(arch), arch.peak_macs_per_cycle)


def side_beat(arch: FlexDpe) -> data.ArrayLayout:
    """One slice of a streamed vector."""
    return data.ArrayLayout(operand(arch), arch.dpe_size)


def top_beat(arch: FlexDpe) -> data.ArrayLayout:
    """The values of one load."""
    return data.ArrayLayout(stationary(arch), arch.loads_per_cycle)


def partial(arch: FlexDpe) -> ShapeLike:
    """A sum of as many products as there are multipliers; the largest of each is 2**14."""
    return signed(2 * arch.operand_bits + arch.tree_depth)


def flex_job(arch: FlexDpe) -> data.StructLayout:
    """Run-time settings of one FlexJob."""
    return data.StructLayout(
        {
            "start": multiplier(arch),
            "nonzeros": nonzeros(arch),
            "loads": loads(arch),
            "vectors": unsigned(LENGTH_BITS),
            "drain": 1,
            "routes": data.ArrayLayout(routes(arch), arch.dpes),
        }
    )


def stationary_ports(arch: FlexDpe) -> dict[str, wiring.Member]:
    """Ports of the registers of stationary values."""
    return {
        "begin": In(1),
        "first": In(multiplier(arch)),
        "start": In(multiplier(arch)),
        "load": In(1),
        "beat": In(top_beat(arch)),
        "held": Out(held(arch)),
    }


def engine_ports(arch: FlexDpe) -> dict[str, wiring.Member]:
    """Ports of one engine."""
    return {
        "advance": In(1),
        "side": In(side_beat(arch)),
        "routes": In(routes(arch)),
        "values": In(data.ArrayLayout(operand(arch), arch.dpe_size)),
        "nonzero": Out(arch.dpe_size),
        "products": Out(data.ArrayLayout(signed(2 * arch.operand_bits), arch.dpe_size)),
    }


def tree_lane(arch: FlexDpe) -> data.StructLayout:
    """What travels with a multiplier's lane through the tree.

    `join`: its adder joins it to the next lane's cluster; `there`: the lane will hold the sum of
    a whole cluster when it leaves.
    """
    return data.StructLayout({"join": 1, "there": 1, "cluster": multiplier(arch)})


def tree_lanes(arch: FlexDpe) -> data.ArrayLayout:
    """What travels with all lanes."""
    return data.ArrayLayout(tree_lane(arch), arch.peak_macs_per_cycle)


def adder_ports(arch: FlexDpe) -> dict[str, wiring.Member]:
    """Ports of the forwarding adder tree."""
    return {
        "advance": In(1),
        "lanes": In(tree_lanes(arch)),
        "products": In(data.ArrayLayout(partial(arch), arch.peak_macs_per_cycle)),
        "results": Out(out_beat(arch)),
    }


def out_beat(arch: FlexDpe) -> data.ArrayLayout:
    """The sums of one vector, a lane for every multiplier."""
    lane = data.StructLayout({"there": 1, "cluster": multiplier(arch), "sum": partial(arch)})
    return data.ArrayLayout(lane, arch.peak_macs_per_cycle)


def flex_ports(arch: FlexDpe) -> dict[str, wiring.Member]:
    """Ports of the whole array."""
    return {
        "job": In(stream.Signature(flex_job(arch))),
        "side": In(stream.Signature(side_beat(arch))),
        "top": In(stream.Signature(top_beat(arch))),
        "out": Out(stream.Signature(out_beat(arch))),
        "counters": Out(slot_counters()),
    }
