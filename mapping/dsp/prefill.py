"""Prefill: tiles of tokens through MM, operator after operator, activations in memory.

A vector of all tokens lies in memory as blocks of a tile of tokens by 16 elements, block after
block, tile after tile: what one MM leaves, and what the next one takes in a cycle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any, Final

from mapping.dsp.emit import (
    HEAD_AXIS,
    LINE_BYTES,
    TOKEN_AXIS,
    Emitter,
    Placed,
    Strides,
    Waits,
    lines,
)
from mapping.dsp.model import Attention, Embed, Linear, Node, Norm
from mapping.dsp.onchip import ACT_SHIFT, CONTEXT_DOWN, SHARE_SHIFT, TABLE_SHIFT, score_shift
from mapping.dsp.places import ROTARY, Area, vector_lines
from mapping.dsp.tiles import ROW_BYTES, TILE_AXIS, At, Tile, Unit, tiles
from simulator.dsp_isa import LINE_ELEMENTS, Base, Buffer, Code, Instruction, Loop, MiscOp, Module

__all__ = ["Prefill"]

LD, ST, MM, MV, MISC, SYS = Module

LINES: Final = 1 << 12
"""Lines that an address on the chip reaches: places of a machine with fewer wrap around."""

AHEAD: Final = 5
"""Parts that loads may be ahead of operations, which then still read what came before them."""

PIECES: Final = 4
"""Pieces of 16 bytes in a line, which addresses of split transfers count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Tiles whose results leave together, one or a gate and what it scales.

    `numbers` count tiles, `places` are their lines in memory, `result` counts parts.
    """

    tiles: tuple[Tile, ...]
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    result: int

    @property
    def columns(self) -> int:
        """Output rows of its tiles."""
        return sum(tile.rows for tile in self.tiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """How far a loop's next parts are: tiles, lines of memory, results; tiles of tokens."""

    number: int = 0
    place: int = 0
    result: int = 0
    tokens: int = 0


def _repeat(axis: int, times: int, body: Code) -> Code:
    return (Loop(axis=axis, times=times, body=body),) if times else ()


def _ring(line: int) -> int:
    return line % LINES


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill(Emitter):
    """Prompt of `tokens`, a multiple of the bucket, tile of tokens by tile of tokens.

    `needed` are the columns that each of these scores: all, or the blocks its tile map keeps.
    `areas` say where nodes have their tokens in memory; a head of `rotary` elements is turned.
    """

    tokens: int
    needed: tuple[int, ...]
    rotary: int = 0
    areas: Mapping[str, Area] = field(default_factory=dict, hash=False)

    @property
    def products(self) -> Module:
        """The module that multiplies."""
        return MM

    @property
    def rows(self) -> int:
        """Tokens of a tile."""
        return min(self.arch.mm_tokens, self.tokens)

    @property
    def tiles_of_tokens(self) -> int:
        """Tiles of tokens of the prompt."""
        return -(-self.tokens // self.rows)

    def area(self, name: str) -> Area:
        """Return the areas of a node."""
        return self.areas.get(name, Area())

    def block_lines(self, elements: int, rows: int = 0) -> int:
        """Return the lines of `elements` of a tile of tokens, in memory as on the chip."""
        return vector_lines((rows or self.rows) * elements)

    def out_lines(self, node: Node) -> int:
        """Return the lines of the out buffer that a node's results and operands take."""
        match node:
            case Embed() | Norm():
                return 4 * self.block_lines(self.share(node.width))
            case Attention():
                return 3 * self.block_lines(self.arch.kv_capacity_tokens)
            case Linear():
                each = self.block_lines(self.arch.mm_tile_columns)
                parts = -(-self.rows_of(node) // self.arch.mm_tile_columns)
                return each * parts * (1 + 2 * self._places(node) * (not node.gated))

    def embed(self, node: Embed) -> Code:
        """Fetch the tokens' rows, add what their positions ask for, and store them.

        A model without position embeddings adds zero on the way: the last lines of the out
        buffer, which nothing writes.
        """
        width = self.share(node.width)
        top = self.arch.out_buffer.capacity_bytes // (2 * LINE_ELEMENTS)

        def add(rows: int, inward: int, outward: int) -> Instruction:
            return self.misc(
                MiscOp.ADD,
                rows,
                width,
                waits=(LD, ST),
                releases=(LD, ST),
                a=inward,
                b=_ring(top - vector_lines(width)),
                repeat=1,
                out=outward,
            )

        area = self.area(node.name)
        rows = Area(source=area.results, results=area.results)
        return self._rowwise(rows, width, self.rows, add, link=False, cross=True)

    def norm(self, node: Norm, *, after_embed: bool = False) -> Code:
        """Normalise each core's share, 16 tokens at a time, and send it to all."""
        width = self.share(node.width)

        def normed(rows: int, inward: int, outward: int) -> Instruction:
            return self.misc(
                node.op,
                rows,
                width,
                waits=(LD, ST),
                releases=(LD, ST),
                a=inward,
                out=outward,
                blocked=1,
            )

        rows = min(self.arch.group, self.rows)
        code = self._rowwise(
            self.area(node.name), width, rows, normed, link=self.arch.cores > 1, cross=False
        )
        return (self.table(LINE_BYTES, (ST,)), *code)

    def _rowwise(
        self,
        area: Area,
        width: int,
        rows: int,
        make: Callable[[int, int, int], Instruction],
        *,
        link: bool,
        cross: bool,
    ) -> Code:
        """Return LD, `make(rows, a, out)` and ST of `rows` tokens after the other.

        Two slots for what comes in and two for results take turns.
        """
        size, count = rows * width, -(-self.tokens // rows)
        pitch = self.block_lines(width, rows)

        def some(index: int, step: int, last: bool) -> Code:
            slots = [_ring(pitch * (2 * (index % 2) + place)) for place in range(2)]
            strides = {"address": (0, 0, step * pitch)}
            load = self.load(
                Buffer.OUT,
                size,
                cross=cross,
                waits=(MISC,),
                releases=(MISC,),
                address=area.source + index * pitch,
                strides=strides,
                bank=slots[0],
                shift=ACT_SHIFT,
            )
            store = self.store(
                size,
                waits=(MISC,),
                releases=(MISC, LD) if last else (MISC,),
                link=link,
                address=area.results + index * pitch,
                strides=strides,
                bank=slots[1],
                shift=ACT_SHIFT,
            )
            return (load, make(rows, *slots), store)

        return self._turns(some, count, 2)

    def _turns(self, body: Callable[[int, int, bool], Code], count: int, every: int) -> Code:
        """Return `body(index, step, last)` of `count` tiles of tokens, `every` in a loop's body."""
        times = (count - 1) // every
        loop = tuple(item for index in range(every) for item in body(index, every, False))
        rest = (item for index in range(times * every, count - 1) for item in body(index, 0, False))
        return (*_repeat(TOKEN_AXIS, times, loop), *rest, *body(count - 1, 0, True))

    def _blocks(self, node: Linear, unit: Unit) -> list[list[_Part]]:
        """Return a projection's parts, in blocks that lie alike: heads, or tiles of MV if gated."""
        found = [tile for times, tile in tiles(unit, self.core_rows(node)) for _ in range(times)]
        places = list(accumulate(map(self.tile_lines(node), found), initial=0))
        whole = self.arch.mv_tile_columns if node.gated else max(node.granule, unit.tile_columns)
        each = max(1, whole // unit.tile_columns)
        blocks: list[list[_Part]] = []
        result = 0
        for start in range(0, len(found), each):
            count = min(each, len(found) - start)
            parts = -(-count // 2) if node.gated else count
            block = []
            for first in range(start, start + parts):
                chosen = tuple(range(first, start + count, parts))
                block.append(
                    _Part(
                        tiles=tuple(found[number] for number in chosen),
                        numbers=chosen,
                        places=tuple(places[number] for number in chosen),
                        result=result,
                    )
                )
                result += 1
            blocks.append(block)
        return blocks

    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Multiply tile of tokens by tile of columns; results leave tile by tile."""
        blocks = self._blocks(node, Unit.of(self.arch, matrix=True))
        area, width = self.area(node.name), self.block_lines(node.k)

        def token_tile(tile: int, step: int, last: bool) -> Code:
            strides = {"address": (0, 0, step * width), "bank": (0, 0, step)}
            act = self._act(node.k, tile, area.source + tile * width, strides)
            return (act, *self._columns(node, place, blocks, tile, step, last))

        return (
            self.table(ROW_BYTES * self.rows_of(node), (ST,), self.table_place(node, place)),
            *self._turns(token_tile, self.tiles_of_tokens, self._places(node)),
        )

    def _columns(
        self,
        node: Linear,
        place: int,
        blocks: Sequence[Sequence[_Part]],
        tile: int,
        tokens: int,
        last: bool,
    ) -> Code:
        """Return all parts of a tile of tokens: equal blocks in a loop, the last one outside."""
        code: list[Instruction | Loop] = []
        final = len(blocks) - 1
        shapes = [
            (index == final, [part.tiles for part in block]) for index, block in enumerate(blocks)
        ]
        for _, run in groupby(range(len(blocks)), lambda index: shapes[index]):
            first, *others = run
            step = _Step(tokens=tokens)
            if others:
                here, there = blocks[first][0], blocks[first + 1][0]
                step = _Step(
                    number=there.numbers[0] - here.numbers[0],
                    place=there.places[0] - here.places[0],
                    result=there.result - here.result,
                    tokens=tokens,
                )
            body = tuple(
                item
                for part in blocks[first]
                for item in self._part(
                    node, place, part, tile, step, last and part is blocks[final][-1]
                )
            )
            code += (Loop(axis=TILE_AXIS, times=1 + len(others), body=body),) if others else body
        return tuple(code)

    def _part(
        self, node: Linear, place: int, part: _Part, tile: int, step: _Step, end: bool
    ) -> Code:
        """Return loads, products, operations and the ST of a part."""
        size = self.rows * self.results_of(node, part.columns)
        bank = self._result_line(part.numbers[0], step)
        products = tuple(
            item
            for index, _ in enumerate(part.tiles)
            for item in self._product(node, place, part, index, tile, step)
        )
        store = self.store(
            size,
            waits=(MISC,) if node.then else (MM,),
            releases=(MM, LD) if end else (MM,),
            link=node.role == "wide" and self.arch.cores > 1,
            shift=ACT_SHIFT,
            **self._target(node, part, tile, step, bank),
        )
        return (
            *self._operands(node, part, tile, step, size),
            *products,
            *self._then(node, part, tile, step, size),
            store,
        )

    def _product(
        self, node: Linear, place: int, part: _Part, index: int, tile: int, step: _Step
    ) -> Code:
        """Return LD and MM of one of a part's tiles; the last one's results are complete."""
        number, complete = part.numbers[index], index == len(part.tiles) - 1
        line, strides = self._result_line(number, step)
        return self.steps(
            node,
            Unit.of(self.arch, matrix=True),
            part.tiles[index],
            place + part.places[index],
            module=MM,
            channels=self.arch.weight_channels,
            first=(),
            last=(ST,) if complete else (),
            done=((MISC,) if node.then else (ST,)) if complete else (),
            tokens=self.rows,
            table=number,
            placed=(
                {"out": line, "act": _ring(tile), "tabled": 1, "table": number},
                {"out": strides, "act": (0, 0, step.tokens), "table": (0, 0, 0, step.number)},
            ),
            stride=step.place,
            table_stride=step.number,
        )

    def _result_line(self, number: int, step: _Step) -> tuple[int, tuple[int, ...]]:
        """Return the line in the out buffer of a tile's results, and its stride."""
        lines_each = self.block_lines(self.arch.mm_tile_columns)
        return _ring(number * lines_each), (0, 0, 0, step.number * lines_each)

    def _places(self, node: Linear) -> int:
        """Return how many tiles of tokens have operands of their own on the chip."""
        parts = self.results_of(node, self.rows_of(node)) // self.arch.mm_tile_columns
        return 1 if parts > AHEAD or not node.then else 2

    def _operand_line(
        self, node: Linear, part: _Part, tile: int, step: _Step
    ) -> tuple[int, tuple[int, ...]]:
        """Return the line in the out buffer of what a part's operations read besides."""
        block = self.block_lines(self.arch.mm_tile_columns)
        parts = -(-self.rows_of(node) // self.arch.mm_tile_columns)
        turn = tile % self._places(node) * 2 * parts
        line = block * (parts + turn + part.result * 2)
        return _ring(line), (0, 0, 0, step.result * 2 * block)

    def _operands(self, node: Linear, part: _Part, tile: int, step: _Step, size: int) -> Code:
        """Load what a part's operations read besides: residuals, or cosines and sines."""
        line, strides = self._operand_line(node, part, tile, step)
        if node.then == ROTARY:
            each = self.block_lines(2 * self.arch.group)
            head = self.groups(self.rotary) or 1
            turns = self.load(
                Buffer.OUT,
                2 * size,
                base=Base.POSITION,
                address=(tile * head + part.result % head) * each,
                strides={"address": (0, 0, step.tokens * head * each), "bank": strides},
                shift=TABLE_SHIFT,
                bank=line,
            )
            return (turns,)
        each, width = self.block_lines(self.arch.group), self.block_lines(node.results)
        load = self.load(
            Buffer.OUT,
            size,
            address=self.area(node.name).stream + tile * width + part.result * each,
            strides={
                "address": (0, 0, step.tokens * width, step.result * each),
                "bank": strides,
            },
            shift=ACT_SHIFT,
            bank=line,
        )
        return (load,) * node.operands

    def _then(self, node: Linear, part: _Part, tile: int, step: _Step, size: int) -> Code:
        """Return the operations on a part's results; the first waits for MM's token."""
        code: list[Instruction] = []
        last = len(node.then) - 1
        for index, op in enumerate(node.then):
            placed = self._vectors(node, part, tile, step, index)
            code.append(
                self.misc(
                    op,
                    1,
                    size,
                    waits=(MM,) if index == 0 else (),
                    releases=(ST,) if index == last else (),
                    strides={name: strides for name, (_, strides) in placed.items()},
                    **{name: line for name, (line, _) in placed.items()},
                    turn=int(node.then == ROTARY and index == 1),
                )
            )
        return tuple(code)

    def _vectors(
        self, node: Linear, part: _Part, tile: int, step: _Step, index: int
    ) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Return line and strides of the operands and results of an operation."""
        own = self._result_line(part.numbers[0], step)
        line, strides = self._operand_line(node, part, tile, step)
        if node.then == ROTARY:
            # Cosines, then sines; products take their places.
            block = self.block_lines(self.arch.group)
            terms = [(line, strides), (_ring(line + block), strides)]
            if index == len(ROTARY) - 1:
                return {"a": terms[0], "b": terms[1], "out": own}
            return {"a": own, "b": terms[index], "out": terms[index]}
        if node.gated and node.then[index] is MiscOp.MUL and len(part.numbers) > 1:
            return {"a": own, "b": self._result_line(part.numbers[1], step), "out": own}
        return {"a": own, "b": (line, strides), "out": own}

    def _target(
        self, node: Linear, part: _Part, tile: int, step: _Step, bank: tuple[int, tuple[int, ...]]
    ) -> Mapping[str, Any]:
        """Return where a part's results go: rows of the cache, or a block of activations."""
        line, strides = bank
        if node.role in ("k", "v"):
            head, piece = divmod(part.result, max(1, node.granule // self.arch.mm_tile_columns))
            tokens, layout = self.rows * lines(node.granule), self.layout
            place = self.kv_place(node.role) + head * layout.kv_head_lines + tile * tokens
            steps = (layout.kv_layer_lines, 0, step.tokens * tokens, layout.kv_head_lines)
            return {
                "base": Base.KV,
                "address": place * PIECES + piece,
                "split": 1,
                "bank": line,
                "strides": {"address": tuple(PIECES * each for each in steps), "bank": strides},
            }
        each, width = self.block_lines(self.arch.group), self.block_lines(node.results)
        return {
            "address": self.area(node.name).results + tile * width + part.result * each,
            "bank": line,
            "strides": {
                "address": (0, 0, step.tokens * width, step.result * each),
                "bank": strides,
            },
        }

    def attention(self, node: Attention, *, rotated: bool) -> Code:
        """Scores, softmax and context of every head and tile of tokens; skipped blocks cost 0."""
        heads, queries = self.kv_heads(node), node.queries

        def head(index: int, query: int, last: bool) -> Code:
            final = len(self.needed) - 1
            return tuple(
                item
                for tile, columns in enumerate(self.needed)
                for item in self._token_tile(
                    node, columns, tile, index, query, last and tile == final
                )
            )

        # Queries that follow each other read the same keys.
        shared = _repeat(TOKEN_AXIS, queries, head(0, 0, False))
        return (
            self.table(self.tokens, (ST,)),
            *_repeat(HEAD_AXIS, heads - 1, shared),
            *_repeat(TOKEN_AXIS, queries - 1, head(heads - 1, 0, False)),
            *head(heads - 1, queries - 1, True),
        )

    def _cached(
        self, role: str, head: int, size: int
    ) -> Callable[[int, int, At, Waits, Waits], Instruction]:
        """Return the LD of a tile of a head's keys or values: rows of the cache, or a piece."""
        turned, layout = role == "v", self.layout
        unit = PIECES if turned else 1

        def load(columns: int, groups: int, at: At, waits: Waits, releases: Waits) -> Instruction:
            step = 1 if turned else columns * lines(size)
            place = self.kv_place(role) + head * layout.kv_head_lines
            return self.load(
                Buffer.WEIGHT,
                columns * groups * self.arch.group,
                base=Base.KV,
                channels=self.arch.weight_channels,
                waits=waits,
                releases=releases,
                address=place * unit + at.number * step,
                turned=int(turned),
                split=int(turned),
                rows=columns,
                groups=groups,
                strides={
                    "address": (
                        layout.kv_layer_lines * unit,
                        layout.kv_head_lines * unit,
                        0,
                        step,
                    )
                },
            )

        return load

    def _token_tile(
        self, node: Attention, columns: int, tile: int, head: int, query: int, last: bool
    ) -> Code:
        """Return one tile of tokens of one query: scores, shares and their context."""
        unit, area = Unit.of(self.arch, matrix=True), self.area(node.name)
        each, block = self.block_lines(node.size), self.block_lines(unit.tile_columns)
        place = tile * self.block_lines(node.heads * node.size)
        place += (head * node.queries + query) * each
        turns = (0, node.queries * each, each)
        scored, shared, final = (
            _ring(index * self.block_lines(self.arch.kv_capacity_tokens)) for index in range(3)
        )

        def leaves(line: int, half: int, down: int) -> Callable[[At, int], Placed]:
            return lambda at, _: (
                {"act": half, "down": down, "out": _ring(line + at.number * block)},
                {"out": (0, 0, 0, block)},
            )

        def keep(at: At) -> Code:
            releases = (MM, LD) if at.last and last else (MM,)
            store = self.store(
                self.rows * unit.tile_columns,
                waits=(MM,),
                releases=releases,
                link=self.arch.cores > 1,
                bank=_ring(final + at.number * block),
                address=area.results + place + at.number * block,
                shift=ACT_SHIFT,
                strides={"bank": (0, 0, 0, block), "address": (*turns, block)},
            )
            return (store,)

        scores = self.product(
            unit,
            columns,
            self.groups(node.size),
            self._cached("k", head, node.size),
            module=MM,
            first=(ST,),
            done_last=(MISC,),
            tokens=self.rows,
            placed=leaves(scored, 0, score_shift(node.size)),
        )
        size = self.rows * columns
        context = self.product(
            unit,
            node.size,
            self.groups(columns),
            self._cached("v", head, node.size),
            module=MM,
            first=(),
            wait_each=(ST,),
            done_each=(ST,),
            after=keep,
            tokens=self.rows,
            placed=leaves(final, 1, CONTEXT_DOWN),
        )
        softmax = self.misc(
            MiscOp.SOFTMAX,
            self.rows,
            columns,
            waits=(MM,),
            releases=(ST,),
            a=scored,
            b=_ring(tile * self.rows + 1),
            out=shared,
            blocked=1,
        )
        return (
            self._act(node.size, 0, area.source + place, {"address": turns}),
            *scores,
            softmax,
            self.store(
                size,
                waits=(MISC,),
                releases=(MM, LD),
                bank=shared,
                address=area.stream,
                shift=SHARE_SHIFT,
            ),
            self._act(columns, 1, area.stream, {}, waits=(ST,)),
            *context,
        )

    def _act(
        self, width: int, half: int, address: int, strides: Strides, *, waits: Waits = ()
    ) -> Instruction:
        """Return the LD of `width` elements of a tile of tokens into a half of the activations."""
        return self.load(
            Buffer.ACT,
            self.rows * width,
            waits=waits,
            address=address,
            bank=_ring(half),
            rows=self.rows,
            groups=self.groups(width),
            strides=strides,
        )
