"""Recognising a decoder LLM among the operators of a static ONNX graph.

Every tensor that depends on the tokens gets a term that says what it is: the residual stream, its
norm, a projection of that, scores, context, and so on, also half-finished ones such as the mean
square of a norm. A rule for each operator makes the term of its result from those of its inputs;
tensors without a term (positions, masks, constants) are settings. Exporters spell the same layer
in many ways: rules for small operators cover them all, and an operator without a rule for its
inputs is named.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

from workloads.frontends.onnx_nodes import Node, Shape
from workloads.zoo.decoder import ACTIVATIONS

__all__ = ["MALFORMED", "Context", "Layer", "Projection", "Recognised", "Unrecognised", "recognise"]


class Unrecognised(Exception):
    """An operator, or what the operators amount to, is no decoder that is known here."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """The residual stream: `step` 2i enters layer i, 2i + 1 its feed-forward part."""

    step: int

    def __str__(self) -> str:
        return "the residual stream"


@dataclass(frozen=True, slots=True)
class Partial:
    """Part of a norm: of the stream, or of the stream less its mean if `centred`."""

    of: Hidden
    centred: bool
    stage: str  # average, value, square, mean, root, inverse

    def __str__(self) -> str:
        return f"a norm's {self.stage}"


@dataclass(frozen=True, slots=True)
class Normed:
    """The stream after a norm."""

    of: Hidden
    kind: str

    def __str__(self) -> str:
        return f"the stream's {self.kind}"


@dataclass(frozen=True, slots=True)
class Projection:
    """Columns `start` to `stop` of a constant matrix of k rows, stored as (n, k) if `turned`."""

    node: str
    source: "Term"
    weight: str
    k: int
    start: int
    stop: int
    turned: bool

    @property
    def n(self) -> int:
        """Output features."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"the projection {self.node!r}"


@dataclass(frozen=True, slots=True)
class Turned:
    """Elements of queries or keys recombined; `tabled` once multiplied by a table."""

    of: Projection
    tabled: bool

    def __str__(self) -> str:
        return f"{self.of} in rotary form"


@dataclass(frozen=True, slots=True)
class Curve:
    """An element-wise function of a projection, as the operators that make it."""

    of: Projection
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' and '.join(self.steps)} of {self.of}"


@dataclass(frozen=True, slots=True)
class Scores:
    """Queries by keys, `weights` once the softmax is done."""

    q: "Term"
    k: "Term"
    heads: int
    size: int
    weights: bool = False

    def __str__(self) -> str:
        return "attention weights" if self.weights else "attention scores"


@dataclass(frozen=True, slots=True)
class Context:
    """What attention reads of the values."""

    q: Projection
    k: Projection
    v: Projection
    heads: int
    kv_heads: int
    rotary: bool

    @property
    def size(self) -> int:
        """Width of a head."""
        return self.q.n // self.heads

    def __str__(self) -> str:
        return "an attention context"


@dataclass(frozen=True, slots=True)
class Gated:
    """An activated projection times another one."""

    gate: Curve
    up: Projection

    def __str__(self) -> str:
        return "gated activations"


Term: TypeAlias = Hidden | Partial | Normed | Projection | Turned | Curve | Scores | Context | Gated


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: its norms, attention and projections; `gate` is None without one."""

    norms: tuple[str, str]
    context: Context
    output: Projection
    gate: Projection | None
    up: Projection
    activation: str
    down: Projection


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A decoder as found: layers, final norm and head; what the graph itself multiplies.

    `cached` keys and values precede those of the `tokens` of each of `batch` sequences. `macs`
    counts the graph's products and `weights` its constant matrices by name, in elements.
    """

    layers: tuple[Layer, ...]
    head: Projection
    head_rows: int
    batch: int
    tokens: int
    cached: int
    macs: int
    weights: Mapping[str, int]


MALFORMED: Final = (ArithmeticError, LookupError, TypeError, ValueError)
"""What sizes that are unknown or contradict each other end in."""

_PASSED: Final = "Cast CastLike Dropout Expand Flatten Identity Reshape Squeeze Transpose Unsqueeze"
_CURVES: Final = "Erf FastGelu Gelu QuickGelu Relu Sigmoid Softplus Swish Tanh"
_NORMS: Final[Mapping[str, str]] = {
    "LayerNormalization": "LayerNorm",
    "RMSNormalization": "RMSNorm",
    "SimplifiedLayerNormalization": "RMSNorm",
    "SkipLayerNormalization": "LayerNorm",
    "SkipSimplifiedLayerNormalization": "RMSNorm",
}
COSINES: Final = 7
"""The input of GroupQueryAttention that holds a cosine for every position and pair of elements."""

_SIZES: Final = ("Shape", "Size")
_OF_SCORES: Final = ("IsNaN", "ReduceMax", "ReduceSum")
"""Operators whose results are settings; those of scores are what a softmax spells out."""

_STAGES: Final[Mapping[tuple[str, str], str]] = {
    ("ReduceMean", "square"): "mean",
    ("Sqrt", "mean"): "root",
    ("Reciprocal", "root"): "inverse",
}
"""What an operator makes of the stage of a norm."""


def _activation(curve: Curve) -> str | None:
    """Return the name of an activation from the operators it is written with."""
    match curve.steps:
        case ("Relu",):
            return "Relu"
        case ("Swish",) | ("Sigmoid", "Mul"):
            return "Silu"
        case ("Gelu",) | ("FastGelu",):
            return "Gelu"
    used = set(curve.steps)  # by the error function, or by the tangent of a cubic
    return "Gelu" if {"Erf", "Add", "Mul"} <= used or {"Tanh", "Add", "Mul"} <= used else None


def _base(term: Term | None) -> Projection | None:
    """Return the projection whose elements a term is made of."""
    match term:
        case Projection():
            return term
        case Curve(of=of) | Turned(of=of):
            return of
    return None


def _value(term: Term | None) -> tuple[Hidden, bool] | None:
    """Return what a norm squares and divides: the stream, or the stream less its mean."""
    match term:
        case Hidden():
            return term, False
        case Partial(of=of, centred=True, stage="value"):
            return of, True
    return None


def _rotary(term: Term | None) -> bool | None:
    """Return whether queries or keys are in rotary form; None if they are neither."""
    match term:
        case Projection():
            return False
        case Turned(tabled=True):
            return True
        case Curve(steps=steps) if set(steps) <= {"Mul", "Div"}:  # their scale
            return False
    return None


class _Reader:
    """Goes through the operators in order and keeps the term of every tensor."""

    def __init__(
        self,
        nodes: Sequence[Node],
        shapes: Mapping[str, Shape],
        constants: Mapping[str, NDArray[Any]],
    ) -> None:
        self.nodes, self.shapes, self.constants = nodes, shapes, constants
        self.terms: dict[str, Term] = {}
        self.attention: dict[int, tuple[Normed, Context, Projection]] = {}
        self.layers: list[Layer] = []
        self.head: Projection | None = None
        self.batch = self.tokens = self.cached = self.macs = self.head_rows = self.last_step = 0
        self.weights: dict[str, int] = {}

    def read(self) -> Recognised:
        """Return the decoder; raises Unrecognised."""
        table = self._table()
        for node in self.nodes:
            if node is table:
                self.batch, self.tokens = self.shapes[node.outputs[0]][:2]
                self.terms[node.outputs[0]] = Hidden(0)
            elif any(name in self.terms for name in node.inputs):
                self._read(node)
        return self._checked()

    def _table(self) -> Node:
        """Return the operator that fetches tokens: its table has the shape of the head."""
        tables = {
            self.constants[node.inputs[0]].shape: node
            for node in reversed(self.nodes)
            if node.type == "Gather"
            and node.inputs[0] in self.constants
            and len(self.shapes.get(node.outputs[0], ())) == 3
        }
        for node in reversed(self.nodes):
            if (matrix := self.matrix(node)) and matrix[::-1] in tables:
                return tables[matrix[::-1]]
        raise Unrecognised(
            "no operator fetches tokens from a table of the size of a constant matrix, the "
            "language-model head"
        )

    def _read(self, node: Node) -> None:
        aside = node.type in _OF_SCORES and isinstance(self.terms_of(node)[0], Scores)
        if node.type in _SIZES or aside:
            return
        rule = RULES.get(node.type)
        try:
            made = rule(self, node) if rule else None
        except MALFORMED:  # a size that is missing or contradicts another
            made = None
        if made is None:
            terms = self.terms_of(node)
            what = " and ".join(dict.fromkeys(str(term) for term in terms if term))
            raise Unrecognised(
                f"operator {node.name!r} ({node.type}) on {what} is no part of a decoder that is "
                "known here"
            )
        results = made if isinstance(made, tuple) else (made,) * len(node.outputs)
        self.terms.update(zip(node.outputs, results, strict=False))

    def _checked(self) -> Recognised:
        head, end = self.head, 2 * len(self.layers)
        if head is None or self.last_step != end:
            raise Unrecognised("no constant matrix makes words of the last layer's norm")
        if not self.layers:
            raise Unrecognised("it has no layers")
        if any(isinstance(term, Curve) and term.of == head for term in self.terms.values()):
            raise Unrecognised(f"something follows the language-model head {head.node!r}")
        return Recognised(
            layers=tuple(self.layers),
            head=head,
            head_rows=self.head_rows,
            batch=self.batch,
            tokens=self.tokens,
            cached=self.cached,
            macs=self.macs,
            weights=self.weights,
        )

    def terms_of(self, node: Node) -> tuple[Term | None, ...]:
        """Return the term of every input, None for settings."""
        return tuple(self.terms.get(name) for name in node.inputs)

    def matrix(self, node: Node) -> tuple[int, int] | None:
        """Return (k, n) of a product with a constant matrix."""
        weight = self.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.type not in ("MatMul", "Gemm") or weight is None or weight.ndim != 2:
            return None
        k, n = weight.shape[::-1] if node.attributes.get("transB") else weight.shape
        return k, n

    def along_last(self, node: Node) -> bool:
        """Whether a Slice, Split, Concat or Gather works on the last axis."""
        axis = node.attributes.get("axis", 0)
        if node.type == "Slice":
            axis = int(self.constants[node.inputs[3]].ravel()[0])
        return axis in (-1, len(self.shapes[node.inputs[0]]) - 1)

    def size(self, name: str) -> int:
        """Return the elements of a setting, 0 if nobody knows."""
        constant = self.constants.get(name)
        return math.prod(self.shapes.get(name, (0,)) if constant is None else constant.shape)

    def single(self, name: str) -> bool:
        """Whether a setting is one number."""
        return self.size(name) == 1

    def columns(self, made: Projection) -> int:
        """Return the columns of the whole matrix of a projection."""
        return self.weights[made.weight] // made.k

    def context(
        self, q: Term | None, k: Term | None, v: Term | None, heads: int, size: int
    ) -> Context | None:
        """Return attention, or None if its operands or their sizes do not fit each other."""
        queries, keys, rotary = _base(q), _base(k), {_rotary(q), _rotary(k)}
        if not queries or not keys or not isinstance(v, Projection):
            return None
        kv_heads = keys.n // size
        fits = queries.n == heads * size and keys.n == v.n == kv_heads * size > 0
        alike = queries.source == keys.source == v.source and rotary in ({True}, {False})
        if not fits or not alike or heads % kv_heads:
            return None
        return Context(queries, keys, v, heads, kv_heads, rotary == {True})

    def residual(self, x: Hidden, p: Projection) -> Hidden | None:
        """Add attention's or the feed-forward part's projection of the same stream to it."""
        layer, second = divmod(x.step, 2)
        match p.source:
            case Context(q=Projection(source=Normed(of=of) as normed)) if of == x and not second:
                self.attention[layer] = (normed, p.source, p)
            case Gated(gate=Curve(of=gate), up=up) if second:
                return self._end_layer(x, p, p.source.gate, gate, up)
            case Curve(of=up) if second:
                return self._end_layer(x, p, p.source, None, up)
            case _:
                return None
        return Hidden(x.step + 1)

    def _end_layer(
        self, x: Hidden, down: Projection, curve: Curve, gate: Projection | None, up: Projection
    ) -> Hidden | None:
        kind, normed = _activation(curve), up.source
        if not isinstance(normed, Normed) or normed.of != x:
            return None
        if kind is None:
            raise Unrecognised(f"an activation, {curve}, is none of {', '.join(ACTIVATIONS)}")
        before, context, output = self.attention[x.step // 2]
        self.layers.append(
            Layer(
                norms=(before.kind, normed.kind),
                context=context,
                output=output,
                gate=gate,
                up=up,
                activation=kind,
                down=down,
            )
        )
        return Hidden(x.step + 1)


Made: TypeAlias = Term | tuple[Term, ...] | None


def _passed(reader: _Reader, node: Node) -> Made:
    return reader.terms_of(node)[0]


def _product(reader: _Reader, node: Node) -> Made:
    """Read a product: a projection by a constant matrix, scores, or a context."""
    a, b, *_ = reader.terms_of(node)
    matrix = reader.matrix(node)
    if matrix is None:
        return _of_two(reader, node, a, b)
    k, n = matrix
    size = math.prod(reader.shapes[node.outputs[0]])
    reader.macs += size * k
    reader.weights[node.inputs[1]] = k * n
    if node.attributes.get("transA") or not isinstance(a, Normed | Context | Gated | Curve):
        return None
    turned = bool(node.attributes.get("transB"))
    made = Projection(node.name, a, node.inputs[1], k, 0, n, turned)
    if isinstance(a, Normed) and a.of.step >= reader.last_step:
        reader.last_step = a.of.step
        reader.head, reader.head_rows = made, size // n
    return made


def _of_two(reader: _Reader, node: Node, a: Term | None, b: Term | None) -> Made:
    left, right = (reader.shapes[name] for name in node.inputs[:2])
    reader.macs += math.prod(reader.shapes[node.outputs[0]]) * left[-1]
    if isinstance(a, Scores) and a.weights:
        return reader.context(a.q, a.k, b, a.heads, a.size)
    if a is None or b is None or _rotary(a) is None or _rotary(b) is None:
        return None
    reader.cached = right[-1] - reader.tokens
    return Scores(a, b, math.prod(left[:-2]) // reader.batch, left[-1])


def _fused_attention(reader: _Reader, node: Node) -> Made:
    """Read GroupQueryAttention, MultiHeadAttention and the standard's Attention."""
    q, k, v, *_ = (*reader.terms_of(node), None, None)
    given = node.attributes
    heads = given.get("num_heads") or given.get("q_num_heads") or reader.shapes[node.inputs[0]][1]
    kv_heads = given.get("kv_num_heads") or heads
    if node.type == "GroupQueryAttention" and k is None and isinstance(q, Projection):
        size = q.n // (heads + 2 * kv_heads)
        cuts = [0, heads * size, (heads + kv_heads) * size, q.n]
        q, k, v = (replace(q, start=a, stop=b) for a, b in itertools.pairwise(cuts))
    queries = _base(q)
    if queries is None or given.get("softcap"):
        return None
    if given.get("do_rotary"):
        if 2 * reader.constants[node.inputs[COSINES]].shape[-1] != queries.n // heads:
            return None  # some elements of a head stay as they are
        q, k = (Turned(of, tabled=True) if (of := _base(x)) else None for x in (q, k))
    reader.macs += 2 * reader.batch * reader.tokens * reader.tokens * queries.n
    return reader.context(q, k, v, heads, queries.n // heads)


def _softmax(reader: _Reader, node: Node) -> Made:
    x = reader.terms_of(node)[0]
    return replace(x, weights=True) if isinstance(x, Scores) else None


def _where(reader: _Reader, node: Node) -> Made:
    """Mask scores, or weights that are not numbers since everything was masked."""
    found = [term for term in reader.terms_of(node) if term is not None]
    return found[0] if len(found) == 1 and isinstance(found[0], Scores) else None


def _norm(reader: _Reader, node: Node) -> Made:
    """Read a norm in one operator; the kinds with a skip add to the stream first."""
    a, b, *_ = reader.terms_of(node)
    x: Term | None = a
    if node.type.startswith("Skip"):
        made = _add(reader, node)
        x = made if isinstance(made, Hidden) else None
    if not isinstance(x, Hidden) or (b is not None and x is a):
        return None
    normed = Normed(x, _NORMS[node.type])
    return (normed, *[x] * (len(node.outputs) - 1))  # the sum is the last output


def _stage(reader: _Reader, node: Node) -> Made:
    """Read a small operator of a norm."""
    x = reader.terms_of(node)[0]
    if isinstance(x, Hidden) and node.type == "ReduceMean":
        return Partial(x, centred=False, stage="average")
    stage = _STAGES.get((node.type, x.stage)) if isinstance(x, Partial) else None
    return replace(x, stage=stage) if isinstance(x, Partial) and stage else None


def _pow(reader: _Reader, node: Node) -> Made:
    x, exponent = reader.terms_of(node)[0], float(reader.constants[node.inputs[1]].ravel()[0])
    value = _value(x)
    if value and exponent == 2:
        return Partial(*value, stage="square")
    if isinstance(x, Partial) and x.stage == "mean" and abs(exponent) == 0.5:
        return replace(x, stage="root" if exponent > 0 else "inverse")
    return _curve(reader, node)


def _curve(reader: _Reader, node: Node) -> Made:
    """Append an element-wise function of one projection, or of functions of it."""
    terms = [term for term in reader.terms_of(node) if term is not None]
    bases = {_base(term) for term in terms}
    of = bases.pop()
    if of is None or bases or any(isinstance(term, Turned) for term in terms):
        return None
    return Curve(of, (*(s for t in terms if isinstance(t, Curve) for s in t.steps), node.type))


def _add(reader: _Reader, node: Node) -> Made:
    """Read a residual, positions, a bias, a shift, an epsilon, a mask or half a rotation."""
    for x, y, name in _both_ways(reader, node):
        match x, y:
            case Hidden(), Projection():
                return reader.residual(x, y)
            case (Hidden(step=0), None) | (Normed(), None) | (Scores(weights=False), None):
                return x
            case Partial(stage="mean"), None if reader.single(name):
                return x
            case Projection(), None if reader.size(name) == reader.columns(x):
                return x
            case Turned(), Turned() if x.of == y.of and x.tabled and y.tabled:
                return x
            case (Curve(), None) | (Curve(), Curve() | Projection()):
                return _curve(reader, node)
    return None


def _mul(reader: _Reader, node: Node) -> Made:
    """Read a square, a division by a root, a scale, a gate, an activation or half a rotation."""
    for x, y, name in _both_ways(reader, node):
        value = _value(x)
        match x, y:
            case _ if value and x == y:
                return Partial(*value, stage="square")
            case _, Partial(stage="inverse") if value:
                return _divided(value, y)
            case Normed(), None:
                return x
            case Curve(), Projection() if x.of.source == y.source and x.of != y:
                return Gated(x, y)
            case Projection() | Turned(), None if not reader.single(name):
                of = _base(x)
                return Turned(of, tabled=True) if of else None
            case ((Hidden(step=0) | Turned() | Scores(weights=False)), None) if reader.single(name):
                return x
            case ((Curve() | Projection()), (None | Curve())) if y is None or _base(x) == _base(y):
                return _curve(reader, node)
    return None


def _div(reader: _Reader, node: Node) -> Made:
    x, y, *_ = reader.terms_of(node)
    value = _value(x)
    match x, y:
        case _, Partial(stage="root") if value:
            return _divided(value, y)
        case None, Partial(stage="root"):
            return replace(y, stage="inverse")
        case Scores(weights=True), None:  # by the sum of a softmax
            return x
    return _mul(reader, node) if x is not None and reader.single(node.inputs[1]) else None


def _divided(value: tuple[Hidden, bool], root: Partial) -> Normed | None:
    of, centred = value
    if (root.of, root.centred) != value:
        return None
    return Normed(of, "LayerNorm" if centred else "RMSNorm")


def _sub(reader: _Reader, node: Node) -> Made:
    match reader.terms_of(node):
        case Hidden() as x, Partial(of=of, stage="average") if x == of:
            return Partial(x, centred=True, stage="value")
        case (Turned(), Turned()) | (Scores(), None):
            return _add(reader, node)
    return None


def _neg(reader: _Reader, node: Node) -> Made:
    x = reader.terms_of(node)[0]
    return x if isinstance(x, Turned) else None


def _rotated(reader: _Reader, node: Node) -> Made:
    of, some = _base(reader.terms_of(node)[0]), node.attributes.get("rotary_embedding_dim")
    return Turned(of, tabled=True) if of and not some else None


def _part(reader: _Reader, node: Node) -> Made:
    """Read some tokens, some columns of a projection, or some elements of each head."""
    x = reader.terms_of(node)[0]
    if not reader.along_last(node):
        return x if isinstance(x, Hidden | Normed | Projection) else None
    shape, of = reader.shapes[node.inputs[0]], _base(x)
    if of is None or isinstance(x, Curve) or node.type == "Gather":
        return None
    if len(shape) > 3 or isinstance(x, Turned):
        return Turned(of, tabled=isinstance(x, Turned) and x.tabled)
    if node.type == "Split":
        sizes = [reader.shapes[name][-1] for name in node.outputs]
        cuts = [of.start, *(of.start + end for end in itertools.accumulate(sizes))]
    else:
        start, stop = (int(reader.constants[name].ravel()[0]) for name in node.inputs[1:3])
        start, stop, _ = slice(start, stop).indices(of.n)
        cuts = [of.start + start, of.start + stop]
    return tuple(replace(of, start=a, stop=b) for a, b in itertools.pairwise(cuts))


def _concat(reader: _Reader, node: Node) -> Made:
    """Put new keys and values behind cached ones, or the parts of a rotation together."""
    terms = reader.terms_of(node)
    known = [term for term in terms if term is not None]
    bases = {_base(term) for term in known}
    of = bases.pop()
    if of is None or bases or any(isinstance(term, Curve) for term in known):
        return None
    if not reader.along_last(node):
        return known[0] if len(known) == 1 and terms[-1] is not None else None
    tabled = {isinstance(term, Turned) and term.tabled for term in known}
    # A rotation of some elements only would mix those that met a table with others.
    whole = len(tabled) == 1 and len(known) == len(terms)
    return Turned(of, tabled=tabled.pop()) if whole else None


def _both_ways(reader: _Reader, node: Node) -> Iterator[tuple[Term | None, Term | None, str]]:
    """Yield both orders of two inputs: the terms, and the name of the second."""
    a, b, *_ = reader.terms_of(node)
    yield a, b, node.inputs[1]
    yield b, a, node.inputs[0]


Rule: TypeAlias = Callable[[_Reader, Node], Made]

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(_PASSED.split(), _passed),
    **dict.fromkeys(_CURVES.split(), _curve),
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(("MatMul", "Gemm"), _product),
    **dict.fromkeys(("GroupQueryAttention", "MultiHeadAttention", "Attention"), _fused_attention),
    **dict.fromkeys(("ReduceMean", "Sqrt", "Reciprocal"), _stage),
    **dict.fromkeys(("Slice", "Split", "Gather"), _part),
    "Add": _add,
    "Concat": _concat,
    "Div": _div,
    "Exp": _softmax,
    "Mul": _mul,
    "Neg": _neg,
    "Pow": _pow,
    "RotaryEmbedding": _rotated,
    "Softmax": _softmax,
    "Sub": _sub,
    "Where": _where,
}


def recognise(
    nodes: Sequence[Node], shapes: Mapping[str, Shape], constants: Mapping[str, NDArray[Any]]
) -> Recognised:
    """Return the decoder that the operators of a static graph make up.

    Raises Unrecognised naming the first operator that is no part of one.
    """
    return _Reader(nodes, shapes, constants).read()
