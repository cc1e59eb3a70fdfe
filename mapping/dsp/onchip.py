"""Always-on-chip decode: one token whose activations never leave the chip."""

from collections.abc import Callable
from dataclasses import dataclass

from mapping.dsp.emit import HEAD_AXIS, Emitter, Waits
from mapping.dsp.model import Attention, Embed, Linear, Norm
from mapping.dsp.tiles import ROW_BYTES, Tile, Unit, tiles, unrolled
from simulator.dsp_isa import Base, Buffer, Code, Instruction, Loop, MiscOp, Module

__all__ = ["OnChip"]

LD, ST, MM, MV, MISC, SYS = Module


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChip(Emitter):
    """Always-on-chip decode of one token at `kv` cached tokens, the new one included."""

    kv: int

    @property
    def products(self) -> Module:
        """The module that multiplies."""
        return MV

    def embed(self, node: Embed) -> Code:
        """Fetch the token's row; the first norm waits for it."""
        return (self.load(Buffer.OUT, node.width, cross=True, releases=(MISC,)),)

    def norm(self, node: Norm, *, after_embed: bool = False) -> Code:
        """Normalise each core's share and send it to all."""
        share = self.share(node.width)
        waits = (LD,) if after_embed else ()
        return (
            self.misc(node.op, 1, share, waits=waits, releases=(ST,)),
            self.store(share, link=True, waits=(MISC,), releases=(MV,)),
        )

    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Multiply; a `fresh` input vector is announced by ST, `logits` leave the chip."""
        unit = Unit.of(self.arch, matrix=False)
        runs = tiles(unit, self.core_rows(node))
        stored = node.role in ("k", "v", "wide") or logits
        target: Waits = (ST,) if stored else (MV,) if node.role == "q" and node.then else ()

        def body(tile: Tile, line: int, first: bool, last: bool) -> Code:
            ready = target if last else ()
            fused = self.fused(node, 1, tile.rows, ready)
            return (
                *self.steps(
                    node,
                    unit,
                    tile,
                    place + line,
                    module=MV,
                    channels=self.channels,
                    first=(ST,) if first and fresh else (),
                    last=(),
                    done=(MISC,) if node.then else ready,
                ),
                *fused,
            )

        share = self.results_of(node, self.rows_of(node))
        code = (
            self.table(ROW_BYTES * self.rows_of(node), (), self.table_place(node, place)),
            *unrolled(runs, body, self.tile_lines(node)),
        )
        source = (MISC,) if node.then else (MV,)
        if logits:
            return (*code, self.store(share, waits=source, releases=(SYS,), cross=True))
        if node.role in ("k", "v"):
            row = self.store(
                share,
                waits=source,
                releases=(LD,),
                base=Base.NEW_TOKEN,
                address=self.kv_place(node.role),
                strides={"address": (self.layout.kv_layer_lines,)},
            )
            return (*code, row)
        if node.role == "wide":
            return (*code, self.store(share, waits=source, releases=(MV,), link=True))
        return code

    def attention(self, node: Attention, *, rotated: bool) -> Code:
        """Score, softmax and context of every head of keys of the core, one after the other.

        Keys and values load once the new token's are in memory; `rotated` queries come from MISC.
        """
        heads = self.kv_heads(node)
        past = self._past(heads * node.size) if self.arch.concatenates_kv else ()
        code: list[Instruction | Loop] = list(
            self._head(node, first=True, rotated=rotated, last=heads == 1)
        )
        if heads > 2:
            middle = self._head(node, first=False, rotated=False, last=False)
            code.append(Loop(axis=HEAD_AXIS, times=heads - 2, body=middle))
        if heads > 1:
            code += self._head(node, first=False, rotated=False, last=True)
        width = heads * node.queries * node.size
        link = self.store(width, waits=(MV,), releases=(MV,), link=True)
        return (*past, *code, link)

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

    def _cached(
        self, role: str, first: bool
    ) -> Callable[[int, int, bool, Waits, Waits], Instruction]:
        """Return the LD of a tile of keys or values; the `first` of a layer waits for ST."""
        alone = not self.arch.concatenates_kv

        def load(
            columns: int, groups: int, opening: bool, waits: Waits, releases: Waits
        ) -> Instruction:
            return self.load(
                Buffer.MATRIX,
                columns * groups * self.arch.group,
                base=Base.KV,
                waits=(*waits, ST) if first and opening and alone else waits,
                releases=releases,
                address=self.kv_place(role),
                strides={"address": (self.layout.kv_layer_lines, self.layout.kv_head_lines)},
            )

        return load

    def _head(self, node: Attention, *, first: bool, rotated: bool, last: bool) -> Code:
        unit = Unit.of(self.arch, matrix=False)
        scores = self.product(
            unit,
            self.kv,
            self.groups(node.size),
            self._cached("k", first),
            module=MV,
            first=(MISC,) if first and rotated else (),
            done_last=(MISC,),
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
            )
            for query in range(node.queries)
        )
        context = self.product(
            unit,
            node.size,
            self.groups(self.kv),
            self._cached("v", first),
            module=MV,
            first=(MISC,),
            done_last=(ST,) if last else (),
            queries=node.queries,
        )
        return (*scores, *softmax, *context)
