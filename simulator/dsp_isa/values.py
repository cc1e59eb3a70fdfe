"""What the instructions of a core compute: numpy's bits of memory and out buffer.

Vectors on the chip are int16 with 8 fraction bits (softmax's shares have 15), 64 to a line.
Memory holds int8: LD shifts up, ST rounds down and saturates. An MV rounds its vector down to int8
in the same way, multiplies, and leaves int16. MISC is the special-function unit; weights of norms
are 1, for they belong to the projections behind. Softmax looks at as many elements as `length`
says: a program serves all lengths of its bucket.

An MV that waits for LD goes on to the next half buffer, another one uses the same again. A half
keeps rows of 16, 8, 4 and 2 of 16 kept weights in this order. In memory a chain's
16 codes of a group, 16 / N rows', follow those of the group before, chain after chain; then the
4-bit indices of all chains but the dense in the same order.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import DspChain
from simulator.arch.special import SpecialJob, SpecialOp, SpecialParams
from simulator.dsp_isa.execute import execute
from simulator.dsp_isa.layout import (
    LINE_BYTES,
    LINE_ELEMENTS,
    NORM_EPSILON,
    ROW_ENTRY,
    TABLE_ROWS,
    Base,
    Buffer,
    Instruction,
    MiscOp,
    Module,
)
from simulator.units.dequantiser import dequantise
from simulator.units.special import pack_rows, respond
from workloads.canonical import Spec

__all__ = ["OUT_ELEMENTS", "TABLE_ENTRIES", "Registers", "Values", "narrowed", "run_values"]

OUT_ELEMENTS: Final = LINE_ELEMENTS << 12
TABLE_ENTRIES: Final = TABLE_ROWS << 12

Bytes = NDArray[np.uint8]
Shorts = NDArray[np.int16]
Ints = NDArray[np.int64]

ONE: Final = np.int16(1 << 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers(Spec):
    """What the host sets before a run: lines of the base registers, and the tokens attended to."""

    bases: Mapping[Base, int] = field(default_factory=dict, hash=False)
    length: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """What a program leaves: memory uint8[bytes], and the out buffer int16[OUT_ELEMENTS]."""

    memory: Bytes
    out: Shorts


@dataclass(slots=True)
class _Core:
    """A core's memories while a program runs."""

    registers: Registers
    lanes: int
    memory: Bytes
    out: Shorts
    table: NDArray[np.uint32]
    halves: deque[NDArray[np.int8]]
    half: NDArray[np.int8]
    sums: Ints


def narrowed(x: NDArray[Any], shift: int) -> NDArray[np.int8]:
    """Return x / 2**shift as int8: halves up, saturated."""
    rounded = (x.astype(np.int64) + ((1 << shift) >> 1)) >> shift
    narrow: NDArray[np.int8] = np.clip(rounded, -128, 127).astype(np.int8)
    return narrow


def _entry(table: NDArray[np.uint32], name: str) -> Ints:
    low, width = ROW_ENTRY[name]
    return (table.astype(np.int64) >> low) & ((1 << width) - 1)


def _span(core: _Core, item: Instruction) -> slice:
    start = (core.registers.bases.get(Base(item.get("base")), 0) + item.get("address")) * LINE_BYTES
    end = start + item.get("bytes")
    if end > core.memory.size:
        raise ValueError(
            f"{item.module} reaches byte {end} of memory, which has {core.memory.size}"
        )
    return slice(start, end)


def _load(core: _Core, item: Instruction) -> None:
    raw, bank = core.memory[_span(core, item)], item.get("bank")
    match Buffer(item.get("buffer")):
        case Buffer.OUT:
            at = bank * LINE_ELEMENTS
            core.out[at : at + raw.size] = raw.view(np.int8).astype(np.int16) << item.get("shift")
        case Buffer.TABLE:
            at = bank * TABLE_ROWS
            core.table[at : at + raw.size // 4] = raw.view("<u4")
        case Buffer.MATRIX:
            core.halves.append(_matrix(core, item, raw))
        case buffer:
            raise ValueError(f"LD into buffer {buffer.name} has no defined values")


def _matrix(core: _Core, item: Instruction, raw: Bytes) -> NDArray[np.int8]:
    """Return the int8[reduction, rows] that a half buffer gets."""
    rows, groups = item.get("rows"), item.get("groups")
    if item.get("bits"):
        return _weights(core, item, raw)
    if item.get("turned"):
        return raw.view(np.int8).reshape(groups * CANDIDATES, rows)
    return raw.view(np.int8).reshape(rows, groups * CANDIDATES).T


def _unpacked(raw: Bytes, bits: int, count: int, *, signed: bool) -> Ints:
    """Return the first `count` numbers of `bits` in `raw`, lowest bit first."""
    each = np.unpackbits(raw, bitorder="little")[: count * bits].reshape(count, bits)
    place = np.int64(1) << np.arange(bits)
    if signed:
        place[-1] = -place[-1]
    return each @ place


def _weights(core: _Core, item: Instruction, raw: Bytes) -> NDArray[np.int8]:
    """Return the dequantised weights of a tile as a dense matrix."""
    groups, bits = item.get("groups"), item.get("bits")
    fewer = {kept: item.get(f"rows_{kept}") for kept in (8, 4, 2)}
    counts = {CANDIDATES: item.get("rows") - sum(fewer.values()), **fewer}
    chains = {kept: rows * kept // CANDIDATES for kept, rows in counts.items()}
    total, dense = sum(chains.values()), chains[CANDIDATES]
    split = raw.size - item.get("metadata")
    shape = (-1, groups, CANDIDATES)
    codes = _unpacked(raw[:split], bits, total * groups * CANDIDATES, signed=True).reshape(shape)
    kept_at = (total - dense) * groups * CANDIDATES
    index = np.broadcast_to(np.arange(CANDIDATES), codes.shape).copy()
    index[dense:] = _unpacked(raw[split:], 4, kept_at, signed=False).reshape(shape)
    kept = np.repeat(list(chains), list(chains.values()))
    first = np.concatenate([[0], np.cumsum(CANDIDATES // kept)])[:-1]
    entries = core.table[item.get("table") * TABLE_ROWS :][first]
    scale, shift = (_entry(entries, name)[:, None, None] for name in ("scale", "shift"))
    values = dequantise(codes.astype(np.int8), scale.astype(np.uint8), shift.astype(np.uint8))
    weight = np.zeros((groups, CANDIDATES, item.get("rows")), np.int8)
    row = first[:, None] + np.arange(CANDIDATES) // kept[:, None]
    np.add.at(weight, (np.arange(groups)[:, None], index, row[:, None]), values)
    return weight.reshape(groups * CANDIDATES, -1)


def _multiply(core: _Core, item: Instruction) -> None:
    if Module.LD in item.waits:
        core.half = core.halves.popleft()
    weight, at = core.half, item.get("vector") * LINE_ELEMENTS
    if not weight.size:
        raise ValueError("MV finds no filled half buffer: it must wait for LD once")
    vector = narrowed(core.out[at : at + len(weight)], item.get("shift"))
    sums = vector.astype(np.int64) @ weight.astype(np.int64)
    core.sums = core.sums + sums if item.get("accumulate") else sums
    if not item.get("emit"):
        return
    down, bias = np.full(sums.shape, item.get("down")), np.zeros(sums.shape, np.int64)
    if item.get("tabled"):
        entries = core.table[item.get("table") * TABLE_ROWS :][: sums.size]
        down = _entry(entries, "down")
        bias = _entry(entries, "bias").astype(np.uint16).astype(np.int16).astype(np.int64)
    wide = core.sums.astype(np.int32).astype(np.int64)
    found = ((wide + ((np.int64(1) << down) >> 1)) >> down) + bias
    results = np.clip(found, 0 if item.get("relu") else -(1 << 15), (1 << 15) - 1)
    out = item.get("out") * LINE_ELEMENTS
    core.out[out : out + results.size] = results.astype(np.int16)


def _rows(core: _Core, item: Instruction, name: str) -> Shorts:
    """Return int16[rows, length] of operand a or b; turned rows have their halves exchanged."""
    rows, groups = item.get("rows"), item.get("groups")
    at = item.get(name) * LINE_ELEMENTS
    count = 1 if name == "b" and item.get("repeat") else rows
    found = core.out[at : at + count * groups * CANDIDATES].reshape(count, groups, CANDIDATES)
    if name == "a" and item.get("turn"):
        found = found[:, np.arange(groups) ^ (1 << (item.get("turn") - 1))]
    return np.broadcast_to(found.reshape(count, -1), (rows, groups * CANDIDATES)).copy()


def _special(core: _Core, item: Instruction) -> None:
    x, op = _rows(core, item, "a"), SpecialOp[MiscOp(item.get("op")).name]
    length = x.shape[1]
    if op is SpecialOp.SOFTMAX:
        length -= -core.registers.length % CANDIDATES
    job = SpecialJob(
        params=SpecialParams(lanes=core.lanes),
        op=op,
        length=length,
        rows=len(x),
        epsilon=NORM_EPSILON,
    )
    other = np.full_like(x, ONE) if op.is_norm else _rows(core, item, "b")
    found = respond(job, pack_rows(job, x[:, :length], other[:, :length])).ravel()
    at = item.get("out") * LINE_ELEMENTS
    core.out[at : at + found.size] = found


def _store(core: _Core, item: Instruction) -> None:
    at, size, shift = item.get("bank") * LINE_ELEMENTS, item.get("bytes"), item.get("shift")
    narrow = narrowed(core.out[at : at + size], shift)
    if item.get("link"):
        to = item.get("address") * LINE_ELEMENTS
        core.out[to : to + size] = narrow.astype(np.int16) << shift
    else:
        core.memory[_span(core, item)] = narrow.view(np.uint8)


def _matrices(core: _Core, item: Instruction) -> None:
    raise ValueError("MM has no defined values: the programs that have are those of one token")


_RUN: Final[Mapping[Module, Callable[[_Core, Instruction], None]]] = {
    Module.LD: _load,
    Module.ST: _store,
    Module.MM: _matrices,
    Module.MV: _multiply,
    Module.MISC: _special,
    Module.SYS: lambda core, item: None,
}


def run_values(
    arch: DspChain,
    program: Sequence[Instruction],
    registers: Registers,
    memory: Bytes,
    tokens: Mapping[str, int] | None = None,
) -> Values:
    """Return what a flat program leaves that starts with `memory` uint8[bytes] and a cleared chip.

    Instructions run one after the other in an order that their tokens allow. Raises ValueError for
    a machine of several cores, a program that never ends (as `execute`), and for an instruction
    without defined values, with its number.
    """
    if arch.cores != 1:
        raise ValueError(f"Values are those of a machine of one core, not {arch.cores}")
    order: list[int] = []
    execute(arch, program, tokens, on_run=lambda number, start, end: order.append(number))
    core = _Core(
        registers=registers,
        lanes=arch.misc_lanes,
        memory=memory.copy(),
        out=np.zeros(OUT_ELEMENTS, np.int16),
        table=np.zeros(TABLE_ENTRIES, np.uint32),
        halves=deque(),
        half=np.zeros((0, 0), np.int8),
        sums=np.zeros(0, np.int64),
    )
    for number in order:
        try:
            _RUN[program[number].module](core, program[number])
        except ValueError as error:
            raise ValueError(f"Instruction {number}: {error}") from error
    return Values(memory=core.memory, out=core.out)
