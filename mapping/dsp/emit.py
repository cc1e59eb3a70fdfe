"""Instructions of one node of a decoder, for one core; every core runs the same.

Three programs exist. `prefill` takes tiles of tokens through MM, operator after operator, with
activations in memory. `onchip` decodes one token through MV: activations never leave the chip,
results go to the other cores over the link, and the next weights load while MISC works. `offchip`
decodes one token through MV with every operand from memory and every result to memory.

Tokens between modules mean, in program order: LD>MM and LD>MV a filled half buffer, MM>LD and
MV>LD a free one, ST>MM and ST>MISC a free slot for results, and the others that results
are ready. Channels of free slots start filled (`SLOTS`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from mapping.dsp.model import Attention, Embed, Linear, Norm
from mapping.dsp.tiles import (
    ROW_BYTES,
    At,
    Tile,
    Unit,
    core_rows,
    core_share,
    split_groups,
    tiles,
    unrolled,
)
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import (
    LINE_BYTES,
    TABLE_ROWS,
    Base,
    Buffer,
    Code,
    Instruction,
    Loop,
    MiscOp,
    Module,
)
from workloads.canonical import Spec

__all__ = ["HEAD_AXIS", "LINE_BYTES", "SLOTS", "TOKEN_AXIS", "Emitter", "Layout", "Waits", "lines"]

LD, ST, MM, MV, MISC, SYS = Module
HEAD_AXIS: Final = 1
TOKEN_AXIS: Final = 2

SLOTS: Final[Mapping[str, int]] = {
    "MM>LD": 2, "MV>LD": 2, "ST>MM": 2, "ST>MISC": 2, "MISC>LD": 2
}  # fmt: skip
"""Free slots before a program: two halves of each buffer (four quarters where LD, MISC and ST
share one: LD is two ahead of MISC, and MISC two ahead of ST)."""

Waits = tuple[Module, ...]
Fields = Mapping[str, int]
Strides = Mapping[str, tuple[int, ...]]
Placed = tuple[Fields, Strides]
"""Fields of an instruction that say where its operands lie, and how they grow in loops."""


def nowhere(at: At, query: int) -> Placed:
    """Return no places."""
    return {}, {}


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
class Emitter(ABC):
    """What the three programs share; `bits` is the weight width of layers from `layer` on."""

    arch: DspChain
    layout: Layout
    bits: int
    layer: int = 0

    @property
    @abstractmethod
    def products(self) -> Module:
        """The module that multiplies."""

    @abstractmethod
    def embed(self, node: Embed) -> Code:
        """Return the code that fetches tokens' rows."""

    @abstractmethod
    def norm(self, node: Norm, *, after_embed: bool = False) -> Code:
        """Return the code of a norm; the first one may wait for the embedding."""

    @abstractmethod
    def linear(self, node: Linear, place: int, *, fresh: bool, logits: bool = False) -> Code:
        """Return the code of a projection whose weights start at line `place`.

        A `fresh` input was made by the node before; `logits` leave the machine.
        """

    @abstractmethod
    def attention(self, node: Attention, *, rotated: bool) -> Code:
        """Return the code of attention; `rotated` queries come from MISC."""

    def results_of(self, node: Linear, columns: int) -> int:
        """Return the results that `columns` of a projection leave."""
        return -(-columns // 2) if node.gated else columns

    def fused(self, node: Linear, rows: int, columns: int, releases: Waits) -> Code:
        """Return the operations on a tile of results; the first waits for the product's token."""
        last = len(node.then) - 1
        return tuple(
            self.misc(
                op,
                1,
                rows * self.results_of(node, columns),
                waits=(self.products,) if index == 0 else (),
                releases=releases if index == last else (),
            )
            for index, op in enumerate(node.then)
        )

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
        strides: Strides | None = None,
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
        strides: Strides | None = None,
        **fields: int,
    ) -> Instruction:
        """Return an ST of `size` bytes of results to memory, or over the link to every core."""
        width = 1 if cross else self.channels
        values = {"buffer": Buffer.OUT, "base": base, "bytes": size, "channels": width}
        return Instruction(
            module=ST,
            waits=waits,
            releases=releases,
            fields={**values, "cross": int(cross), "link": int(link), **fields},
            strides=strides or {},
        )

    def kv_place(self, role: str) -> int:
        """Return where the core's keys ("k") or values ("v") of a layer start."""
        first = self.layer * self.layout.kv_layer_lines
        return first + (self.layout.kv_layer_lines // 2 if role == "v" else 0)

    def misc(
        self,
        op: MiscOp,
        rows: int,
        elements: int,
        *,
        waits: Waits = (),
        releases: Waits = (),
        strides: Strides | None = None,
        **places: int,
    ) -> Instruction:
        """Return a MISC over rows of `elements`."""
        return Instruction(
            module=MISC,
            waits=waits,
            releases=releases,
            fields={"op": op, "rows": rows, "groups": self.groups(elements), **places},
            strides=strides or {},
        )

    def chain(
        self,
        module: Module,
        groups: int,
        passes: int,
        *,
        waits: Waits,
        releases: Waits,
        tokens: int = 0,
        placed: Placed = ({}, {}),
        **flags: int,
    ) -> Instruction:
        """Return an MM or MV over `groups` groups of candidates."""
        fields = {"groups": groups, "passes": passes, **flags, **placed[0]}
        fields |= {"tokens": tokens} if module is MM else {}
        return Instruction(
            module=module, waits=waits, releases=releases, fields=fields, strides=placed[1]
        )

    def table(self, size: int, waits: Waits, address: int = 0, bank: int = 0) -> Instruction:
        """Return the LD of what a node needs beside its operands: scales, bias, tile map."""
        strides = {"address": (self.layout.layer_lines,)} if address else {}
        return self.load(
            Buffer.TABLE,
            size,
            base=Base.WEIGHTS,
            waits=waits,
            address=address,
            bank=bank,
            strides=strides,
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
        table: int = 0,
        placed: Placed = ({}, {}),
        stride: int | None = None,
        table_stride: int | None = None,
    ) -> Code:
        """Return LD and product of every part of a tile's reduction.

        The first product also waits for `first`, the emitting one for `last`, and gives tokens
        to `done`. `table` is the tile's line of the row table, `placed` where a product's operands
        lie. In a loop the next tile is `stride` lines of memory and `table_stride` of the table
        on: if not told, the tile that follows this one.
        """
        parts = split_groups(unit, self.groups(node.k), tile.passes)
        starts = [0, *accumulate(parts)]
        stride = self.tile_lines(node)(tile) if stride is None else stride
        if table_stride is None:
            table_stride = unit.tile_columns // TABLE_ROWS
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
                    strides={
                        "address": (self.layout.layer_lines, 0, 0, stride),
                        "table": (0, 0, 0, table_stride),
                    },
                    rows=tile.rows,
                    rows_8=tile.rows_8,
                    rows_4=tile.rows_4,
                    rows_2=tile.rows_2,
                    groups=part,
                    bits=self.bits,
                    metadata=indices,
                    table=table,
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
                    placed=placed,
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
        make_load: Callable[[int, int, At, Waits, Waits], Instruction],
        *,
        module: Module,
        first: Waits,
        done_each: Waits = (),
        done_last: Waits = (),
        wait_each: Waits = (),
        after: Callable[[At], Code] = lambda at: (),
        tokens: int = 0,
        queries: int = 1,
        placed: Callable[[At, int], Placed] = nowhere,
    ) -> Code:
        """Return a dense product of activations: a loop over tiles of columns.

        `make_load(columns, groups, at, waits, releases)` loads the streamed operand of a tile.
        `queries` use a tile while it is loaded; one whose reduction does not fit half the buffer
        loads for every query again. `placed(at, query)` says where the operands of one lie.
        """
        runs = tiles(unit, {unit.group: columns})

        def body(tile: Tile, at: At) -> Code:
            parts = split_groups(unit, groups, tile.passes)
            rounds, uses = (1, queries) if len(parts) == 1 else (queries, 1)
            code: list[Instruction | Loop] = []
            for turn, (index, part) in enumerate(list(enumerate(parts)) * rounds):
                final = index == len(parts) - 1
                opening = at.first and turn == 0
                closing = at.last and turn == len(parts) * rounds - 1
                here = at._replace(first=opening)
                code.append(make_load(tile.rows, part, here, (module,), (module,)))
                waits = (LD, *(first if opening else ()), *(wait_each if final else ()))
                done = (*(done_each if final else ()), *(done_last if closing else ()))
                code += (
                    self.chain(
                        module,
                        part,
                        tile.passes,
                        waits=waits if use == 0 else (),
                        releases=(LD, *done) if use == uses - 1 else (),
                        tokens=tokens,
                        placed=placed(at, use if uses > 1 else turn // len(parts)),
                        emit=int(final),
                        accumulate=int(index > 0),
                    )
                    for use in range(uses)
                )
            return (*code, *after(at))

        return unrolled(runs, body)

    def kv_heads(self, node: Attention) -> int:
        """Return one core's heads of keys and values; their queries are on the same core."""
        return self.share(node.kv_heads)

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
