"""Instructions, tables and ports of the machine: every width and layout of `rtl.machine`.

Buffers are addressed in items: an fp16 number, half an fp32 one, or a kept pair. Memory is
addressed in beats of its bus.
"""

from collections.abc import Sequence
from typing import Final

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl import shapes
from simulator.arch import NMArray
from simulator.arch.dsp_chain import DspChain
from simulator.schedule import Unit

__all__ = [
    "AXI_CONSTANTS",
    "AXI_PREFIX",
    "BURST_BEATS",
    "CHANNELS",
    "LEAST_LATENCY",
    "OPS",
    "PAGE_BYTES",
    "PROGRAM_STEPS",
    "TABLES",
    "TABLE_ENTRIES",
    "UNITS",
    "Bank",
    "Source",
    "Target",
    "Work",
]

UNITS: Final = (Unit.DMA, Unit.ARRAY, Unit.VECTOR, Unit.SORE, Unit.WUVE)
"""Units in the order of their program memories."""

CHANNELS: Final = (
    "act.free",
    "act.full",
    "weight.free",
    "weight.full",
    "out.free",
    "out.full",
    "saved.free",
    "saved.full",
)
"""Token channels by bit; a stream's `in` is the activations' buffer."""

TABLES: Final = ("act_row", "act_col", "weight_row", "weight_col", "out_row", "out_col")
"""Address tables by operand."""

PROGRAM_STEPS: Final = {
    Unit.DMA: 1024,
    Unit.ARRAY: 256,
    Unit.VECTOR: 128,
    Unit.SORE: 128,
    Unit.WUVE: 128,
}
"""Instructions of each unit's program memory."""

TABLE_ENTRIES: Final = 2048
"""Entries of one address table."""

OPS: Final = 120
"""Most operators of a program; two codes above mark its two ends."""

OP_BITS: Final = 7
OP_BEFORE: Final = 2**OP_BITS - 1
OP_BEHIND: Final = 2**OP_BITS - 2

BURST_BEATS: Final = 256
"""Longest burst of AXI4."""

PAGE_BYTES: Final = 4096
"""No burst of AXI4 crosses a multiple of this."""

AXI_PREFIX: Final = "m_axi_"
"""What the flat names of the bus's ports begin with."""

ID_BITS: Final = 1

AXI_CONSTANTS: Final = {
    "id": (ID_BITS, 0),
    "lock": (1, 0),
    "cache": (4, 0b0011),
    "prot": (3, 0),
    "qos": (4, 0),
}
"""Width and value of what all addresses have alike; `cache`: normal, bufferable, not cached."""

READ_DELAY: Final = 2
"""Cycles from a beat's turn in the DMA to its address on the bus: earlier writes are then done."""

LEAST_LATENCY: Final = READ_DELAY + 1
"""Least `dram.latency_cycles`: the delay of the address, and a memory with a register."""

TOKEN_BITS: Final = 3
ITEM_BITS: Final = 18
"""Width of an item's address in a buffer."""

COUNT_BITS: Final = 20
BEAT_BITS: Final = 24
"""Width of counts, and of memory addresses in beats."""

WRITE_BITS: Final = 8
"""Width of the counts of write bursts and of their acknowledgements, which wrap."""

PIXEL_BITS: Final = 12
"""Width of a signed image coordinate."""

TAG_BITS: Final = 16
MAX_GROUP_BITS: Final = 7
VALUE_BITS: Final = 16
SUM_BITS: Final = 32
LUT_BITS: Final = 10
"""Address width of the exponential's and the reciprocal's tables: an fp16 number's upper bits."""


class Bank(enum.Enum, shape=4):
    """What a word of the load port goes to: a unit's program, a table, or tokens of operators."""

    DMA = 0
    ARRAY = 1
    VECTOR = 2
    SORE = 3
    WUVE = 4
    ACT_ROW = 5
    ACT_COL = 6
    WEIGHT_ROW = 7
    WEIGHT_COL = 8
    OUT_ROW = 9
    OUT_COL = 10
    TOKENS = 11


class Target(enum.Enum, shape=2):
    """Where a load goes."""

    ACT = 0
    WEIGHT = 1
    SAVED = 2


class Source(enum.Enum, shape=1):
    """Where a store comes from: sums on their way out, or items of the activations' buffer."""

    SUMS = 0
    ITEMS = 1


class Work(enum.Enum, shape=2):
    """What the vector unit does."""

    LOSS = 0
    RELU = 1
    RELU_GRAD = 2


def _step() -> dict[str, object]:
    """Fields of every instruction: its operator and the tokens it takes and gives.

    `frees` are given with the last cycle, `gives` when the results stand in their buffer.
    """
    mask = len(CHANNELS)
    return {"op": OP_BITS, "waits": mask, "frees": mask, "gives": mask}


def pair_bits(arch: NMArray) -> int:
    """Width of an item: a value and its index in the group."""
    return VALUE_BITS + arch.index_bits


def beat_bytes(arch: NMArray | DspChain) -> int:
    """Bytes of a beat of memory."""
    return arch.dram.bandwidth_bytes_per_s // arch.clock_hz


def beat_bits(arch: NMArray | DspChain) -> int:
    """Width of the memory's bus."""
    return 8 * beat_bytes(arch)


def beat_items(arch: NMArray) -> int:
    """Most items that end in one beat."""
    return beat_bits(arch) // VALUE_BITS


def place() -> data.StructLayout:
    """Where a selection's pairs go: pair p of lane l of group (o, i), of `outer` x `inner`.

    Its address is base + o * outer_stride + i * inner_stride + l * lane_stride + p * pair_stride,
    in the weights' buffer with `weight`, else in the activations'. `length` beats of values are
    selected from, `kept` of every `group`.
    """
    names = ("outer", "inner", "length", "outer_stride", "inner_stride")
    group = unsigned(MAX_GROUP_BITS)
    return data.StructLayout(
        {
            **dict.fromkeys(names, COUNT_BITS),
            **dict.fromkeys(("lane_stride", "pair_stride", "base"), ITEM_BITS),
            "kept": group,
            "group": group,
            "weight": 1,
            "gives": len(CHANNELS),
        }
    )


def dma_step(arch: NMArray) -> data.StructLayout:
    """A transfer: `beats` at `address` in runs of `run` beats, which three strides place.

    Unpacked, it is `items` of 16 + `extra` bits from `base` in the target. A load with `select`
    passes the selector, with `turned` behind the transposer. A store of sums reads those with
    `tag`; others are zero.
    """
    loops: dict[str, object] = {}
    for level in range(3):
        loops |= {f"count_{level}": COUNT_BITS, f"stride_{level}": signed(BEAT_BITS)}
    return data.StructLayout(
        {
            **_step(),
            "store": 1,
            "target": Target,
            "source": Source,
            "base": ITEM_BITS,
            "items": COUNT_BITS,
            "extra": range(arch.index_bits + 1),
            "address": BEAT_BITS,
            "beats": COUNT_BITS,
            "run": COUNT_BITS,
            **loops,
            "relu": 1,
            "gate": 1,
            "saved": ITEM_BITS,
            "tag": TAG_BITS,
            "select": 1,
            "turned": 1,
            "place": place(),
        }
    )


def array_step(arch: NMArray) -> data.StructLayout:
    """A job, its operands' and results' tables, bases and limits.

    Results wander over `outer` x `inner` folds; an address is the buffer's base, a row entry and
    a column entry. Where the entries' coordinates sum to a place outside `height` x `width`, an
    activation is 0 and a result is dropped.
    """
    tables = {table: range(TABLE_ENTRIES) for table in TABLES}
    bases = {f"{name}_base": ITEM_BITS for name in ("act", "weight", "out")}
    limits = {f"{name}_limit": COUNT_BITS for name in ("m", "k", "n", "group", "pair")}
    images = {f"{n}_{d}": PIXEL_BITS for n in ("act", "out") for d in ("height", "width")}
    return data.StructLayout(
        {
            **_step(),
            "job": shapes.job(arch),
            "outer": COUNT_BITS,
            "inner": COUNT_BITS,
            "indexed": 1,
            **tables,
            **bases,
            **limits,
            **images,
            "tag": TAG_BITS,
        }
    )


def vector_step() -> data.StructLayout:
    """`rows` rows of `beats` beats from `first` and `second` into `out`."""
    bases = dict.fromkeys(("first", "second", "out"), ITEM_BITS)
    return data.StructLayout(
        {**_step(), "work": Work, "rows": COUNT_BITS, "beats": COUNT_BITS, **bases}
    )


def sore_step() -> data.StructLayout:
    """Selection along the rows of a matrix, a lane a row: `blocks` of them, `width` long."""
    counts = dict.fromkeys(("blocks", "width"), COUNT_BITS)
    return data.StructLayout({**_step(), **counts, "first": ITEM_BITS, "place": place()})


WUVE_BASES: Final = ("gradient", "master", "momentum", "new_master", "new_momentum", "copy")
WUVE_SETTINGS: Final = ("learning_rate", "momentum", "weight_decay")


def wuve_step() -> data.StructLayout:
    """An update of `groups` x `rows` rows of `blocks` blocks of columns, one a lane.

    A group's rows of a block follow each other. `with_*` say which results are kept beside the
    state: the fp16 copy, its selection along the columns (ff) and along the rows (bp).
    """
    return data.StructLayout(
        {
            **_step(),
            **dict.fromkeys(("groups", "blocks", "rows"), COUNT_BITS),
            **{f"{name}_base": ITEM_BITS for name in WUVE_BASES},
            **{f"with_{name}": 1 for name in ("copy", "ff", "bp")},
            "ff": place(),
            "bp": place(),
            **dict.fromkeys(WUVE_SETTINGS, SUM_BITS),
        }
    )


def steps(arch: NMArray) -> dict[Unit, data.StructLayout]:
    """Every unit's instruction."""
    return {
        Unit.DMA: dma_step(arch),
        Unit.ARRAY: array_step(arch),
        Unit.VECTOR: vector_step(),
        Unit.SORE: sore_step(),
        Unit.WUVE: wuve_step(),
    }


def table_entry() -> data.StructLayout:
    """An address, modulo the buffer's address range, and image coordinates."""
    return data.StructLayout(
        {"address": ITEM_BITS, "y": signed(PIXEL_BITS), "x": signed(PIXEL_BITS)}
    )


def tokens() -> data.ArrayLayout:
    """Tokens of every channel."""
    return data.ArrayLayout(TOKEN_BITS, len(CHANNELS))


def load_word(arch: NMArray) -> data.StructLayout:
    """A word for one of the machine's own memories."""
    widths = [layout.size for layout in steps(arch).values()]
    return data.StructLayout(
        {
            "bank": Bank,
            "address": range(max(*PROGRAM_STEPS.values(), TABLE_ENTRIES)),
            "word": max(widths),
        }
    )


def read_address() -> data.StructLayout:
    """AXI4 read or write address: bytes, beats less one, and an INCR burst of whole beats."""
    return data.StructLayout({"addr": 32, "len": 8, "size": 3, "burst": 2})


def axi(arch: NMArray | DspChain) -> wiring.Signature:
    """The five channels of an AXI4 master."""
    bits = beat_bits(arch)
    write = data.StructLayout({"data": bits, "strb": bits // 8, "last": 1})
    read = data.StructLayout({"data": bits, "resp": 2, "last": 1})
    return wiring.Signature(
        {
            "ar": Out(stream.Signature(read_address())),
            "r": In(stream.Signature(read)),
            "aw": Out(stream.Signature(read_address())),
            "w": Out(stream.Signature(write)),
            "b": In(stream.Signature(data.StructLayout({"resp": 2}))),
        }
    )


def axi_ports(
    arch: NMArray | DspChain,
    prefix: str = AXI_PREFIX,
    channels: Sequence[str] = ("ar", "r", "aw", "w", "b"),
) -> dict[str, wiring.Member]:
    """Channels as flat ports with AXI4's names; read data and responses have ids too."""
    constants = {name: Out(bits) for name, (bits, _) in AXI_CONSTANTS.items()}
    ids = {"id": In(ID_BITS)}
    more = {"ar": constants, "r": ids, "aw": constants, "w": {}, "b": ids}
    ports = {}
    for channel in channels:
        member = axi(arch).members[channel]
        flow, payload = member.flow, member.signature.members["payload"].shape
        fields = {name: flow(field.shape) for name, field in payload}
        handshake = {"valid": flow(1), "ready": flow.flip()(1)}
        for name, port in (more[channel] | fields | handshake).items():
            ports[f"{prefix}{channel}{name}"] = port
    return ports


def item_write(arch: NMArray) -> data.StructLayout:
    """One item written."""
    return data.StructLayout({"enable": 1, "address": ITEM_BITS, "item": unsigned(pair_bits(arch))})


def sum_word() -> data.StructLayout:
    """A sum and the tile it belongs to."""
    return data.StructLayout({"value": SUM_BITS, "tag": TAG_BITS})
