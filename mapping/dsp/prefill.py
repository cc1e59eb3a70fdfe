"""Prefill: tiles of tokens through MM, operator after operator, activations in memory."""

from collections.abc import Callable
from dataclasses import dataclass

from mapping.dsp.emit import HEAD_AXIS, LINE_BYTES, TOKEN_AXIS, Emitter, Waits
from mapping.dsp.model import Attention, Embed, Linear, Norm
from mapping.dsp.tiles import ROW_BYTES, At, Tile, Unit, tiles, unrolled
from simulator.dsp_isa import Base, Buffer, Code, Instruction, Loop, MiscOp, Module

__all__ = ["Prefill"]

LD, ST, MM, MV, MISC, SYS = Module


def _repeat(axis: int, times: int, body: Code) -> Code:
    return (Loop(axis=axis, times=times, body=body),) if times else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill(Emitter):
    """Prompt of `tokens`, a multiple of the bucket, tile of tokens by tile of tokens.

    `needed` are the columns that each of these scores: all, or the blocks its tile map keeps.
    """

    tokens: int
    needed: tuple[int, ...]

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

    def embed(self, node: Embed) -> Code:
        """Fetch the tokens' rows, add what their positions ask for, and store them.

        A model without position embeddings adds zero on the way.
        """
        share = self.rows * self.share(node.width)

        def fetch(last: bool) -> Code:
            load = self.load(Buffer.OUT, share, cross=True, waits=(MISC,), releases=(MISC,))
            store = self.store(share, waits=(MISC,), releases=(MISC, LD) if last else (MISC,))
            copy = self.misc(
                MiscOp.ADD, self.rows, self.share(node.width), waits=(LD, ST), releases=(LD, ST)
            )
            return (load, copy, store)

        return self._token_tiles(fetch)

    def _token_tiles(self, body: Callable[[bool], Code]) -> Code:
        """Return `body(last)` of every tile of tokens, all but the last in a loop."""
        return (*_repeat(TOKEN_AXIS, self.tiles_of_tokens - 1, body(False)), *body(True))

    def norm(self, node: Norm, *, after_embed: bool = False) -> Code:
        """Normalise each core's share, 16 tokens at a time, and send it to all."""
        rows = min(self.arch.group, self.rows)
        share = self.share(node.width)

        def some(last: bool) -> Code:
            return (
                self.load(Buffer.OUT, rows * share, waits=(MISC,), releases=(MISC,)),
                self.misc(node.op, rows, share, waits=(LD, ST), releases=(LD, ST)),
                self.store(
                    rows * share,
                    waits=(MISC,),
                    releases=(MISC, LD) if last else (MISC,),
                    link=True,
                ),
            )

        loop = _repeat(TOKEN_AXIS, self.tokens // rows - 1, some(False))
        return (self.table(LINE_BYTES, (ST,)), *loop, *some(True))

    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Multiply tile of tokens by tile of columns; results leave tile by tile."""
        unit = Unit.of(self.arch, matrix=True)
        runs = tiles(unit, self.core_rows(node))

        def token_tile(last_tokens: bool) -> Code:
            def body(tile: Tile, at: At) -> Code:
                size = self.rows * self.results_of(node, tile.rows)
                operands = [self.load(Buffer.OUT, size) for _ in range(node.operands)]
                end = at.last and last_tokens
                return (
                    *operands,
                    *self.steps(
                        node,
                        unit,
                        tile,
                        place + at.line,
                        module=MM,
                        channels=self.arch.weight_channels,
                        first=(),
                        last=(ST,),
                        done=(MISC,) if node.then else (ST,),
                        tokens=self.rows,
                    ),
                    *self.fused(node, self.rows, tile.rows, (ST,)),
                    self.store(
                        size,
                        waits=(MISC,) if node.then else (MM,),
                        releases=(MM, LD) if end else (MM,),
                        link=node.role == "wide",
                        base=Base.KV if node.role in ("k", "v") else Base.ACTIVATIONS,
                        address=self.kv_place(node.role),
                    ),
                )

            act = self.load(Buffer.ACT, self.rows * node.k)
            return (act, *unrolled(runs, body, self.tile_lines(node)))

        return (
            self.table(ROW_BYTES * self.rows_of(node), (ST,), self.table_place(node, place)),
            *self._token_tiles(token_tile),
        )

    def attention(self, node: Attention, *, rotated: bool) -> Code:
        """Scores, softmax and context of every head and tile of tokens; skipped blocks cost 0."""
        heads = self.kv_heads(node)

        def head(last_head: bool) -> Code:
            last = len(self.needed) - 1
            return tuple(
                item
                for index, columns in enumerate(self.needed)
                for item in self._token_tile(node, columns, last_head and index == last)
            )

        shared = _repeat(TOKEN_AXIS, node.queries, head(False))  # they read the same keys
        return (
            self.table(self.tokens, (ST,)),
            *_repeat(HEAD_AXIS, heads - 1, shared),
            *_repeat(TOKEN_AXIS, node.queries - 1, head(False)),
            *head(True),
        )

    def _cached(self, role: str) -> Callable[[int, int, At, Waits, Waits], Instruction]:
        """Return the LD of a tile of keys or values."""

        def load(columns: int, groups: int, at: At, waits: Waits, releases: Waits) -> Instruction:
            return self.load(
                Buffer.WEIGHT,
                columns * groups * self.arch.group,
                base=Base.KV,
                channels=self.arch.weight_channels,
                waits=waits,
                releases=releases,
                address=self.kv_place(role),
                strides={"address": (self.layout.kv_layer_lines, self.layout.kv_head_lines)},
            )

        return load

    def _token_tile(self, node: Attention, columns: int, last: bool) -> Code:
        unit = Unit.of(self.arch, matrix=True)

        def keep(is_last: bool) -> Code:
            releases = (MM, LD) if is_last and last else (MM,)
            size = self.rows * unit.tile_columns
            return (self.store(size, waits=(MM,), releases=releases, link=True),)

        scores = self.product(
            unit,
            columns,
            self.groups(node.size),
            self._cached("k"),
            module=MM,
            first=(ST,),
            done_last=(MISC,),
            tokens=self.rows,
        )
        size = self.rows * columns
        context = self.product(
            unit,
            node.size,
            self.groups(columns),
            self._cached("v"),
            module=MM,
            first=(),
            wait_each=(ST,),
            done_each=(ST,),
            after=keep,
            tokens=self.rows,
        )
        return (
            self.load(Buffer.ACT, self.rows * node.size),
            *scores,
            self.misc(MiscOp.SOFTMAX, self.rows, columns, waits=(MM,), releases=(ST,)),
            self.store(size, waits=(MISC,), releases=(MM, LD)),
            self.load(Buffer.ACT, size, waits=(ST,)),
            *context,
        )
