"""Every width, layout and port shape of the DSP chains, as functions of their parameters.

Arrays are ordered first element lowest: token, candidate, MPU in a side beat; slice, chain, MPU
in a top beat; token, node, chain in a result beat.
"""

from amaranth.hdl import ShapeLike, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from rtl.shapes import LENGTH_BITS, slot_counters
from simulator.arch.dsp_cells import CANDIDATES, TOKENS, ChainParams, DspSlice, MpeParams

__all__ = [
    "Addend",
    "accumulators",
    "activations",
    "bank_load",
    "block",
    "chain",
    "chain_job",
    "dsp",
    "kept_pairs",
    "mpe",
    "mpe_beats",
    "mpu",
    "partial",
    "pass_address",
    "pass_control",
    "result",
    "tally",
    "totals",
]

ACT: ShapeLike = signed(8)
RESULT: ShapeLike = signed(32)


class Addend(enum.Enum, shape=2):
    """What a slice adds to its product, coded as `simulator.units.dsp_slice.Addend`."""

    NOTHING = 0
    CASCADE = 1
    SUM = 2


def dsp(dsp_slice: DspSlice) -> dict[str, wiring.Member]:
    """Ports of one DSP slice."""
    wide, narrow = signed(dsp_slice.wide_bits), signed(dsp_slice.narrow_bits)
    total = signed(dsp_slice.sum_bits)
    return {
        "advance": In(1),
        "wide": In(wide),
        "added": In(wide),
        "narrow": In(narrow),
        "addend": In(Addend),
        "cascade": In(total),
        "sum": Out(total),
        "wide_out": Out(wide),
        "narrow_out": Out(narrow),
    }


def activations() -> data.ArrayLayout:
    """The candidates of a pass, both tokens of each."""
    return data.ArrayLayout(data.ArrayLayout(ACT, TOKENS), CANDIDATES)


def kept_pairs(params: ChainParams, groups: int) -> data.ArrayLayout:
    """Weight and index of every slice in `groups` groups."""
    pair = data.StructLayout({"value": signed(8), "index": range(CANDIDATES)})
    return data.ArrayLayout(pair, groups * params.group)


def partial(products: int) -> ShapeLike:
    """The sum of as many products of two int8; the largest of each is 2**14."""
    return signed(16 + ceil_log2(products))


def result(products: int) -> data.ArrayLayout:
    """One node's sums of as many products, one a token."""
    return data.ArrayLayout(partial(products), TOKENS)


def block(params: ChainParams) -> ShapeLike:
    """Which of a set's loads."""
    return range(params.load_slots)


def bank_load(params: ChainParams) -> data.StructLayout:
    """Write one block of the bank that does not compute; `bank` is the one that does."""
    return data.StructLayout({"load": 1, "block": block(params), "bank": 1})


def chain(params: ChainParams) -> dict[str, wiring.Member]:
    """Ports of one VPU."""
    return {
        "advance": In(1),
        "control": In(bank_load(params)),
        "pairs": In(kept_pairs(params, params.load_groups)),
        "cuts": In(params.load_groups),
        "act": In(activations()),
        "results": Out(data.ArrayLayout(result(params.stages), params.groups)),
        "cut": Out(params.groups),
        "kept": Out(range(params.stages + 1)),
    }


def mpu(params: MpeParams) -> dict[str, wiring.Member]:
    """Ports of one MPU."""
    one, vpus = params.chain, params.vpus
    return {
        "advance": In(1),
        "control": In(bank_load(one)),
        "pairs": In(data.ArrayLayout(kept_pairs(one, one.load_groups), vpus)),
        "cuts": In(data.ArrayLayout(unsigned(one.load_groups), vpus)),
        "act": In(activations()),
        "results": Out(data.ArrayLayout(data.ArrayLayout(result(one.stages), one.groups), vpus)),
        "cut": Out(data.ArrayLayout(unsigned(one.groups), vpus)),
        "kept": Out(range(vpus * one.stages + 1)),
    }


def totals(params: MpeParams) -> data.ArrayLayout:
    """Accumulated sums of one chain's nodes, one a token."""
    return data.ArrayLayout(data.ArrayLayout(RESULT, TOKENS), params.chain.groups)


def accumulators(params: MpeParams) -> dict[str, wiring.Member]:
    """Ports of the accumulators of one chain's nodes."""
    products = params.chain.stages * params.mpus
    return {
        "advance": In(1),
        "control": In(pass_control(params)),
        "sums": In(data.ArrayLayout(result(products), params.chain.groups)),
        "totals": Out(totals(params)),
    }


def pass_address(params: MpeParams) -> ShapeLike:
    """Which of a set's passes."""
    return range(params.depth)


def pass_control(params: MpeParams) -> data.StructLayout:
    """What travels with a pass: it is one; its sums start, or are complete, with it; its place."""
    return data.StructLayout({"there": 1, "first": 1, "last": 1, "address": pass_address(params)})


def chain_job() -> data.StructLayout:
    """Run-time settings of one ChainJob."""
    return data.StructLayout(dict.fromkeys(("tokens", "tiles", "groups"), unsigned(LENGTH_BITS)))


def tally(params: MpeParams) -> ShapeLike:
    """Count of multiply-accumulates of one slot."""
    return unsigned(bits_for(params.peak_macs_per_cycle))


def mpe_beats(params: MpeParams) -> dict[str, data.Layout]:
    """Payloads of the side, top and result beats."""
    chain_params = params.chain
    pairs = data.ArrayLayout(kept_pairs(chain_params, chain_params.load_groups), params.vpus)
    sums = data.ArrayLayout(totals(params), params.vpus)
    return {
        "side": data.ArrayLayout(activations(), params.mpus),
        "top": data.StructLayout(
            {
                "pairs": data.ArrayLayout(pairs, params.mpus),
                "cuts": data.ArrayLayout(unsigned(chain_params.load_groups), params.vpus),
            }
        ),
        "out": data.StructLayout({"sums": sums, "valid": unsigned(params.lanes)}),
    }


def mpe(params: MpeParams) -> dict[str, wiring.Member]:
    """Ports of the whole matrix engine."""
    beats = mpe_beats(params)
    return {
        "job": In(stream.Signature(chain_job())),
        "side": In(stream.Signature(beats["side"])),
        "top": In(stream.Signature(beats["top"])),
        "out": Out(stream.Signature(beats["out"])),
        "counters": Out(slot_counters()),
    }
