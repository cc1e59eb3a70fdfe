"""Quantised weights, and memory as programs expect it.

Rows of 16, 8, 4 and 2 of 16 kept weights follow each other in this order, so that results keep
their places; a gated tile holds columns of the gate, then as many of the other projection.
"""

import collections.abc as abc
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapping.dsp.compile import CompiledModel
from mapping.dsp.emit import lines
from mapping.dsp.model import Embed, Linear
from mapping.dsp.onchip import ACT_SHIFT, OnChip
from mapping.dsp.prefill import Prefill
from mapping.dsp.tiles import Tile, Unit, split_groups, tiles
from simulator.arch.dequantiser import SCALE_BITS, SHIFT_BITS
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa import LINE_BYTES, LINE_ELEMENTS, ROW_ENTRY, Base, Registers

__all__ = [
    "Image",
    "Prompt",
    "QuantisedRows",
    "Step",
    "arranged",
    "check_node",
    "check_prompt",
    "memory_image",
    "prompt_image",
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
class Prompt:
    """A prompt's operands: int8 with 4 fraction bits, cosines and sines with 7.

    `tokens` [length, width]; `cosines` and `sines` [length, size].
    """

    tokens: NDArray[np.int8]
    cosines: NDArray[np.int8]
    sines: NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """Memory uint8[bytes] before a run and its base registers; `logits` starts at a byte."""

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


def check_prompt(model: CompiledModel) -> None:
    """Raise ValueError, naming what it lacks, unless a decoder's prompts have memory images.

    They exist for heads of a line, tiles of tokens that MISC takes at once, all scores, and weights
    whose portions of 16 rows fill lines: there MM finds its tiles.
    """
    arch, decoder = model.arch, model.decoder
    unit = Unit.of(arch, matrix=True)
    wrong: str | None = None
    if not decoder.before:
        wrong = "tokens' rows, not a decoder without"
    elif arch.mm_tile_columns != CANDIDATES or arch.mm_tokens not in (4, 8, CANDIDATES):
        wrong = (
            f"tiles of {CANDIDATES} columns and 4, 8 or {CANDIDATES} tokens, not of "
            f"{arch.mm_tile_columns} and {arch.mm_tokens}"
        )
    elif decoder.attention.size != LINE_BYTES:
        wrong = f"heads of {LINE_BYTES}, not {decoder.attention.size}"
    elif decoder.attention_percent != 100:
        wrong = f"all scores, not {decoder.attention_percent} % of their blocks"
    else:
        for layer, node in decoder.linears:
            if layer is None:
                continue  # the head runs on one token
            groups = node.k // CANDIDATES
            for _, tile in tiles(unit, node.kept_rows):
                if sum(tile.bytes_of(groups, arch.layer_bits(layer))) % LINE_BYTES:
                    wrong = f"portions of 16 rows that fill lines, not those of {node.name}"
                elif len(split_groups(unit, groups, tile.passes)) > 1:
                    wrong = f"a reduction that fits half of weight_buffer, not {node.k}"
        held = arch.out_buffer.capacity_bytes // (2 * LINE_ELEMENTS)
        taken = out_lines(model)
        if taken > held:
            wrong = f"{taken} lines of the out_buffer, which has {held}"
    if wrong:
        raise ValueError(f"{decoder.name}: an image of a prompt needs {wrong}")


def out_lines(model: CompiledModel) -> int:
    """Return the lines of the out buffer that prompts need: a node's, and a row of zeros.

    Decode steps have to leave the zeros alone too: their logits come last.
    """
    decoder, head = model.decoder, _head(model)
    tile = model.arch.mv_tile_columns
    steps = model.spots[head.name].results + lines(-(-head.n // tile) * tile)
    emitter = Prefill(
        arch=model.arch, layout=model.layout, bits=8, tokens=model.arch.mm_tokens, needed=()
    )
    nodes = [*decoder.before, *(node for layer in decoder.layers for node in layer)]
    width = max(node.width for node in nodes if isinstance(node, Embed))
    return max(steps, *map(emitter.out_lines, nodes)) + lines(width)


def _head(model: CompiledModel) -> Linear:
    """Return the projection that makes logits."""
    return next(node for node in model.decoder.after if isinstance(node, Linear))


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
    """Return a tile's portions of 16 rows: codes, chain after chain, then indices if there are."""
    return np.concatenate(
        [_portion(rows, slice(at, at + CANDIDATES)) for at in range(start, start + tile.rows, 16)]
    )


def _portion(rows: QuantisedRows, chosen: slice) -> Bytes:
    """Return 16 rows of one N: a chain's codes of a group after those of the group before."""
    n = int(rows.kept[chosen.start])
    groups = rows.codes[:, chosen].reshape(-1, CANDIDATES, CANDIDATES).transpose(2, 0, 1)
    # Dense rows have no indices: theirs stay in place.
    order = np.argsort((groups == 0) & (n < CANDIDATES), axis=2, kind="stable")[..., :n]
    found = np.take_along_axis(groups, order, axis=2)
    packed = [_packed(_in_chains(found, n), rows.bits)]
    packed += [_packed(_in_chains(order, n), INDEX_BITS)] if n < CANDIDATES else []
    return np.concatenate(packed)


def _in_chains(each: NDArray[Any], n: int) -> Ints:
    """Return [rows, groups, n] chain after chain, each group after group."""
    chains = each.reshape(-1, CANDIDATES // n, each.shape[1], n).transpose(0, 2, 1, 3)
    return chains.astype(np.int64).ravel()


def _entries(rows: QuantisedRows) -> Bytes:
    total = np.zeros(rows.kept.size, np.int64)
    for name, (low, width) in ROW_ENTRY.items():
        total |= (getattr(rows, name) & ((1 << width) - 1)) << low
    return total.astype("<u4").view(np.uint8)


def _put(memory: Bytes, line: int, content: Bytes) -> None:
    memory[line * LINE_BYTES :][: content.size] = content


def memory_image(
    model: CompiledModel,
    rows: abc.Mapping[str, QuantisedRows],
    step: Step,
    memory: Bytes | None = None,
) -> Image:
    """Return memory before the decode step of a token behind `past` others.

    `rows` has every projection, by its node's name. `memory` is what an earlier run left, keys and
    values of past tokens with it: then only the token is put there. Raises ValueError where
    `check_node` does.
    """
    layout, at = model.layout, _Lines.of(model)
    past, size = step.keys.shape[2:]
    held = _with_weights(model, rows) if memory is None else memory.copy()
    for role, kept in (("k", step.keys), ("v", step.values)):
        first = at.kv + layout.kv_layer_lines // 2 * (role == "v")
        for layer, head in np.ndindex(*kept.shape[:2] if memory is None else (0, 0)):
            line = first + layer * layout.kv_layer_lines + head * layout.kv_head_lines
            _put(held, line, kept[layer, head].view(np.uint8).ravel())
    _put(held, at.acts, step.token.view(np.uint8))
    _put(held, at.positions, np.concatenate([step.cosines, step.sines]).view(np.uint8))
    bases = {**at.bases, Base.NEW_TOKEN: at.kv + past * size // LINE_BYTES}
    registers = Registers(bases=bases, length=past + 1)
    return Image(memory=held, registers=registers, logits=at.logits * LINE_BYTES)


def prompt_image(
    model: CompiledModel, rows: abc.Mapping[str, QuantisedRows], prompt: Prompt
) -> Image:
    """Return memory before the prefill of a prompt, and an empty cache.

    Raises ValueError where `check_node` and `check_prompt` do.
    """
    check_prompt(model)
    at, arch = _Lines.of(model), model.arch
    memory = _with_weights(model, rows)
    length, width = prompt.tokens.shape
    tokens = _in_blocks(prompt.tokens, arch.mm_tokens)
    first = at.acts + model.areas[model.decoder.before[0].name].results
    _put(memory, first, tokens.view(np.uint8).ravel())
    turns = [_in_blocks(each, arch.mm_tokens) for each in (prompt.cosines, prompt.sines)]
    _put(memory, at.positions, np.stack(turns, axis=2).view(np.uint8).ravel())
    last = first + (length - 1) // arch.mm_tokens * lines(width * arch.mm_tokens)
    registers = Registers(bases={**at.bases, Base.LAST_TOKENS: last}, length=length)
    return Image(memory=memory, registers=registers, logits=at.logits * LINE_BYTES)


def _in_blocks(rows: NDArray[np.int8], tokens: int) -> NDArray[np.int8]:
    """Return int8[tokens, elements] as [tiles, groups, tokens of a tile, 16], zeros behind."""
    padded = np.pad(rows, ((0, -len(rows) % tokens), (0, 0)))
    return padded.reshape(-1, tokens, rows.shape[1] // CANDIDATES, CANDIDATES).swapaxes(1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lines:
    """Where memory's parts start: the cache, activations, logits, and cosines and sines."""

    kv: int
    acts: int
    logits: int
    positions: int
    end: int

    @staticmethod
    def of(model: CompiledModel) -> "_Lines":
        """Return those of a model."""
        decoder = model.decoder
        kv = max(
            model.places[node.name] + _size(model, layer, node) for layer, node in decoder.linears
        )
        acts = kv + model.layout.kv_layer_lines * len(decoder.layers)
        positions = acts + model.area_lines
        size = decoder.attention.size * 2 * model.arch.kv_capacity_tokens
        return _Lines(
            kv=kv,
            acts=acts,
            logits=acts + lines(_head(model).k),
            positions=positions,
            end=positions + lines(size),
        )

    @property
    def bases(self) -> dict[Base, int]:
        """The base registers that all programs share."""
        return {Base.KV: self.kv, Base.ACTIVATIONS: self.acts, Base.POSITION: self.positions}


def _with_weights(model: CompiledModel, rows: abc.Mapping[str, QuantisedRows]) -> Bytes:
    """Return memory with all projections and nothing else."""
    memory = np.zeros(_Lines.of(model).end * LINE_BYTES, np.uint8)
    for _, node in model.decoder.linears:
        check_node(model.arch, node)
        _put_rows(memory, model, node, rows[node.name])
    return memory


def _size(model: CompiledModel, layer: int | None, node: Linear) -> int:
    """Return the lines of a projection's weights and table."""
    bits = model.arch.head_bits if layer is None else model.arch.layer_bits(layer)
    return _emitter(model, bits).node_lines(node)


def _emitter(model: CompiledModel, bits: int) -> OnChip:
    return OnChip(arch=model.arch, layout=model.layout, bits=bits, kv=1)


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
