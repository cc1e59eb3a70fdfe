"""Where vectors and row tables lie on the chip: one place for each, for all layers the same.

Lines of the out buffer hold LINE_ELEMENTS int16, lines of the row table the entries of as many
output rows. Nothing is placed twice in a layer: a unit that runs ahead never meets data in use.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from mapping.dsp.model import Attention, Decoder, Embed, Linear, Node, Norm
from mapping.dsp.tiles import Unit, core_share
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import LINE_ELEMENTS, TABLE_ROWS, MiscOp
from workloads.canonical import Spec

__all__ = [
    "ROTARY",
    "Area",
    "Spot",
    "place_nodes",
    "prompt_areas",
    "rotary_size",
    "score_lines",
    "vector_lines",
]

ROTARY: Final = (MiscOp.MUL, MiscOp.MUL, MiscOp.ADD)
"""A rotary embedding: times cosine, the turned head times sine, and their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot(Spec):
    """Lines of one node in the out buffer, and of its rows in the row table.

    `source` is its input, `results` what its products leave, `work` what lies between, `final`
    what they are after the node's other operations, `sent` where the link puts all cores' parts;
    `stream` is the residual, or cosines and sines for a rotary embedding.
    """

    source: int = 0
    results: int = 0
    work: int = 0
    final: int = 0
    sent: int = 0
    stream: int = 0
    table: int = 0


def vector_lines(elements: int) -> int:
    """Return the lines of the out buffer that `elements` take."""
    return -(-elements // LINE_ELEMENTS)


def rotary_size(decoder: Decoder) -> int:
    """Return the size of a head that a rotary embedding turns, 0 if there is none."""
    turns = any(node.then == ROTARY for _, node in decoder.linears)
    return decoder.attention.size if turns else 0


def score_lines(arch: DspChain) -> tuple[int, int]:
    """Return the lines of a query's scores, whole tiles, and of its shares."""
    held, tile = arch.kv_capacity_tokens, arch.mv_tile_columns
    return vector_lines(-(-held // tile) * tile), vector_lines(held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Area(Spec):
    """Lines of memory, from those of activations on, where a node of a prompt has its tokens.

    `source` is its input and `results` what it leaves, keys and values apart; `stream` the
    residual, or attention's shares of a tile of tokens.
    """

    source: int = 0
    results: int = 0
    stream: int = 0


def prompt_areas(arch: DspChain, decoder: Decoder) -> tuple[dict[str, Area], int]:
    """Return the areas of every node by its name, and the line behind all.

    They follow the token and the logits of a decode step; all layers share them. An area holds as
    many tokens as the cache, that of shares a tile of tokens.
    """
    nodes = [node for layer in decoder.layers for node in layer]
    head = next(node for node in decoder.after if isinstance(node, Linear))
    linears = [node for node in nodes if isinstance(node, Linear)]
    sizes = {
        "logits": head.results,
        "shares": arch.mm_tokens * arch.kv_capacity_tokens,
        "stream": head.k * arch.kv_capacity_tokens,
        "normed": head.k * arch.kv_capacity_tokens,
        "context": decoder.attention.heads * decoder.attention.size * arch.kv_capacity_tokens,
    }
    for role in ("q", "wide"):
        widest = max((node.results for node in linears if node.role == role), default=0)
        sizes[role] = widest * arch.kv_capacity_tokens
    *places, end = _starts(head.k, sizes.values())
    starts = dict(zip(sizes, places, strict=True))
    found = {node.name: Area(results=starts["stream"]) for node in decoder.before}
    for layer in decoder.layers:
        vector = starts["normed"]
        for node in layer:
            found[node.name] = _area(node, vector, starts)
            if not isinstance(node, Linear) or node.role == "wide":
                vector = found[node.name].results
    return found, end


def _starts(elements: int, sizes: Iterable[int]) -> list[int]:
    """Return the lines where vectors of `sizes` start behind another, and the line behind all."""
    return list(accumulate(map(vector_lines, sizes), initial=vector_lines(elements)))


def _area(node: Node, vector: int, starts: Mapping[str, int]) -> Area:
    """Return the area of a node of a layer that follows `vector`."""
    match node:
        case Attention():
            return Area(source=starts["q"], results=starts["context"], stream=starts["shares"])
        case Linear():
            added = node.then == (MiscOp.ADD,)
            results = starts["stream"] if added else starts.get(node.role, 0)
            return Area(source=vector, results=results, stream=starts["stream"])
        case _:
            return Area(source=starts["stream"], results=starts["normed"])


class _Placer:
    """Hands out lines while it follows a vector through the nodes."""

    def __init__(self, arch: DspChain, decoder: Decoder) -> None:
        self.arch, self.rotary = arch, rotary_size(decoder)
        self.next, self.rows = 0, 0
        self.positions = self.lines(2 * self.rotary)
        self.stream = self.vector = self.query = self.results = 0

    def lines(self, elements: int) -> int:
        """Return a new place of `elements`."""
        at = self.next
        self.next += vector_lines(elements)
        return at

    def spot(self, node: Node) -> Spot:
        """Return a node's places and move on behind it."""
        match node:
            case Embed():
                self.stream = self.lines(self._share(node.width))
                return Spot(final=self.stream)
            case Norm():
                own = self.lines(self._share(node.width))
                self.vector, source = self.lines(node.width), self.stream
                return Spot(source=source, final=own, sent=self.vector)
            case Attention():
                return self._attention(node)
            case Linear():
                return self._linear(node)

    def _share(self, elements: int) -> int:
        return -(-elements // self.arch.cores)

    def _attention(self, node: Attention) -> Spot:
        size = self._share(node.kv_heads) * node.queries * node.size
        scored, shared = (node.queries * LINE_ELEMENTS * each for each in score_lines(self.arch))
        spot = Spot(
            source=self.query,
            results=self.lines(scored),
            work=self.lines(shared),
            final=self.lines(size),
            sent=self.lines(node.heads * node.size),
        )
        self.vector = spot.sent
        return spot

    def _linear(self, node: Linear) -> Spot:
        unit = Unit.of(self.arch, matrix=False)
        rows = core_share(node.n, self.arch.cores, node.granule)
        whole = -(-rows // unit.tile_columns) * unit.tile_columns
        spot = Spot(source=self.vector, results=self.lines(whole), table=self.rows)
        spot = replace(spot, final=spot.results, stream=self.stream)
        self.rows += -(-whole // TABLE_ROWS)
        if node.then == ROTARY:
            spot = replace(spot, work=self.lines(2 * rows), stream=self.positions)
        elif node.then == (MiscOp.ADD,):
            spot = replace(spot, final=self.stream)
        elif node.gated:
            spot = replace(spot, final=self.lines(whole // 2))
        if node.role == "wide":
            self.vector = self.lines(node.results)
            spot = replace(spot, sent=self.vector)
        if node.role == "q":
            self.query = spot.final
        return spot


def place_nodes(arch: DspChain, decoder: Decoder) -> dict[str, Spot]:
    """Return the places of every node by its name; equal nodes of different layers share them."""
    placer = _Placer(arch, decoder)
    found = {node.name: placer.spot(node) for node in decoder.before}
    ends = [(placer.next, placer.rows)]
    for layer in decoder.layers:
        placer.next, placer.rows = ends[0]
        found |= {node.name: placer.spot(node) for node in layer}
        ends.append((placer.next, placer.rows))
    placer.next, placer.rows = (max(each) for each in zip(*ends, strict=True))
    return found | {node.name: placer.spot(node) for node in decoder.after}
