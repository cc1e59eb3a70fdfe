"""Quantised weights, and memory as a decode program expects it.

Rows of 16, 8, 4 and 2 of 16 kept weights follow each other in this order, so that results keep
their places; a gated tile holds columns of the gate, then as many of the other projection.
"""

import collections.abc as abc
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapping.dsp.compile import CompiledModel
from mapping.dsp.emit import lines
from mapping.dsp.model import Linear
from mapping.dsp.onchip import ACT_SHIFT, OnChip
from mapping.dsp.tiles import Tile, Unit, split_groups, tiles
from simulator.arch.dequantiser import SCALE_BITS, SHIFT_BITS
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa import LINE_BYTES, LINE_ELEMENTS, ROW_ENTRY, Base, Registers

__all__ = [
    "Image",
    "QuantisedRows",
    "Step",
    "arranged",
    "check_node",
    "memory_image",
    "quantise_rows",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

RESULT_BITS = 8
"""Fraction bits of results."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantisedRows:
    """A projection as the chains take it.

    `codes` int8[k, n]; by output row, int64[n]: `kept` (N of 16), `scale` and `shift` that make
    int8 of codes, `down` that makes results of sums, and `bias` with 8 fraction bits.
    """

    bits: int
    codes: NDArray[np.int8]
    kept: Ints
    scale: Ints
    shift: Ints
    down: Ints
    bias: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One token's operands: int8 with 4 fraction bits, cosines and sines with 7.

    `token` [width]; `keys` and `values` [layers, heads, past, size]; `cosines` and `sines` [size].
    """

    token: NDArray[np.int8]
    keys: NDArray[np.int8]
    values: NDArray[np.int8]
    cosines: NDArray[np.int8]
    sines: NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """Memory uint8[bytes] before a step and its base registers; `logits` starts at a byte."""

    memory: Bytes
    registers: Registers
    logits: int


def row_counts(node: Linear) -> Ints:
    """Return N of every output row: the largest first, in a gated projection each twice."""
    order = sorted(node.kept_rows, reverse=True)
    return np.repeat(order, [node.kept_rows[kept] for kept in order])


def check_node(arch: DspChain, node: Linear) -> None:
    """Raise ValueError, naming the node and what it lacks, unless its rows fill chains and lines.

    Memory images exist for one core, tiles whose rows of each N come in sixteens, and reductions
    that fit half the buffer of MV.
    """
    unit = Unit.of(arch, matrix=False)
    wrong: str | None = None
    if arch.cores != 1:
        wrong = f"one core, not {arch.cores}"
    elif unit.tile_columns % (2 * LINE_ELEMENTS):
        wrong = f"mv_tile_columns in multiples of {2 * LINE_ELEMENTS}, not {unit.tile_columns}"
    elif node.k % LINE_ELEMENTS or node.results % LINE_ELEMENTS:
        wrong = f"widths in multiples of {LINE_ELEMENTS}, not {node.k} to {node.results}"
    elif any(rows % CANDIDATES or not kept for kept, rows in node.kept_rows.items()):
        wrong = f"rows of each N above 0 in sixteens, not {dict(node.kept_rows)}"
    elif node.gated and len(node.kept_rows) > 1:
        wrong = f"one N for both gated projections, not {sorted(node.kept_rows)}"
    else:
        for _, tile in tiles(unit, node.kept_rows):
            if len(split_groups(unit, node.k // CANDIDATES, tile.passes)) > 1:
                wrong = f"a reduction that fits half of mv_buffer, not {node.k}"
    if wrong:
        raise ValueError(f"{node.name}: a memory image needs {wrong}")


def arranged(node: Linear, weights: abc.Mapping[str, Floats], tile_columns: int) -> Floats:
    """Return the float64[k, n] of a node from its projections' [k, n], by name."""
    stem, _, names = node.name.rpartition(".")
    parts = [weights[f"{stem}.{name}" if stem else name] for name in names.split("+")]
    if not node.gated:
        return parts[0]
    half = tile_columns // 2
    starts = range(0, node.results, half)
    return np.concatenate([p[:, s : s + half] for s in starts for p in parts], axis=1)


def _chains(kept: Ints) -> Ints:
    """Return the chain of every row: 16 / N rows of one N after the other share one."""
    return (np.cumsum(kept) - kept) // CANDIDATES


def quantise_rows(
    weight: Floats, kept: Ints, bits: int, bias: Floats | None = None
) -> QuantisedRows:
    """Return float64[k, n] quantised: rows of a chain share the scale of their largest weight.

    Raises ValueError if a row has more weights in 16 than it keeps.
    """
    groups = (weight != 0).reshape(-1, CANDIDATES, weight.shape[1]).sum(axis=1)
    if (groups > kept).any():
        row = int(np.argwhere(groups > kept)[0, 1])
        raise ValueError(
            f"Row {row} keeps {kept[row]} of {CANDIDATES} weights, but has {groups[:, row].max()}"
        )
    chain = _chains(kept)
    top = np.zeros(chain[-1] + 1)
    np.maximum.at(top, chain, np.maximum(np.abs(weight).max(axis=0), 2.0**-12))
    fraction = np.clip(np.floor(np.log2(127 / top)), ACT_SHIFT, ACT_SHIFT + 15).astype(np.int64)
    step = top / ((1 << (bits - 1)) - 1)
    factor = step * 2.0**fraction
    limit = (1 << SCALE_BITS) - 1
    shift = np.clip(np.floor(np.log2(limit / factor)), 0, (1 << SHIFT_BITS) - 1).astype(np.int64)
    scale = np.clip(np.rint(factor * 2.0**shift), 1, limit).astype(np.int64)
    added = np.zeros(weight.shape[1]) if bias is None else bias
    return QuantisedRows(
        bits=bits,
        codes=np.rint(weight / step[chain]).astype(np.int8),
        kept=kept,
        scale=scale[chain],
        shift=shift[chain],
        down=fraction[chain] + ACT_SHIFT - RESULT_BITS,
        bias=np.rint(added * (1 << RESULT_BITS)).astype(np.int64),
    )


def _packed(numbers: Ints, bits: int) -> Bytes:
    return np.packbits((numbers.ravel()[:, None] >> np.arange(bits)) & 1, bitorder="little")


def _tile_bytes(rows: QuantisedRows, start: int, tile: Tile) -> Bytes:
    """Return a tile's codes, chain after chain, and the indices of the chains that have some."""
    codes: list[Ints] = []
    indices: list[Ints] = []
    chosen = slice(start, start + tile.rows)
    kept = rows.kept[chosen]
    for n in sorted(set(kept.tolist()), reverse=True):
        weight = rows.codes[:, chosen][:, kept == n]
        groups = weight.reshape(-1, CANDIDATES, weight.shape[1]).transpose(2, 0, 1)
        # Dense rows have no indices: theirs stay in place.
        order = np.argsort((groups == 0) & (n < CANDIDATES), axis=2, kind="stable")[..., :n]
        found = np.take_along_axis(groups, order, axis=2)
        for target, each in ((codes, found), (indices, order)):
            chains = each.reshape(-1, CANDIDATES // n, each.shape[1], n).transpose(0, 2, 1, 3)
            if target is codes or n < CANDIDATES:
                target.append(chains.astype(np.int64).ravel())
    parts = [_packed(np.concatenate(codes), rows.bits)]
    parts += [_packed(np.concatenate(indices), INDEX_BITS)] if indices else []
    return np.concatenate(parts)


def _entries(rows: QuantisedRows) -> Bytes:
    total = np.zeros(rows.kept.size, np.int64)
    for name, (low, width) in ROW_ENTRY.items():
        total |= (getattr(rows, name) & ((1 << width) - 1)) << low
    return total.astype("<u4").view(np.uint8)


def _put(memory: Bytes, line: int, content: Bytes) -> None:
    memory[line * LINE_BYTES :][: content.size] = content


def memory_image(model: CompiledModel, rows: abc.Mapping[str, QuantisedRows], step: Step) -> Image:
    """Return memory before the decode step of a token behind `past` others.

    `rows` has every projection, by its node's name. Raises ValueError where `check_node` does.
    """
    arch, layout = model.arch, model.layout
    kv = max(_end(model, node, rows[node.name].bits) for _, node in model.decoder.linears)
    acts = kv + layout.kv_layer_lines * len(model.decoder.layers)
    logits = acts + lines(step.token.size)
    width = max(node.results for node in model.decoder.after if isinstance(node, Linear))
    positions = logits + lines(width)
    memory = np.zeros((positions + lines(2 * step.cosines.size)) * LINE_BYTES, np.uint8)
    for _, node in model.decoder.linears:
        check_node(arch, node)
        _put_rows(memory, model, node, rows[node.name])
    past, size = step.keys.shape[2:]
    for role, held in (("k", step.keys), ("v", step.values)):
        first = kv + layout.kv_layer_lines // 2 * (role == "v")
        for layer, head in np.ndindex(*held.shape[:2]):
            line = first + layer * layout.kv_layer_lines + head * layout.kv_head_lines
            _put(memory, line, held[layer, head].view(np.uint8).ravel())
    _put(memory, acts, step.token.view(np.uint8))
    _put(memory, positions, np.concatenate([step.cosines, step.sines]).view(np.uint8))
    bases = {
        Base.KV: kv,
        Base.NEW_TOKEN: kv + past * size // LINE_BYTES,
        Base.ACTIVATIONS: acts,
        Base.POSITION: positions,
    }
    registers = Registers(bases=bases, length=past + 1)
    return Image(memory=memory, registers=registers, logits=logits * LINE_BYTES)


def _emitter(model: CompiledModel, bits: int) -> OnChip:
    return OnChip(arch=model.arch, layout=model.layout, bits=bits, kv=1)


def _end(model: CompiledModel, node: Linear, bits: int) -> int:
    """Return the line behind a projection's weights and table."""
    return model.places[node.name] + _emitter(model, bits).node_lines(node)


def _put_rows(memory: Bytes, model: CompiledModel, node: Linear, rows: QuantisedRows) -> None:
    """Write a projection's tiles, each on a line of its own, and its row table."""
    emitter = _emitter(model, rows.bits)
    line, start = model.places[node.name], 0
    for times, tile in tiles(Unit.of(model.arch, matrix=False), emitter.core_rows(node)):
        for _ in range(times):
            _put(memory, line, _tile_bytes(rows, start, tile))
            line += emitter.tile_lines(node)(tile)
            start += tile.rows
    _put(memory, emitter.table_place(node, model.places[node.name]), _entries(rows))
