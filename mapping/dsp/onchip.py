"""Always-on-chip decode: one token whose activations never leave the chip."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mapping.dsp.emit import HEAD_AXIS, Emitter, Placed, Waits, lines
from mapping.dsp.model import Attention, Embed, Linear, Norm
from mapping.dsp.places import ROTARY, Spot, score_lines, vector_lines
from mapping.dsp.tiles import ROW_BYTES, At, Tile, Unit, tiles, unrolled
from simulator.dsp_isa import (
    TABLE_ROWS,
    Base,
    Buffer,
    Code,
    Instruction,
    Loop,
    MiscOp,
    Module,
)

__all__ = ["ACT_SHIFT", "SHARE_SHIFT", "TABLE_SHIFT", "OnChip", "score_shift"]

LD, ST, MM, MV, MISC, SYS = Module

ACT_SHIFT: Final = 4
"""Activations become int8 with 4 of their 8 fraction bits: -8 to 7.94."""

SHARE_SHIFT: Final = 8
"""Softmax's shares become int8 with 7 of their 15 fraction bits."""

TABLE_SHIFT: Final = 1
"""Cosines and sines come as int8 with 7 fraction bits."""

CONTEXT_DOWN: Final = 3
"""Shares times values have 7 + 4 fraction bits, contexts 8."""


def score_shift(size: int) -> int:
    """Return the shift that scales scores of heads of `size`: the power of two at its root.

    What the root has more is folded into the projection of queries.
    """
    return (size.bit_length() - 1) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChip(Emitter):
    """Always-on-chip decode of one token at `kv` cached tokens, the new one included.

    `spots` says where the vectors of every node lie; a head of `rotary` elements is turned.
    """

    kv: int
    rotary: int = 0
    spots: Mapping[str, Spot] = field(default_factory=dict, hash=False)

    @property
    def products(self) -> Module:
        """The module that multiplies."""
        return MV

    def spot(self, name: str) -> Spot:
        """Return the places of a node."""
        return self.spots.get(name, Spot())

    def embed(self, node: Embed) -> Code:
        """Fetch the position's cosines and sines and the token's row; the first norm waits."""
        turns = self.load(Buffer.OUT, 2 * self.rotary, base=Base.POSITION, shift=TABLE_SHIFT)
        row = self.load(
            Buffer.OUT,
            node.width,
            cross=True,
            releases=(MISC,),
            bank=self.spot(node.name).final,
            shift=ACT_SHIFT,
        )
        return (turns, row) if self.rotary else (row,)

    def norm(self, node: Norm, *, after_embed: bool = False) -> Code:
        """Normalise each core's share and send it to all."""
        share, spot = self.share(node.width), self.spot(node.name)
        waits = (LD,) if after_embed else ()
        return (
            self.misc(
                node.op, 1, share, waits=waits, releases=(ST,), a=spot.source, out=spot.final
            ),
            self._send(share, spot, waits=(MISC,)),
        )

    def _send(self, share: int, spot: Spot, *, waits: Waits) -> Instruction:
        """Return the ST that gives a core's share of a vector to all."""
        return self.store(
            share,
            link=True,
            waits=waits,
            releases=(MV,),
            bank=spot.final,
            address=spot.sent,
            shift=ACT_SHIFT,
        )

    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Multiply; a `fresh` input vector is announced by ST, `logits` leave the chip."""
        unit, spot = Unit.of(self.arch, matrix=False), self.spot(node.name)
        runs = tiles(unit, self.core_rows(node))
        stored = node.role in ("k", "v", "wide") or logits
        target: Waits = (ST,) if stored else (MV,) if node.role == "q" and node.then else ()

        def body(tile: Tile, at: At) -> Code:
            ready = target if at.last else ()
            step = unit.tile_columns // TABLE_ROWS
            where = {"vector": spot.source, "shift": ACT_SHIFT, "tabled": 1}
            fields, strides = self._tile("out", spot.results, unit.tile_columns, at)
            table = spot.table + at.number * step
            return (
                *self.steps(
                    node,
                    unit,
                    tile,
                    place + at.line,
                    module=MV,
                    channels=self.channels,
                    first=(ST,) if at.first and fresh else (),
                    last=(),
                    done=(MISC,) if node.then else ready,
                    table=table,
                    placed=(
                        {**where, **fields, "table": table},
                        {**strides, "table": (0, 0, 0, step)},
                    ),
                ),
                *self._then(node, tile, at, ready),
            )

        share = self.results_of(node, self.rows_of(node))
        table = self.table_place(node, place)
        code = (
            self.table(ROW_BYTES * self.rows_of(node), (), table, bank=spot.table),
            *unrolled(runs, body, self.tile_lines(node)),
        )
        source = (MISC,) if node.then else (MV,)
        if logits:
            leave = self.store(
                share,
                waits=source,
                releases=(SYS,),
                cross=True,
                bank=spot.final,
                address=lines(node.k),
                shift=ACT_SHIFT,
            )
            return (*code, leave)
        if node.role in ("k", "v"):
            return (*code, *self._append(node, spot, source))
        if node.role == "wide":
            return (*code, self._send(share, spot, waits=source))
        return code

    def _tile(self, name: str, line: int, columns: int, at: At) -> Placed:
        """Return the place of a tile of `columns` results in a vector at `line`."""
        step = vector_lines(columns)
        return {name: line + at.number * step}, {name: (0, 0, 0, step)}

    def _then(self, node: Linear, tile: Tile, at: At, releases: Waits) -> Code:
        """Return the operations on a tile of results; the first waits for the product's token."""
        count, last = self.results_of(node, tile.rows), len(node.then) - 1
        rows, elements = 1, count
        if node.then == ROTARY:
            rows, elements = -(-count // self.rotary), min(self.rotary, count)
        code = []
        for index, op in enumerate(node.then):
            vectors, fixed = self._vectors(node, index, count)
            placed = [self._tile(name, *place, at) for name, place in vectors.items()]
            code.append(
                self.misc(
                    op,
                    rows,
                    elements,
                    waits=(MV,) if index == 0 else (),
                    releases=releases if index == last else (),
                    strides={name: step for _, strides in placed for name, step in strides.items()},
                    **{name: line for fields, _ in placed for name, line in fields.items()},
                    **fixed,
                )
            )
        return tuple(code)

    def _vectors(
        self, node: Linear, index: int, count: int
    ) -> tuple[Mapping[str, tuple[int, int]], dict[str, int]]:
        """Return the vectors of an operation on `count` results: line, and columns of a tile.

        What lies at the same place for every tile is apart.
        """
        spot, op, width = self.spot(node.name), node.then[index], self.arch.mv_tile_columns
        whole = (spot.results, width)
        if node.then == ROTARY:
            terms = [(spot.work + vector_lines(self.rows_of(node)) * i, width) for i in range(2)]
            if op is MiscOp.ADD:
                return {"a": terms[0], "b": terms[1], "out": whole}, {}
            table = spot.stream + index * vector_lines(self.rotary)
            return {"a": whole, "out": terms[index]}, {"repeat": 1, "b": table, "turn": index}
        if op is MiscOp.ADD:
            return {"a": whole, "b": (spot.stream, width), "out": (spot.stream, width)}, {}
        if op is MiscOp.MUL:
            other = (spot.results + vector_lines(count), width)
            return {"a": whole, "b": other, "out": (spot.final, width // 2)}, {}
        return {"a": whole, "out": whole}, {}

    def _append(self, node: Linear, spot: Spot, source: Waits) -> Code:
        """Store the new token's keys or values, each head's behind its others."""
        heads = self.rows_of(node) // node.granule
        step = vector_lines(node.granule)

        def head(index: int) -> Instruction:
            return self.store(
                node.granule,
                waits=source if index == 0 else (),
                releases=(LD,) if index == heads - 1 else (),
                base=Base.NEW_TOKEN,
                bank=spot.final + index * step,
                address=self.kv_place(node.role) + index * self.layout.kv_head_lines,
                shift=ACT_SHIFT,
                strides={
                    "address": (self.layout.kv_layer_lines, self.layout.kv_head_lines),
                    "bank": (0, step),
                },
            )

        return self._heads(heads, lambda index: (head(index),))

    def _heads(self, heads: int, body: Callable[[int], Code]) -> Code:
        """Return `body` of every head, those between the first and the last in a loop."""
        middle = (Loop(axis=HEAD_AXIS, times=heads - 2, body=body(1)),) if heads > 2 else ()
        return (*body(0), *middle, *(body(heads - 1) if heads > 1 else ()))

    def attention(self, node: Attention, *, rotated: bool) -> Code:
        """Score, softmax and context of every head of keys of the core, one after the other.

        Keys and values load once the new token's are in memory; `rotated` queries come from MISC.
        """
        heads, spot = self.kv_heads(node), self.spot(node.name)
        past = self._past(heads * node.size) if self.arch.concatenates_kv else ()

        def head(index: int) -> Code:
            return self._head(node, spot, index, rotated=rotated, last=index == heads - 1)

        link = self._send(heads * node.queries * node.size, spot, waits=(MV,))
        return (*past, *self._heads(heads, head), link)

    def _past(self, width: int) -> Code:
        """Read the keys and the values of all tokens once before attention does."""
        size = width * self.kv
        return tuple(
            self.load(
                Buffer.OUT,
                size,
                base=Base.KV,
                waits=(ST,),
                address=self.kv_place(role),
                strides={"address": (self.layout.kv_layer_lines,)},
            )
            for role in "kv"
        )

    def _cached(self, role: str, head: int) -> Callable[[int, int, At, Waits, Waits], Instruction]:
        """Return the LD of a tile of a head's keys or values; the first of a layer waits for ST.

        Rows of memory are tokens: the reduction of scores lies along them, that of values across.
        """
        waiting = head == 0 and not self.arch.concatenates_kv
        layout = self.layout

        def load(columns: int, groups: int, at: At, waits: Waits, releases: Waits) -> Instruction:
            size = columns * groups * self.arch.group
            step = lines(size) if role == "k" else 0
            place = self.kv_place(role) + head * layout.kv_head_lines + at.number * step
            return self.load(
                Buffer.MATRIX,
                size,
                base=Base.KV,
                waits=(*waits, ST) if waiting and at.first else waits,
                releases=releases,
                address=place,
                strides={"address": (layout.kv_layer_lines, layout.kv_head_lines, 0, step)},
                turned=int(role == "v"),
                rows=columns,
                groups=groups,
            )

        return load

    def _head(self, node: Attention, spot: Spot, head: int, *, rotated: bool, last: bool) -> Code:
        unit, step = Unit.of(self.arch, matrix=False), vector_lines(node.size)
        scored, shared = score_lines(self.arch)
        turns = node.queries * step

        def score(at: At, query: int) -> Placed:
            line = spot.results + query * scored
            fields, strides = self._tile("out", line, unit.tile_columns, at)
            vector = spot.source + (head * node.queries + query) * step
            return (
                {**fields, "vector": vector, "shift": ACT_SHIFT, "down": score_shift(node.size)},
                {**strides, "vector": (0, turns)},
            )

        def context(at: At, query: int) -> Placed:
            vector = {"vector": spot.work + query * shared, "shift": SHARE_SHIFT}
            out = spot.final + (head * node.queries + query) * step
            return {**vector, "down": CONTEXT_DOWN, "out": out}, {"out": (0, turns)}

        scores = self.product(
            unit,
            self.kv,
            self.groups(node.size),
            self._cached("k", head),
            module=MV,
            first=(MISC,) if head == 0 and rotated else (),
            done_last=(MISC,),
            placed=score,
            queries=node.queries,
        )
        last_query = node.queries - 1
        softmax = (
            self.misc(
                MiscOp.SOFTMAX,
                1,
                self.kv,
                waits=(MV,) if query == 0 else (),
                releases=(MV,) if query == last_query else (),
                a=spot.results + query * scored,
                out=spot.work + query * shared,
            )
            for query in range(node.queries)
        )
        contexts = self.product(
            unit,
            node.size,
            self.groups(self.kv),
            self._cached("v", head),
            module=MV,
            first=(MISC,),
            done_last=(ST,) if last else (),
            placed=context,
            queries=node.queries,
        )
        return (*scores, *softmax, *contexts)
