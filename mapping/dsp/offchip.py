"""Decode of one token with every operand from memory and every result to memory."""

from dataclasses import dataclass

from mapping.dsp.emit import HEAD_AXIS, LINE_BYTES, Emitter, Waits
from mapping.dsp.model import Attention, Embed, Linear, Norm
from mapping.dsp.tiles import ROW_BYTES, At, Tile, Unit, tiles, unrolled
from simulator.dsp_isa import Base, Buffer, Code, Instruction, Loop, MiscOp, Module

__all__ = ["OffChip"]

LD, ST, MM, MV, MISC, SYS = Module


@dataclass(frozen=True, slots=True, kw_only=True)
class OffChip(Emitter):
    """Decode of one token with operands from and results to memory, operator after operator.

    Vectors are shared by all cores, so they are read and written across channels. An operator
    starts when the one before has stored its results.
    """

    kv: int

    @property
    def products(self) -> Module:
        """The module that multiplies."""
        return MV

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

        def body(tile: Tile, at: At) -> Code:
            done: Waits = (ST,) if at.last else ()
            return self.steps(
                node,
                unit,
                tile,
                place + at.line,
                module=MV,
                channels=self.channels,
                first=(),
                last=(),
                done=done,
            )

        share = self.results_of(node, self.rows_of(node))
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
        shared = self.kv_heads(node)
        heads = shared * node.queries
        unit = Unit.of(self.arch, matrix=False)

        def load(columns: int, groups: int, at: At, waits: Waits, releases: Waits) -> Instruction:
            size = columns * groups * self.arch.group
            return self.load(Buffer.MATRIX, size, base=Base.KV, waits=waits, releases=releases)

        def phase(columns: int, reduction: int) -> Code:
            def head(done: Waits) -> Code:
                groups = self.groups(reduction)
                return self.product(
                    unit,
                    columns,
                    groups,
                    load,
                    module=MV,
                    first=(),
                    done_last=done,
                    queries=node.queries,
                )

            loop = (Loop(axis=HEAD_AXIS, times=shared - 1, body=head(())),) if shared > 1 else ()
            return (
                self.table(LINE_BYTES, (ST,)),
                self.load(Buffer.ACT, heads * reduction, cross=True),
                *loop,
                *head((ST,)),
                self.store(heads * columns, waits=(MV,), releases=(LD,), cross=True),
            )

        softmax = self._alone(MiscOp.SOFTMAX, heads * self.kv, 0, heads)
        return (*phase(self.kv, node.size), *softmax, *phase(node.size, self.kv))
