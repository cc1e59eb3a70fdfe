"""What a DspChain needs to know of a decoder LLM, read from its workload graph.

A graph names its phases (`prefill.`, `decode.`) and layers (`.layers.0.`); which projection feeds
keys, values or another projection follows from its tensors. Element-wise operators join the
projection whose results they change last.
"""

import collections.abc as abc
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dsp_cells import KEPT
from simulator.arch.dsp_chain import Compression, DspChain
from simulator.arch.load import PRESETS, load_arch, read_arch_file
from simulator.dsp_isa.layout import MiscOp
from workloads.canonical import Spec
from workloads.graph import Gemm, Op, OpKind, TensorSpec, WorkloadGraph
from workloads.sparsity import Dense, Explicit, NofM, Sparsity

__all__ = [
    "Attention",
    "Decoder",
    "Embed",
    "Linear",
    "Node",
    "Norm",
    "compression_name",
    "decoder_of",
    "kept_rows",
    "masked_rows",
    "published",
    "skippable",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed(Spec):
    """Fetch the rows of tokens."""

    name: str
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(Spec):
    """Normalise rows of `width`."""

    name: str
    op: MiscOp
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Spec):
    """(tokens, k) times a weight of n rows, `kept_rows` of them by their N of 16.

    `then` are operations on the results, `operands` how many of them read a second tensor.
    `role` says where results go: "q", "k" or "v" of attention, "wide" to every core for the next
    projection, "" to the core's own norm. A `gated` weight holds two projections of one input in
    turn, column beside column; the first half of results, after `then`, scales the second. Cores
    divide n in portions of `granule` rows: for attention whole heads, those that share keys
    together.
    """

    name: str
    k: int
    n: int
    kept_rows: abc.Mapping[int, int] = field(hash=False)
    nonzeros: int
    relu: bool = False
    then: tuple[MiscOp, ...] = ()
    operands: int = 0
    role: str = ""
    gated: bool = False
    granule: int = 1

    @property
    def results(self) -> int:
        """Output features after gating."""
        return self.n // 2 if self.gated else self.n

    @property
    def places(self) -> int:
        """Weights that the chains hold: the zeros among them save no time."""
        groups, rest = divmod(self.k, 16)
        return sum(
            rows * (groups * kept + min(kept, rest)) for kept, rows in self.kept_rows.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Spec):
    """Scores, softmax and context of `heads` queries of `size` over `kv_heads` keys and values."""

    name: str
    heads: int
    kv_heads: int
    size: int

    @property
    def queries(self) -> int:
        """Queries that read the same keys and values."""
        return self.heads // self.kv_heads


Node = Embed | Norm | Linear | Attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder(Spec):
    """A decoder: nodes before the layers, of every layer, and after them, names without phase.

    prefill and decode are the tokens of a run. attention_percent is the share of causal blocks
    that prefill attention keeps, 100 for all scores.
    """

    name: str
    before: tuple[Node, ...]
    layers: tuple[tuple[Node, ...], ...]
    after: tuple[Node, ...]
    prefill: int
    decode: int
    attention_percent: int = 100
    notes: tuple[str, ...] = ()

    @property
    def linears(self) -> abc.Iterator[tuple[int | None, Linear]]:
        """Yield every projection with the number of its layer, None for the head."""
        for index, layer in enumerate(self.layers):
            yield from ((index, node) for node in layer if isinstance(node, Linear))
        yield from ((None, node) for node in self.after if isinstance(node, Linear))

    @property
    def attention(self) -> Attention:
        """The attention of the first layer."""
        return next(node for node in self.layers[0] if isinstance(node, Attention))


_MISC: Final[abc.Mapping[str, tuple[MiscOp, ...]]] = {
    "Add": (MiscOp.ADD,),
    "Mul": (MiscOp.MUL,),
    "RotaryEmbedding": (MiscOp.MUL, MiscOp.MUL, MiscOp.ADD),  # by cosine, by sine, and their sum
    "LayerNorm": (MiscOp.LAYERNORM,),
    "RMSNorm": (MiscOp.RMSNORM,),
    "Silu": (MiscOp.SILU,),
}
_TABLED: Final = ("RotaryEmbedding",)
"""Operators whose second operand is a table on the chip."""

_LAYER = re.compile(r"\.layers\.(\d+)\.")
PHASES: Final = ("prefill", "decode")


def skippable(sparsity: Sparsity) -> bool:
    """Whether the chains skip the zeros of a structure: N:M along the reduction, M dividing 16."""
    return isinstance(sparsity, NofM) and sparsity.axis is None and 16 % sparsity.m == 0


def kept_rows(sparsity: Sparsity, name: str, n: int) -> dict[int, int]:
    """Return output rows by their N of 16.

    N:M with M dividing 16 keeps N * 16 / M of 16; other structures keep their zeros' place and
    run dense. Raises ValueError naming weight and N if the chains cannot hold such a row.
    """
    if not isinstance(sparsity, NofM) or not skippable(sparsity):
        return {16: n}
    times = {sparsity.n: n} if isinstance(sparsity.n, int) else Counter(sparsity.n)
    rows = {kept * 16 // sparsity.m: count for kept, count in times.items()}
    for kept in rows:
        if kept not in KEPT:
            raise ValueError(
                f"Weight {name!r} keeps {kept} of 16; a chain holds rows of "
                f"{', '.join(map(str, KEPT))} of 16"
            )
    return dict(sorted(rows.items(), reverse=True))


def masked_rows(mask: NDArray[np.bool_]) -> dict[int, int]:
    """Return output rows of bool[k, n] by the N of 16 that holds the fullest group of each."""
    groups = -(-len(mask) // 16)
    padded = np.pad(mask, ((0, 16 * groups - len(mask)), (0, 0)))
    fullest = padded.reshape(groups, 16, -1).sum(axis=1).max(axis=0)
    kept, rows = np.unique(np.searchsorted(KEPT, fullest), return_counts=True)
    return {KEPT[i]: int(n) for i, n in zip(kept[::-1], rows[::-1], strict=True)}


@lru_cache
def compression_name(compression: Compression) -> str:
    """Return what to call a compression: published is what a preset, all with sources, has."""
    chains = (load_arch(n) for n in PRESETS if read_arch_file(n).machine == "dsp_chain")
    known = any(isinstance(c, DspChain) and c.compression == compression for c in chains)
    return "published compression" if known else "machine's own compression"


def published(arch: DspChain, graph: WorkloadGraph) -> tuple[WorkloadGraph, int, tuple[str, ...]]:
    """Return `graph` compressed as the machine has it, its attention share and a note.

    Graphs of another model and graphs with a sparsity of their own stay as they are, at 100 %.
    Weights that are known stay as they are too; attention is then the machine's.
    """
    chosen = arch.compression
    weights = {op.inputs[1] for op in graph.gemm_ops if graph.tensors[op.inputs[1]].parameter}
    own = any(not isinstance(graph.tensors[name].sparsity, Dense) for name in weights)
    if chosen is None or graph.name != chosen.model or own:
        return graph, 100, ()
    tensors = dict(graph.tensors)
    known: dict[int, NofM] = {}
    for name in sorted(weights - graph.values.keys()):
        if any(part in chosen.projections for part in name.split(".")):
            n = tensors[name].shape[-1]
            known[n] = known.get(n) or NofM(chosen.kept_rows(n), 16)
            tensors[name] = replace(tensors[name], sparsity=known[n])
    sparse = (
        f"{' and '.join(chosen.projections)} keep {chosen.kept_percent} % of their weights "
        "(16:16 and 8:16 rows), "
    )
    note = (
        f"{compression_name(chosen).capitalize()} of {chosen.model}: "
        f"{sparse if known else ''}prefill attention "
        f"{chosen.attention_percent} % of its causal blocks of {chosen.attention_block} tokens"
    )
    return replace(graph, tensors=tensors), chosen.attention_percent, (note,)


def decoder_of(graph: WorkloadGraph, *, attention_percent: int = 100) -> Decoder:
    """Return the decoder in `graph`.

    Raises ValueError naming the operator that is no part of a decoder LLM with one sequence.
    """
    phase = next((p for p in PHASES if any(op.name.startswith(f"{p}.") for op in graph.ops)), None)
    if phase is None:
        raise ValueError(
            f"Workload {graph.name!r}: a DspChain runs decoder LLMs with phases "
            f"{' and '.join(PHASES)}; it has none (say how many tokens of each, for a model that "
            "is one)"
        )
    before, layers, after = _Reader(graph, phase).read()
    return Decoder(
        name=graph.name,
        before=before,
        layers=layers,
        after=after,
        prefill=_tokens(graph, "prefill"),
        decode=_decoded(graph),
        attention_percent=attention_percent,
        notes=tuple(note for note in graph.notes if "masked" not in note and "KV" not in note),
    )


def _tokens(graph: WorkloadGraph, phase: str) -> int:
    spec = graph.tensors.get(f"{phase}.tokens")
    if spec is None:
        return 0
    if spec.shape[0] != 1:
        raise ValueError(
            f"A DspChain runs one sequence at a time: batch must be 1, not {spec.shape[0]}"
        )
    return spec.shape[1]


def _decoded(graph: WorkloadGraph) -> int:
    _tokens(graph, "decode")
    return next((op.repeat for op in graph.ops if op.name == "decode.lm_head"), 0)


class _Reader:
    """Reads the operators of one phase in order and gathers nodes."""

    def __init__(self, graph: WorkloadGraph, phase: str) -> None:
        self.graph, self.phase = graph, phase
        self.ops = [op for op in graph.ops if op.name.startswith(f"{phase}.")]
        self.producer = {op.output: op for op in graph.ops}
        self.order = {op.name: index for index, op in enumerate(graph.ops)}
        self._sources: dict[str, Op | None] = {}
        self.nodes: dict[str, Node] = {}  # by the operator that made them, in order
        self.roles = self._roles()

    def read(self) -> tuple[tuple[Node, ...], tuple[tuple[Node, ...], ...], tuple[Node, ...]]:
        """Return nodes before, of and after the layers."""
        for op in self.ops:
            self._read(op)
        self._keep_heads_whole()
        layers: dict[int, list[Node]] = {}
        outside: tuple[list[Node], list[Node]] = ([], [])
        for node in self.nodes.values():
            found = _LAYER.search(node.name)
            (layers.setdefault(int(found[1]), []) if found else outside[bool(layers)]).append(node)
        return tuple(outside[0]), tuple(map(tuple, layers.values())), tuple(outside[1])

    def _source(self, tensor: str) -> Op | None:
        """Return the last projection in `tensor`, seen through views and element-wise work."""
        if tensor not in self._sources:
            self._sources[tensor] = self._find(self.producer.get(tensor))
        return self._sources[tensor]

    def _find(self, op: Op | None) -> Op | None:
        if op is None or op.kind is OpKind.GEMM:
            return op
        if op.kind not in (OpKind.RESHAPE, OpKind.ELEMENTWISE):
            return None
        found = [source for source in map(self._source, op.inputs) if source is not None]
        return max(found, key=lambda source: self.order[source.name], default=None)

    def _roles(self) -> dict[str, str]:
        """Return q, k, v and wide by the name of the projection that plays the role."""
        roles: dict[str, str] = {}
        for op in self.ops:
            sides: abc.Iterable[tuple[str, str]] = ()
            if op.kind is OpKind.RESHAPE and op.source == "Attention":
                sides = zip("vqk", op.inputs, strict=True)
            elif op.kind is OpKind.MATMUL and op.name.endswith(".scores"):
                sides = zip("qk", op.inputs, strict=True)
            elif op.kind is OpKind.MATMUL:
                sides = (("v", op.inputs[1]),)
            elif op.kind is OpKind.GEMM:
                sides = (("wide", op.inputs[0]),)
            for role, tensor in sides:
                source = self._source(tensor)
                if source is not None:
                    roles.setdefault(source.name, role)
        return roles

    def _read(self, op: Op) -> None:
        name = op.name.removeprefix(f"{self.phase}.")
        match op.kind:
            case OpKind.MOVE if not self.nodes:
                self.nodes[op.name] = Embed(
                    name=name, width=self.graph.tensors[op.output].shape[-1]
                )
            case OpKind.MOVE | OpKind.SOFTMAX:
                pass
            case OpKind.NORM:
                width = self.graph.tensors[op.output].shape[-1]
                self.nodes[op.name] = Norm(name=name, op=_MISC[op.source][0], width=width)
            case OpKind.GEMM:
                self.nodes[op.name] = self._linear(op, name)
            case OpKind.ELEMENTWISE if op.source in _MISC:
                self._join(op)
            case OpKind.MATMUL if op.gemm is not None and name.endswith(".scores"):
                self._attention(op, name.removesuffix(".scores"), op.gemm)
            case OpKind.MATMUL:
                pass
            case OpKind.RESHAPE:
                if op.source == "Attention":
                    gemm = next(o.gemm for o in self.ops if o.kind is OpKind.MATMUL)
                    assert gemm is not None
                    self._attention(op, name.removesuffix(".context"), gemm)
            case _:
                raise ValueError(
                    f"Op {op.name!r}: a DspChain runs decoder LLMs, and {op.source or op.kind} is "
                    "none of their operators"
                )

    def _keep_heads_whole(self) -> None:
        """Let cores divide keys and values by whole heads, and queries with what they read."""
        found = next((n for n in self.nodes.values() if isinstance(n, Attention)), None)
        for name, node in self.nodes.items():
            if found and isinstance(node, Linear) and node.role in ("q", "k", "v"):
                rows = found.size * (found.queries if node.role == "q" else 1)
                self.nodes[name] = replace(node, granule=rows)

    def _attention(self, op: Op, name: str, scores: Gemm) -> None:
        tokens = self.graph.tensors[f"{self.phase}.tokens"].shape[1]
        if _LAYER.search(name):
            self.nodes[op.name] = Attention(
                name=name,
                heads=scores.groups * scores.m // tokens,
                kv_heads=scores.groups,
                size=scores.k,
            )

    def _linear(self, op: Op, name: str) -> Linear:
        assert op.gemm is not None
        weight = self.graph.tensors[op.inputs[1]]
        rows, nonzeros = self._weight(weight)
        for step in op.post:
            if step not in ("Relu", "Silu"):
                raise ValueError(
                    f"Op {op.name!r}: a DspChain has Relu and Silu as activations, not {step}"
                )
        return Linear(
            name=name,
            k=op.gemm.k,
            n=op.gemm.n,
            kept_rows=rows,
            nonzeros=nonzeros,
            relu="Relu" in op.post,
            then=_MISC["Silu"] if "Silu" in op.post else (),
            role=self.roles.get(op.name, ""),
        )

    def _weight(self, weight: TensorSpec) -> tuple[dict[int, int], int]:
        """Return output rows by their N of 16, and the non-zeros; known weights say both."""
        structure, mask = weight.sparsity, None
        if weight.name in self.graph.values:
            mask = self.graph.values[weight.name] != 0
        elif isinstance(structure, Explicit):
            mask = structure.mask
        if mask is None or skippable(structure):
            rows = kept_rows(structure, weight.name, weight.shape[-1])
        else:
            rows = masked_rows(mask)
        held = structure.nnz(weight.shape) if mask is None else int(np.count_nonzero(mask))
        return rows, held

    def _join(self, op: Op) -> None:
        source = self._source(op.output)
        if source is None:
            raise ValueError(f"Op {op.name!r} changes no projection's results")
        node = self.nodes[source.name]
        assert isinstance(node, Linear)
        gate = self._gate(op, source)
        if gate is not None:
            self.nodes[source.name] = self._merged(gate, node, op)
            return
        self.nodes[source.name] = replace(
            node,
            then=(*node.then, *_MISC[op.source]),
            operands=node.operands + (op.source not in _TABLED),
        )

    def _gate(self, op: Op, source: Op) -> Op | None:
        """Return the other projection of the same input that `op` multiplies `source` by."""
        others = [self._source(tensor) for tensor in op.inputs]
        for other in others:
            if other is None or other is source or op.source != "Mul":
                continue
            if other.inputs[0] == source.inputs[0] and other.gemm == source.gemm:
                return other
        return None

    def _merged(self, gate: Op, up: Linear, op: Op) -> Linear:
        node = self.nodes.pop(gate.name)
        assert isinstance(node, Linear)
        rows = Counter(node.kept_rows) + Counter(up.kept_rows)
        return replace(
            up,
            name=f"{node.name}+{up.name.rpartition('.')[2]}",
            n=2 * up.n,
            kept_rows=dict(sorted(rows.items(), reverse=True)),
            nonzeros=node.nonzeros + up.nonzeros,
            then=(*node.then, *_MISC[op.source]),
            gated=True,
        )
