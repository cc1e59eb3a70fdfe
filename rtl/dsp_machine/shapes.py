"""Every width, layout and port shape of the DSP machine.

Memory is addressed in beats of its bus, the out buffer in words of 16 results, the row table in
lines of 16 entries, a matrix buffer in words of 16 weights for every chain.
"""

from typing import Final

from amaranth.hdl import Mux, ShapeLike, Value, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain import shapes as chain_shapes
from rtl.machine import shapes as machine_shapes
from rtl.shapes import COUNTER_BITS
from simulator.arch.dequantiser import DequantiserParams
from simulator.arch.dsp_cells import CANDIDATES, ChainParams, MpeParams
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.arch.special import SpecialParams
from simulator.dsp_isa.layout import (
    FIELDS,
    LINE_BYTES,
    LINE_ELEMENTS,
    ROW_ENTRY,
    TABLE_ROWS,
    WORDS,
    Module,
)

__all__ = ["DRAIN", "LEAST_LATENCY", "MODULES", "OVERHEAD", "Setting"]

MODULES: Final = tuple(Module)
"""Modules in the order of masks and counters."""

DRAIN: Final = 5
"""Cycles from a load's last beat until its weights have left the dequantiser."""

OVERHEAD: Final = 1 + DRAIN
"""Cycles of `hbm.latency_cycles` that are the core's own: the address register and the drain."""

LEAST_LATENCY: Final = OVERHEAD + 1

WORD_BITS: Final = 32
TABLE_LINES: Final = 256
"""Lines of the row table."""

QUEUE: Final = 16
"""Instructions that wait decoded, by module."""

BURST_WORDS: Final = 16
FETCHED: Final = 64
"""Words asked for at a time, and room for those that wait undecoded."""

LOADS: Final = 32
"""Loads whose data may be under way."""

STORES: Final = 32
"""Bursts that may be unanswered."""

PITCH_BITS: Final = 8
"""Width of the beats from one piece of a split transfer to the next."""

ROW_BITS: Final = 17
"""Width of a count of a tile's rows."""

COUNT_BITS: Final = 32
BEAT_BITS: Final = 30
LINE_BITS: Final = 28
NUMBER_BITS: Final = 16
TOKEN_BITS: Final = 8
LINES_BITS: Final = 12
"""Width of a line's address in the out buffer and in the row table."""

WORD_RESULTS: Final = CANDIDATES
"""Results of a word of the out buffer."""

WORD_SHIFT: Final = (LINE_ELEMENTS // WORD_RESULTS).bit_length() - 1
"""Bits of a word's place in a line."""

OUT_BITS: Final = LINES_BITS + WORD_SHIFT
RESULT_BITS: Final = 16
"""Width of a result on the chip; in memory it has 8 bits."""

GROUP_BITS: Final = 14
"""Width of a count of groups of candidates."""

CODE_CHANNELS: Final = ("ar", "r")
CODE_PREFIX: Final = "p_axi_"


class Setting(enum.Enum, shape=6):
    """What the host sets through the load port; channels' tokens follow TOKENS, 36 of them."""

    BASE = 0
    LENGTH = 16
    WORDS = 17
    TOKENS = 24


def chain(arch: DspChain) -> MpeParams:
    """One of the matrix unit's engines: a chain that loads at once, for a pair of tokens."""
    params = ChainParams(stages=arch.chain_stages, load_groups=arch.chain_stages // 2)
    return MpeParams(chain=params, vpus=1, depth=2)


def dequantiser(arch: DspChain) -> DequantiserParams:
    """The dequantiser: a chain's weights of one group a slot."""
    return DequantiserParams(lanes=CANDIDATES)


def special(arch: DspChain) -> SpecialParams:
    """The special-function unit."""
    return SpecialParams(lanes=arch.misc_lanes)


def beat_bytes(arch: DspChain) -> int:
    """Bytes of a beat of either memory."""
    return machine_shapes.beat_bytes(arch)


def line_beats(arch: DspChain) -> int:
    """Beats of a line of memory."""
    return LINE_BYTES // beat_bytes(arch)


def piece_beats(arch: DspChain) -> int:
    """Beats of a piece of a split transfer: a word of results."""
    return WORD_RESULTS // beat_bytes(arch)


def pieces(arch: DspChain, split: Value) -> tuple[Value, Value]:
    """Bits of what an address counts, in beats, and the beats between pieces if it is `split`."""
    line, piece = ((beats - 1).bit_length() for beats in (line_beats(arch), piece_beats(arch)))
    return Mux(split, piece, line), Mux(split, line_beats(arch), 0)


def half_words(arch: DspChain) -> int:
    """Words of half the buffer of MV."""
    return arch.mv_buffer.capacity_bytes // 2 // (arch.mv_columns * CANDIDATES)


def weight_words(arch: DspChain) -> int:
    """Words of half the buffer of what streams through MM, in words of MV's."""
    return arch.weight_buffer.capacity_bytes // 2 // (arch.mv_columns * CANDIDATES)


def act_words(arch: DspChain) -> int:
    """Words of half the activations: 16 elements of every token of a tile."""
    return arch.act_buffer.capacity_bytes // 2 // (arch.mm_tokens * CANDIDATES)


def out_words(arch: DspChain) -> int:
    """Words of the out buffer."""
    return arch.out_buffer.capacity_bytes // (2 * WORD_RESULTS)


def instruction(module: Module) -> data.FlexibleLayout:
    """A decoded instruction: its fields where its words have them, and its number above."""
    size = WORD_BITS * WORDS[module]
    fields: dict[int | str, data.Field] = {
        name: data.Field(unsigned(width), WORD_BITS * word + low)
        for name, (word, low, width) in FIELDS[module].items()
    }
    fields |= {
        "waits": data.Field(unsigned(5), 23),
        "releases": data.Field(unsigned(5), 18),
        "number": data.Field(unsigned(NUMBER_BITS), size),
    }
    return data.FlexibleLayout(size + NUMBER_BITS, fields)


def tile() -> data.StructLayout:
    """The rows of a tile: where those of 16, of 8, of 4 and of 2 of 16 weights end."""
    return data.StructLayout(dict.fromkeys(("end_16", "end_8", "end_4", "end_2"), ROW_BITS))


def load() -> data.StructLayout:
    """A load under way."""
    return data.StructLayout(
        {
            "buffer": 3,
            "bank": LINES_BITS,
            "beats": COUNT_BITS,
            "shift": 4,
            "bits": 4,
            "turned": 1,
            "groups": GROUP_BITS,
            "table": LINES_BITS,
            "tile": tile(),
            "half": 1,
            "streams": 1,
            "releases": 5,
        }
    )


def row_entry() -> data.FlexibleLayout:
    """What the row table has of an output row."""
    fields: dict[int | str, data.Field] = {
        name: data.Field(signed(width) if name == "bias" else unsigned(width), low)
        for name, (low, width) in ROW_ENTRY.items()
    }
    return data.FlexibleLayout(WORD_BITS, fields)


def entries() -> data.ArrayLayout:
    """A line of the row table."""
    return data.ArrayLayout(row_entry(), TABLE_ROWS)


def sums(arch: DspChain) -> data.ArrayLayout:
    """The sums of a pass, of every chain."""
    return data.ArrayLayout(chain_shapes.totals(chain(arch)), arch.mv_columns)


def candidates(arch: DspChain) -> data.ArrayLayout:
    """The activations of a pass, of every chain a pair of tokens'."""
    return data.ArrayLayout(chain_shapes.activations(), arch.mv_columns)


def weights(arch: DspChain) -> data.ArrayLayout:
    """The weights of a pass: what every chain holds, and where its rows end."""
    layout = chain_shapes.mpe_beats(chain(arch))["top"]
    return data.ArrayLayout(layout, arch.mv_columns)


def act_word(arch: DspChain) -> int:
    """Bits of a word of activations."""
    return arch.mm_tokens * CANDIDATES * 8


def act_write(arch: DspChain) -> data.StructLayout:
    """A write of a beat to the activations, with an enable for every beat of a word."""
    beats = act_word(arch) // machine_shapes.beat_bits(arch)
    return data.StructLayout({"at": range(2 * act_words(arch)), "enable": beats})


def token_sums(arch: DspChain) -> data.ArrayLayout:
    """One token's sums of a chain."""
    return data.ArrayLayout(chain_shapes.RESULT, chain(arch).chain.groups)


def factors(arch: DspChain) -> data.ArrayLayout:
    """What makes results of the sums of a chain's rows."""
    factor = data.StructLayout({"down": 5, "bias": signed(ROW_ENTRY["bias"][1])})
    return data.ArrayLayout(factor, chain(arch).chain.groups)


def result_words(arch: DspChain) -> int:
    """Words of the out buffer that the results of an MV's pass span at most."""
    return max(1, arch.mv_columns * (arch.chain_stages // 2) // WORD_RESULTS)


def out_write(arch: DspChain) -> data.StructLayout:
    """A write to the out buffer, with an enable for every result."""
    return data.StructLayout(
        {"at": OUT_BITS, "results": WORD_RESULTS * RESULT_BITS, "enable": WORD_RESULTS}
    )


def weight_write(arch: DspChain) -> data.StructLayout:
    """A write of weights to a matrix buffer, with an enable for every weight."""
    weights = arch.mv_columns * CANDIDATES
    return data.StructLayout({**_half(arch), "weights": weights * 8, "enable": weights})


def index_write(arch: DspChain) -> data.StructLayout:
    """A write of indices to a matrix buffer, with an enable for every index."""
    weights = arch.mv_columns * CANDIDATES
    return data.StructLayout({**_half(arch), "indices": weights * INDEX_BITS, "enable": weights})


def _half(arch: DspChain) -> dict[str, ShapeLike]:
    """Where a write goes: a word of a half buffer, of MV's or of what `streams` through MM."""
    return {"at": range(half_words(arch)), "half": 1, "streams": 1}


def reading(arch: DspChain) -> wiring.Signature:
    """The channels of a bus that is only read."""
    members = machine_shapes.axi(arch).members
    return wiring.Signature({name: members[name] for name in CODE_CHANNELS})


def setting() -> data.StructLayout:
    """A word for one of the core's registers."""
    return data.StructLayout({"register": 6, "word": WORD_BITS})


def host(arch: DspChain) -> dict[str, wiring.Member]:
    """Ports of the core but its buses: settings, start, and what a run was."""
    counters = {f"{module.lower()}_busy": Out(COUNTER_BITS) for module in MODULES}
    heads = {f"{module.lower()}_number": Out(NUMBER_BITS) for module in MODULES}
    missing = {f"{module.lower()}_missing": Out(len(MODULES)) for module in MODULES}
    return {
        "load": In(setting()),
        "load_enable": In(1),
        "start": In(1),
        "done": Out(1),
        "stuck": Out(1),
        "unknown": Out(1),
        "cycles": Out(COUNTER_BITS),
        **counters,
        **heads,
        **missing,
        "out_at": In(OUT_BITS),
        "out_seen": Out(WORD_RESULTS * RESULT_BITS),
    }


def stream_of(shape: ShapeLike) -> wiring.Signature:
    """A stream of `shape`."""
    return stream.Signature(shape)
