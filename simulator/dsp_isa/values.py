"""What the instructions of a core compute: numpy's bits of memory and out buffer.

Vectors on the chip are int16 with 8 fraction bits (softmax's shares have 15), 64 to a line.
Memory holds int8: LD shifts up, ST rounds down and saturates. An MV rounds its vector down to int8
in the same way, multiplies, and leaves int16. MISC is the special-function unit; weights of norms
are 1, for they belong to the projections behind. Softmax looks at as many elements as `length`
says: a program serves all lengths of its bucket.

An MV or MM that waits for LD goes on to the next half buffer, another one uses the same again. A
half keeps rows of 16, 8, 4 and 2 of 16 kept weights in this order. In memory 16 rows of one N
follow 16 others: a chain's 16 codes of a group, 16 / N rows', behind those of the group before,
chain after chain; then the 4-bit indices of these chains, if they are not dense, in the same order.

Prompts keep activations as blocks of a tile of tokens by 16 elements, token after token: what MM
takes in a cycle, what it leaves, and what MISC walks where it is `blocked`. A `split` transfer
moves a piece of 16 bytes of every line, as of rows of the cache; into the out buffer, of every
block, that of the prompt's last token. Softmax whose b is not 0 is causal: its first row has b
elements, every other one more than the row before.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
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
    tokens: int
    halves: dict[Buffer, deque[NDArray[np.int8]]]
    half: dict[Buffer, NDArray[np.int8]]
    acts: list[NDArray[np.int8]]
    sums: Ints


def narrowed(x: NDArray[Any], shift: int) -> NDArray[np.int8]:
    """Return x / 2**shift as int8: halves up, saturated."""
    rounded = (x.astype(np.int64) + ((1 << shift) >> 1)) >> shift
    narrow: NDArray[np.int8] = np.clip(rounded, -128, 127).astype(np.int8)
    return narrow


def _entry(table: NDArray[np.uint32], name: str) -> Ints:
    low, width = ROW_ENTRY[name]
    return (table.astype(np.int64) >> low) & ((1 << width) - 1)


def _places(core: _Core, item: Instruction) -> Ints:
    """Return the bytes of memory that a transfer moves, in their order."""
    base, address = core.registers.bases.get(Base(item.get("base")), 0), item.get("address")
    start, places = (base + address) * LINE_BYTES, np.arange(item.get("bytes"))
    if item.get("split"):
        pitch = LINE_BYTES
        if item.module is Module.LD and item.get("buffer") == Buffer.OUT:
            pitch, token = CANDIDATES * core.tokens, (core.registers.length - 1) % core.tokens
            address += token
        start = base * LINE_BYTES + address * CANDIDATES
        places = places // CANDIDATES * pitch + places % CANDIDATES
    end = start + int(places[-1]) + 1 if places.size else start
    if end > core.memory.size:
        raise ValueError(
            f"{item.module} reaches byte {end} of memory, which has {core.memory.size}"
        )
    return start + places


def _load(core: _Core, item: Instruction) -> None:
    raw, bank = core.memory[_places(core, item)], item.get("bank")
    match Buffer(item.get("buffer")):
        case Buffer.OUT:
            at = bank * LINE_ELEMENTS
            core.out[at : at + raw.size] = raw.view(np.int8).astype(np.int16) << item.get("shift")
        case Buffer.TABLE:
            at = bank * TABLE_ROWS
            core.table[at : at + raw.size // 4] = raw.view("<u4")
        case Buffer.ACT:
            blocks = raw.view(np.int8).reshape(item.get("groups"), item.get("rows"), CANDIDATES)
            core.acts[bank % 2] = blocks.transpose(1, 0, 2).reshape(item.get("rows"), -1)
        case buffer:
            core.halves[buffer].append(_matrix(core, item, raw))


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


def _sections(item: Instruction, raw: Bytes) -> Iterator[tuple[int, Ints, Ints]]:
    """Yield N, and int[chains, groups, 16] codes and indices, of every N's rows of a packed tile.

    Raises ValueError if the tile has another size.
    """
    fewer = {kept: item.get(f"rows_{kept}") for kept in (8, 4, 2)}
    rows = {CANDIDATES: item.get("rows") - sum(fewer.values()), **fewer}
    groups, bits, at = item.get("groups"), item.get("bits"), 0
    for kept, count in rows.items():
        portions, values = count // CANDIDATES, kept * groups * CANDIDATES
        size, listed = values * bits // 8, values * INDEX_BITS // 8 * (kept < CANDIDATES)
        part = raw[at:][: portions * (size + listed)].reshape(-1, size + listed)
        at += part.size
        shape = (portions * kept, groups, CANDIDATES)
        codes = _unpacked(part[:, :size].ravel(), bits, portions * values, signed=True)
        index = np.broadcast_to(np.arange(CANDIDATES), shape)
        if listed:
            packed = part[:, size:].ravel()
            index = _unpacked(packed, INDEX_BITS, codes.size, signed=False).reshape(shape)
        yield kept, codes.reshape(shape), index
    if at != raw.size:
        raise ValueError(f"LD brings {raw.size} B of weights for portions of 16 rows with {at}")


def _weights(core: _Core, item: Instruction, raw: Bytes) -> NDArray[np.int8]:
    """Return the dequantised weights of a tile as a dense matrix."""
    each, codes_of, index_of = zip(*_sections(item, raw), strict=True)
    codes, index = np.concatenate(codes_of), np.concatenate(index_of)
    groups, kept = item.get("groups"), np.repeat(each, [len(codes) for codes in codes_of])
    first = np.concatenate([[0], np.cumsum(CANDIDATES // kept)])[:-1]
    entries = core.table[item.get("table") * TABLE_ROWS :][first]
    scale, shift = (_entry(entries, name)[:, None, None] for name in ("scale", "shift"))
    values = dequantise(codes.astype(np.int8), scale.astype(np.uint8), shift.astype(np.uint8))
    weight = np.zeros((groups, CANDIDATES, item.get("rows")), np.int8)
    row = first[:, None] + np.arange(CANDIDATES) // kept[:, None]
    np.add.at(weight, (np.arange(groups)[:, None], index, row[:, None]), values)
    return weight.reshape(groups * CANDIDATES, -1)


def _multiply(core: _Core, item: Instruction) -> None:
    weight, at = _half(core, item, Buffer.MATRIX), item.get("vector") * LINE_ELEMENTS
    vector = narrowed(core.out[at : at + len(weight)], item.get("shift"))
    sums = vector.astype(np.int64) @ weight.astype(np.int64)
    core.sums = core.sums + sums if item.get("accumulate") else sums
    if item.get("emit"):
        _emit(core, item, core.sums)


def _half(core: _Core, item: Instruction, buffer: Buffer) -> NDArray[np.int8]:
    """Return the int8[reduction, rows] of the half buffer that a product uses."""
    if Module.LD in item.waits:
        core.half[buffer] = core.halves[buffer].popleft()
    if buffer not in core.half:
        raise ValueError(f"{item.module} finds no filled half buffer: it must wait for LD once")
    return core.half[buffer]


def _emit(core: _Core, item: Instruction, sums: Ints) -> None:
    """Leave sums [..., rows] in the out buffer as results."""
    down, bias = np.full(sums.shape[-1], item.get("down")), np.zeros(sums.shape[-1], np.int64)
    if item.get("tabled"):
        entries = core.table[item.get("table") * TABLE_ROWS :][: sums.shape[-1]]
        down = _entry(entries, "down")
        bias = _entry(entries, "bias").astype(np.uint16).astype(np.int16).astype(np.int64)
    wide = sums.astype(np.int32).astype(np.int64)
    found = ((wide + ((np.int64(1) << down) >> 1)) >> down) + bias
    results = np.clip(found, 0 if item.get("relu") else -(1 << 15), (1 << 15) - 1)
    out = item.get("out") * LINE_ELEMENTS
    core.out[out : out + results.size] = results.astype(np.int16).ravel()


def _rows(core: _Core, item: Instruction, name: str) -> Shorts:
    """Return int16[rows, length] of operand a or b; `turn` exchanges the halves of a's groups."""
    rows, groups = item.get("rows"), item.get("groups")
    at = item.get(name) * LINE_ELEMENTS
    count = 1 if name == "b" and item.get("repeat") else rows
    found = core.out[at : at + count * groups * CANDIDATES]
    if name == "a" and item.get("blocked"):
        found = found.reshape(groups, count, CANDIDATES).swapaxes(0, 1)
    found = found.reshape(count, groups, CANDIDATES)
    if name == "a" and item.get("turn"):
        found = np.roll(found, CANDIDATES // 2, axis=2)
    return np.broadcast_to(found.reshape(count, -1), (rows, groups * CANDIDATES)).copy()


def _special(core: _Core, item: Instruction) -> None:
    x, op = _rows(core, item, "a"), SpecialOp[MiscOp(item.get("op")).name]
    soft, length = op is SpecialOp.SOFTMAX, x.shape[1]
    first = item.get("b") if soft else 0
    if soft and not first:
        length -= -core.registers.length % CANDIDATES
    job = SpecialJob(
        params=SpecialParams(lanes=core.lanes),
        op=op,
        length=length,
        rows=len(x),
        epsilon=NORM_EPSILON,
        first=first,
    )
    other = np.full_like(x, ONE) if op.is_norm or soft else _rows(core, item, "b")
    found = respond(job, pack_rows(job, x[:, :length], other[:, :length]))
    if item.get("blocked"):
        found = found.reshape(len(x), -1, CANDIDATES).swapaxes(0, 1)
    at = item.get("out") * LINE_ELEMENTS
    core.out[at : at + found.size] = found.ravel()


def _store(core: _Core, item: Instruction) -> None:
    at, size, shift = item.get("bank") * LINE_ELEMENTS, item.get("bytes"), item.get("shift")
    narrow = narrowed(core.out[at : at + size], shift)
    if item.get("link"):
        to = item.get("address") * LINE_ELEMENTS
        core.out[to : to + size] = narrow.astype(np.int16) << shift
    else:
        core.memory[_places(core, item)] = narrow.view(np.uint8)


def _matrices(core: _Core, item: Instruction) -> None:
    """Multiply a tile of tokens; MM has no reductions in parts."""
    weight, act = _half(core, item, Buffer.WEIGHT), core.acts[item.get("act") % 2]
    if item.get("accumulate") or not item.get("emit"):
        raise ValueError("MM has no defined values in a reduction in parts")
    if act.shape[1] != len(weight):
        raise ValueError(f"MM multiplies {act.shape[1]} elements of a token by {len(weight)}")
    _emit(core, item, act.astype(np.int64) @ weight.astype(np.int64))


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
        tokens=arch.mm_tokens,
        halves={buffer: deque() for buffer in (Buffer.MATRIX, Buffer.WEIGHT)},
        half={},
        acts=[np.zeros((0, 0), np.int8)] * 2,
        sums=np.zeros(0, np.int64),
    )
    for number in order:
        try:
            _RUN[program[number].module](core, program[number])
        except ValueError as error:
            raise ValueError(f"Instruction {number}: {error}") from error
    return Values(memory=core.memory, out=core.out)
