"""Instructions of one node of a decoder, for one core; every core runs the same.

Three programs exist. `Prefill` takes tiles of tokens through MM, operator after operator, with
activations in memory. `OnChip` decodes one token through MV: activations never leave the chip,
results go to the other cores over the link, and the next weights load while MISC works. `OffChip`
decodes one token through MV with every operand from memory and every result to memory.

Tokens between modules mean, in program order: LD>MM and LD>MV a filled half buffer, MM>LD and
MV>LD a free one, ST>MM and ST>MISC a free slot for results, and the others that results
are ready. Channels of free slots start filled (`SLOTS`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from mapping.dsp.model import Attention, Embed, Linear, Norm
from mapping.dsp.tiles import (
    ROW_BYTES,
    Tile,
    Unit,
    core_rows,
    core_share,
    split_groups,
    tiles,
    unrolled,
)
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import Base, Buffer, Code, Instruction, Loop, MiscOp, Module
from workloads.canonical import Spec

__all__ = ["SLOTS", "Layout", "OffChip", "OnChip", "Prefill", "lines"]

LD, ST, MM, MV, MISC, SYS = Module
LINE_BYTES: Final = 64
HEAD_AXIS: Final = 1

SLOTS: Final[Mapping[str, int]] = {
    "MM>LD": 2, "MV>LD": 2, "ST>MM": 2, "ST>MISC": 2, "MISC>LD": 2
}  # fmt: skip
"""Free slots before a program: two halves of each buffer (four quarters where LD, MISC and ST
share one: LD is two ahead of MISC, and MISC two ahead of ST)."""

Waits = tuple[Module, ...]


def lines(size_bytes: int) -> int:
    """Return the lines of memory that `size_bytes` take."""
    return -(-size_bytes // LINE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Spec):
    """Where things lie in a core's memory, in lines from their base register.

    Weights of a layer follow each other, layers are `layer_lines` apart. Keys and values of one
    head are kept together, heads one capacity apart, layers after them: channels interleave by
    line, so one head's rows spread over all channels of its core.
    """

    layer_lines: int
    kv_head_lines: int
    kv_layer_lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Emitter:
    """What the three programs share; `bits` is the weight width of the layer."""

    arch: DspChain
    layout: Layout
    bits: int

    @property
    def channels(self) -> int:
        """Channels private to the core."""
        return self.arch.hbm.channels_per_core

    def groups(self, elements: int) -> int:
        """Return the groups of 16 that hold `elements`."""
        return -(-elements // self.arch.group)

    def share(self, elements: int) -> int:
        """Return one core's part of `elements`."""
        return -(-elements // self.arch.cores)

    def load(
        self,
        buffer: Buffer,
        size: int,
        *,
        base: Base = Base.ACTIVATIONS,
        channels: int | None = None,
        cross: bool = False,
        waits: Waits = (),
        releases: Waits = (),
        strides: Mapping[str, tuple[int, ...]] | None = None,
        **fields: int,
    ) -> Instruction:
        """Return an LD of `size` bytes over the core's channels, or one across the switch."""
        width = 1 if cross else channels or self.channels
        values = {"buffer": buffer, "base": base, "bytes": size, "channels": width}
        return Instruction(
            module=LD,
            waits=waits,
            releases=releases,
            fields={**values, "cross": int(cross), **fields},
            strides=strides or {},
        )

    def store(
        self,
        size: int,
        *,
        waits: Waits,
        releases: Waits = (),
        link: bool = False,
        cross: bool = False,
        base: Base = Base.ACTIVATIONS,
        address: int = 0,
        strides: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Instruction:
        """Return an ST of `size` bytes of results to memory, or over the link to every core."""
        width = 1 if cross else self.channels
        values = {"buffer": Buffer.OUT, "base": base, "bytes": size, "channels": width}
        return Instruction(
            module=ST,
            waits=waits,
            releases=releases,
            fields={**values, "cross": int(cross), "link": int(link), "address": address},
            strides=strides or {},
        )

    def kv_place(self, role: str) -> int:
        """Return where the core's keys ("k") or values ("v") of a layer start."""
        return self.layout.kv_layer_lines // 2 if role == "v" else 0

    def misc(
        self, op: MiscOp, rows: int, elements: int, *, waits: Waits = (), releases: Waits = ()
    ) -> Instruction:
        """Return a MISC over rows of `elements`."""
        fields = {"op": op, "rows": rows, "groups": self.groups(elements)}
        return Instruction(module=MISC, waits=waits, releases=releases, fields=fields)

    def chain(
        self,
        module: Module,
        groups: int,
        passes: int,
        *,
        waits: Waits,
        releases: Waits,
        tokens: int = 0,
        **flags: int,
    ) -> Instruction:
        """Return an MM or MV over `groups` groups of candidates."""
        fields = {"groups": groups, "passes": passes, **flags}
        fields |= {"tokens": tokens} if module is MM else {}
        return Instruction(module=module, waits=waits, releases=releases, fields=fields)

    def table(self, size: int, waits: Waits, address: int = 0) -> Instruction:
        """Return the LD of what a node needs beside its operands: scales, bias, tile map."""
        strides = {"address": (self.layout.layer_lines,)} if address else {}
        return self.load(
            Buffer.TABLE, size, base=Base.WEIGHTS, waits=waits, address=address, strides=strides
        )

    def steps(
        self,
        node: Linear,
        unit: Unit,
        tile: Tile,
        line: int,
        *,
        module: Module,
        channels: int,
        first: Waits,
        last: Waits,
        done: Waits,
        tokens: int = 0,
    ) -> Code:
        """Return LD and product of every part of a tile's reduction.

        The first product also waits for `first`, the emitting one for `last`, and gives tokens
        to `done`.
        """
        parts = split_groups(unit, self.groups(node.k), tile.passes)
        starts = [0, *accumulate(parts)]
        stride = self.tile_lines(node)(tile)
        code: list[Instruction] = []
        for index, part in enumerate(parts):
            values, indices = tile.bytes_of(part, self.bits)
            before = lines(sum(tile.bytes_of(starts[index], self.bits)))
            final = index == len(parts) - 1
            code.append(
                self.load(
                    Buffer.WEIGHT if module is MM else Buffer.MATRIX,
                    values + indices,
                    base=Base.WEIGHTS,
                    channels=channels,
                    waits=(module,),
                    releases=(module,),
                    address=line + before,
                    strides={"address": (self.layout.layer_lines, 0, 0, stride)},
                    rows=tile.rows,
                    bits=self.bits,
                    metadata=indices,
                )
            )
            code.append(
                self.chain(
                    module,
                    part,
                    tile.passes,
                    waits=(LD, *(first if index == 0 else ()), *(last if final else ())),
                    releases=(LD, *(done if final else ())),
                    tokens=tokens,
                    emit=int(final),
                    accumulate=int(index > 0),
                    relu=int(node.relu and final),
                    sparse=int(tile.indexed > 0),
                )
            )
        return tuple(code)

    def product(
        self,
        unit: Unit,
        columns: int,
        groups: int,
        make_load: Callable[[int, int, bool, Waits, Waits], Instruction],
        *,
        module: Module,
        first: Waits,
        done_each: Waits = (),
        done_last: Waits = (),
        wait_each: Waits = (),
        after: Callable[[bool], Code] = lambda last: (),
        tokens: int = 0,
    ) -> Code:
        """Return a dense product of activations: a loop over tiles of columns.

        `make_load(columns, groups, opening, waits, releases)` loads the streamed operand of a
        tile, `opening` for the first of all.
        """
        runs = tiles(unit, {unit.group: columns})

        def body(tile: Tile, line: int, is_first: bool, is_last: bool) -> Code:
            parts = split_groups(unit, groups, tile.passes)
            code: list[Instruction | Loop] = []
            for index, part in enumerate(parts):
                start, final = index == 0, index == len(parts) - 1
                opening = is_first and start
                code.append(make_load(tile.rows, part, opening, (module,), (module,)))
                waits = (LD, *(first if opening else ()), *(wait_each if final else ()))
                done = (*done_each, *(done_last if is_last else ())) if final else ()
                code.append(
                    self.chain(
                        module,
                        part,
                        tile.passes,
                        waits=waits,
                        releases=(LD, *done),
                        tokens=tokens,
                        emit=int(final),
                        accumulate=int(index > 0),
                    )
                )
            return (*code, *after(is_last))

        return unrolled(runs, body)

    def core_rows(self, node: Linear) -> dict[int, int]:
        """Return one core's output rows by N."""
        return core_rows(node.kept_rows, self.arch.cores, node.granule)

    def rows_of(self, node: Linear) -> int:
        """Return one core's output rows."""
        return core_share(node.n, self.arch.cores, node.granule)

    def tile_lines(self, node: Linear) -> Callable[[Tile], int]:
        """Return a function that gives the lines of memory a tile of `node` takes."""
        return lambda tile: lines(sum(tile.bytes_of(self.groups(node.k), self.bits)))

    def table_place(self, node: Linear, place: int) -> int:
        """Return where scales and bias of a projection lie: behind its weights."""
        return place + self.node_lines(node) - lines(ROW_BYTES * self.rows_of(node))

    def node_lines(self, node: Linear) -> int:
        """Return the lines one core keeps of a projection, every tile on a line of its own."""
        unit = Unit.of(self.arch, matrix=False)
        size = self.tile_lines(node)
        runs = tiles(unit, self.core_rows(node))
        weights = sum(times * size(tile) for times, tile in runs)
        return weights + lines(ROW_BYTES * self.rows_of(node))


def _results(node: Linear, columns: int) -> int:
    """Return the results that `columns` of a projection leave."""
    return -(-columns // 2) if node.gated else columns


def _fused(emitter: _Emitter, node: Linear, rows: int, columns: int, releases: Waits) -> Code:
    """Return the operations on a tile of results: the first waits for MV or MM's token."""
    last = len(node.then) - 1
    source = MM if isinstance(emitter, Prefill) else MV
    elements = rows * _results(node, columns)
    return tuple(
        emitter.misc(
            op,
            1,
            elements,
            waits=(source,) if index == 0 else (),
            releases=releases if index == last else (),
        )
        for index, op in enumerate(node.then)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChip(_Emitter):
    """Always-on-chip decode of one token at `kv` cached tokens, the new one included."""

    kv: int

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
            fused = _fused(self, node, 1, tile.rows, ready)
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

        share = _results(node, self.rows_of(node))
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
        """Score, softmax and context of every head of the core, head after head.

        Keys and values load once the new token's are in memory; `rotated` queries come from MISC.
        """
        heads = self.share(node.heads)
        past = self._past(heads * node.size) if self.arch.concatenates_kv else ()
        code: list[Instruction | Loop] = list(
            self._head(node, first=True, rotated=rotated, last=heads == 1)
        )
        if heads > 2:
            middle = self._head(node, first=False, rotated=False, last=False)
            code.append(Loop(axis=HEAD_AXIS, times=heads - 2, body=middle))
        if heads > 1:
            code += self._head(node, first=False, rotated=False, last=True)
        link = self.store(heads * node.size, waits=(MV,), releases=(MV,), link=True)
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
        )
        softmax = self.misc(MiscOp.SOFTMAX, 1, self.kv, waits=(MV,), releases=(MV,))
        context = self.product(
            unit,
            node.size,
            self.groups(self.kv),
            self._cached("v", first),
            module=MV,
            first=(MISC,),
            done_last=(ST,) if last else (),
        )
        return (*scores, softmax, *context)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffChip(_Emitter):
    """Decode of one token with operands from and results to memory, operator after operator.

    Vectors are shared by all cores, so they are read and written across channels. An operator
    starts when the one before has stored its results.
    """

    kv: int

    def embed(self, node: Embed) -> Code:
        """Fetch the token's row and store it as the layers' input."""
        return (
            self.load(Buffer.OUT, node.width, cross=True, releases=(ST,)),
            self.store(self.share(node.width), waits=(LD,), releases=(LD,), cross=True),
        )

    def _alone(self, op: MiscOp, elements: int, operands: int, count: int = 1) -> Code:
        """Return one operation on a vector between two trips to memory."""
        others = [self.load(Buffer.OUT, elements, cross=True) for _ in range(operands)]
        return (
            self.table(LINE_BYTES, (ST,)),
            *others,
            self.load(Buffer.OUT, elements, cross=True, releases=(MISC,)),
            self.misc(op, count, elements // count, waits=(LD,), releases=(ST,)),
            self.store(elements, waits=(MISC,), releases=(LD,), cross=True),
        )

    def norm(self, node: Norm, *, after_embed: bool = False) -> Code:
        """Normalise each core's share."""
        return self._alone(node.op, self.share(node.width), 0)

    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Multiply, store, and run every operation on the results by itself."""
        unit = Unit.of(self.arch, matrix=False)
        runs = tiles(unit, self.core_rows(node))

        def body(tile: Tile, line: int, first: bool, last: bool) -> Code:
            done: Waits = (ST,) if last else ()
            return self.steps(
                node,
                unit,
                tile,
                place + line,
                module=MV,
                channels=self.channels,
                first=(),
                last=(),
                done=done,
            )

        share = _results(node, self.rows_of(node))
        alone = [self._alone(op, share, int(op in (MiscOp.ADD, MiscOp.MUL))) for op in node.then]
        return (
            self.table(ROW_BYTES * self.rows_of(node), (ST,), self.table_place(node, place)),
            self.load(Buffer.ACT, node.k, cross=True),
            *unrolled(runs, body, self.tile_lines(node)),
            self.store(
                self.rows_of(node),
                waits=(MV,),
                releases=(SYS,) if logits else (LD,),
                cross=True,
            ),
            *(instruction for code in alone for instruction in code),
        )

    def attention(self, node: Attention, *, rotated: bool) -> Code:
        """Scores of all heads, their softmax, their contexts, each through memory."""
        heads = self.share(node.heads)
        unit = Unit.of(self.arch, matrix=False)

        def load(
            columns: int, groups: int, opening: bool, waits: Waits, releases: Waits
        ) -> Instruction:
            size = columns * groups * self.arch.group
            return self.load(Buffer.MATRIX, size, base=Base.KV, waits=waits, releases=releases)

        def phase(columns: int, reduction: int) -> Code:
            def head(done: Waits) -> Code:
                groups = self.groups(reduction)
                return self.product(
                    unit, columns, groups, load, module=MV, first=(), done_last=done
                )

            loop = (Loop(axis=HEAD_AXIS, times=heads - 1, body=head(())),) if heads > 1 else ()
            return (
                self.table(LINE_BYTES, (ST,)),
                self.load(Buffer.ACT, heads * reduction, cross=True),
                *loop,
                *head((ST,)),
                self.store(heads * columns, waits=(MV,), releases=(LD,), cross=True),
            )

        softmax = self._alone(MiscOp.SOFTMAX, heads * self.kv, 0, heads)
        return (*phase(self.kv, node.size), *softmax, *phase(node.size, self.kv))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill(_Emitter):
    """Prompt of `tokens`, a multiple of the bucket, tile of tokens by tile of tokens.

    `needed` are the columns that each of these scores: all, or the blocks its tile map keeps.
    """

    tokens: int
    needed: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Tokens of a tile."""
        return min(self.arch.mm_tokens, self.tokens)

    @property
    def tiles_of_tokens(self) -> int:
        """Tiles of tokens of the prompt."""
        return -(-self.tokens // self.rows)

    def embed(self, node: Embed) -> Code:
        """Fetch the tokens' rows and store them as the layers' input."""
        share = self.rows * self.share(node.width)

        def fetch(last: bool) -> Code:
            load = self.load(Buffer.OUT, share, cross=True, waits=(MISC,), releases=(MISC,))
            store = self.store(share, waits=(MISC,), releases=(MISC, LD) if last else (MISC,))
            copy = self.misc(
                MiscOp.ADD, self.rows, self.share(node.width), waits=(LD, ST), releases=(LD, ST)
            )
            return (load, copy, store)

        return self._token_tiles(fetch)

    def _token_tiles(self, body: Callable[[bool], Code], axis: int = 2) -> Code:
        """Return `body(last)` of every tile of tokens, all but the last in a loop."""
        times = self.tiles_of_tokens - 1
        loop = (Loop(axis=axis, times=times, body=body(False)),) if times else ()
        return (*loop, *body(True))

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

        times = self.tokens // rows - 1
        loop = (Loop(axis=2, times=times, body=some(False)),) if times else ()
        return (self.table(LINE_BYTES, (ST,)), *loop, *some(True))

    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Multiply tile of tokens by tile of columns; results leave tile by tile."""
        unit = Unit.of(self.arch, matrix=True)
        runs = tiles(unit, self.core_rows(node))

        def token_tile(last_tokens: bool) -> Code:
            def body(tile: Tile, line: int, first: bool, last: bool) -> Code:
                size = self.rows * _results(node, tile.rows)
                operands = [self.load(Buffer.OUT, size) for _ in range(node.operands)]
                end = last and last_tokens
                return (
                    *operands,
                    *self.steps(
                        node,
                        unit,
                        tile,
                        place + line,
                        module=MM,
                        channels=self.arch.weight_channels,
                        first=(),
                        last=(ST,),
                        done=(MISC,) if node.then else (ST,),
                        tokens=self.rows,
                    ),
                    *_fused(self, node, self.rows, tile.rows, (ST,)),
                    self.store(
                        size,
                        waits=(MISC,) if node.then else (MM,),
                        releases=(MM, LD) if end else (MM,),
                        link=node.role == "wide",
                        base=Base.KV if node.role in ("k", "v") else Base.ACTIVATIONS,
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
        heads = self.share(node.heads)

        def head(last_head: bool) -> Code:
            last = len(self.needed) - 1
            return tuple(
                item
                for index, columns in enumerate(self.needed)
                for item in self._token_tile(node, columns, last_head and index == last)
            )

        loop = (Loop(axis=HEAD_AXIS, times=heads - 1, body=head(False)),) if heads > 1 else ()
        return (self.table(self.tokens, (ST,)), *loop, *head(True))

    def _token_tile(self, node: Attention, columns: int, last: bool) -> Code:
        unit = Unit.of(self.arch, matrix=True)

        def load(
            width: int, groups: int, opening: bool, waits: Waits, releases: Waits
        ) -> Instruction:
            return self.load(
                Buffer.WEIGHT,
                width * groups * self.arch.group,
                base=Base.KV,
                channels=self.arch.weight_channels,
                waits=waits,
                releases=releases,
                strides={"address": (self.layout.kv_layer_lines, self.layout.kv_head_lines)},
            )

        def keep(is_last: bool) -> Code:
            releases = (MM, LD) if is_last and last else (MM,)
            size = self.rows * unit.tile_columns
            return (self.store(size, waits=(MM,), releases=releases, link=True),)

        scores = self.product(
            unit,
            columns,
            self.groups(node.size),
            load,
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
            load,
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
