"""Events of a program: what a run of it reads, writes and computes on all cores."""

from collections.abc import Mapping
from typing import Final

from simulator.arch.dsp_chain import DspChain
from simulator.counts import Event, add, scale
from simulator.dsp_isa import Buffer, Code, Instruction, MiscOp, Module, walk
from simulator.dsp_isa.layout import MISC_PHASES

__all__ = ["code_events"]

_COMPONENTS: Final[Mapping[int, str]] = {
    Buffer.WEIGHT: "weight_buffer",
    Buffer.ACT: "act_buffer",
    Buffer.MATRIX: "mv_buffer",
    Buffer.OUT: "out_buffer",
    Buffer.TABLE: "out_buffer",
}
BYTE: Final = 8


def code_events(arch: DspChain, code: Code) -> dict[Event, int]:
    """Return the events of one run of `code` on every core.

    Memories count bits. Weights widen to int8 behind the dequantiser, so buffers see eight bits of
    each. A pass reads one operand for every stage of its chains; activations of MM stay put for
    the passes of their group. `mac` offered counts stages times tokens: zeros of ragged tiles too.
    """
    events = add([scale(_events(arch, item), times) for item, times in walk(code)])
    return scale(events, arch.cores)


def _events(arch: DspChain, item: Instruction) -> dict[Event, int]:
    match item.module:
        case Module.LD:
            return _load(item)
        case Module.ST:
            return _store(arch, item)
        case Module.MM | Module.MV:
            return _chain(arch, item)
        case Module.MISC:
            elements = item.get("rows") * item.get("groups") * arch.group
            done = elements * MISC_PHASES[MiscOp(item.get("op"))]
            return {
                ("vector", "op", "full"): done,
                ("out_buffer", "read", "full"): done * BYTE,
                ("out_buffer", "write", "full"): elements * BYTE,
            }
        case Module.SYS:
            return {}


def _load(item: Instruction) -> dict[Event, int]:
    indices = item.get("metadata") * BYTE
    values = item.get("bytes") * BYTE - indices
    wide = values * BYTE // (item.get("bits") or BYTE)
    buffer = _COMPONENTS[item.get("buffer")]
    found = {("dram", "read", "full"): values, (buffer, "write", "full"): wide}
    if indices:
        found |= {("dram", "read", "metadata"): indices, (buffer, "write", "metadata"): indices}
    return found


def _store(arch: DspChain, item: Instruction) -> dict[Event, int]:
    bits = item.get("bytes") * BYTE
    if item.get("link"):
        return {
            ("out_buffer", "read", "full"): bits,
            ("out_buffer", "write", "full"): bits * arch.cores,
        }
    return {("out_buffer", "read", "full"): bits, ("dram", "write", "full"): bits}


def _chain(arch: DspChain, item: Instruction) -> dict[Event, int]:
    matrix = item.module is Module.MM
    chains = arch.mm_columns if matrix else arch.mv_columns
    tokens = item.get("tokens") if matrix else 1
    weights = item.get("groups") * item.get("passes") * chains * arch.group
    columns = arch.mm_tile_columns if matrix else arch.mv_tile_columns
    return {
        ("mac", "int8", "offered"): tokens * weights,
        ("weight_buffer" if matrix else "mv_buffer", "read", "full"): weights * BYTE,
        ("act_buffer" if matrix else "out_buffer", "read", "full"): (
            tokens * item.get("groups") * arch.group * BYTE
        ),
        ("out_buffer", "write", "full"): item.get("emit") * tokens * columns * BYTE,
    }
