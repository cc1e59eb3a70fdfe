"""Gradients of operators without a product: what each reads, and how often.

An operator's backward reads the gradient of its output and what it saved in the forward pass:
its inputs, its output, or neither. Fused element-wise work (`Op.post`) keeps its place on the
output path when its gradient follows from the output alone, as ReLU's does; `save_inputs` makes
any other, such as GELU, an operator of its own, since its input has to be stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from workloads.canonical import Spec
from workloads.graph import Op, OpKind, TensorSpec, WorkloadGraph

__all__ = [
    "BATCH_STATISTICS",
    "CONSTANT_SOURCES",
    "SUMS",
    "VectorGradient",
    "fresh",
    "refuse_gradient",
    "save_inputs",
    "stays_fused",
    "vector_gradient",
]

Tensors = Mapping[str, TensorSpec]

BATCH_STATISTICS: Final = "BatchStatistics"
"""Source of a norm by the statistics of its batch, whose gradient reads its input again; ONNX's
`BatchNormalization` has constants instead."""

SUMS: Final = frozenset(("Add", "Sum"))
"""Their gradient is the output's own, copied to every operand."""

CONSTANT_SOURCES: Final = frozenset(
    ("Constant", "ConstantOfShape", "EyeLike", "Range", "Shape", "Size")
)
"""They follow from shapes, not from values: no gradient passes, and none is needed."""

NO_GRADIENT: Final = frozenset(
    (
        "And",
        "ArgMax",
        "ArgMin",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Ceil",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Mod",
        "Not",
        "OneHot",
        "Or",
        "QuantizeLinear",
        "Round",
        "Sign",
        "Xor",
    )
)
"""Integer or boolean results, or a derivative that is zero wherever it exists."""

FROM_OUTPUT: Final = frozenset(
    (
        "Celu",
        "Clip",
        "Elu",
        "Exp",
        "HardSigmoid",
        "LeakyRelu",
        "Reciprocal",
        "Relu",
        "Relu6",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Tanh",
    )
)
"""Functions whose derivative is a function of their result."""

LINEAR: Final = frozenset(("Cast", "CastLike", "Col2Im", "Neg", "RotaryEmbedding", "Sub"))
"""Their gradient reads nothing that was saved."""

SCALES: Final = frozenset(("Div", "Mul"))
"""With one operand they scale by an immediate, which is linear."""

SPREADS: Final = frozenset(("Expand", "Resize", "Tile", "Upsample"))
"""Moves that repeat elements, whose gradients add up."""

AVERAGES: Final = frozenset(("AveragePool", "GlobalAveragePool"))
LINEAR_REDUCTIONS: Final = frozenset(("CumSum", "ReduceMean", "ReduceSum"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorGradient(Spec):
    """The operator that makes one operand's gradient from the output's and what was saved."""

    kind: OpKind
    source: str
    saved: tuple[str, ...] = ()
    passes: int = 1
    post: tuple[str, ...] = ()


def fresh(name: str, taken: Mapping[str, object]) -> str:
    """Return `name`, with underscores appended until nothing is called so."""
    while name in taken:
        name += "_"
    return name


def refuse_gradient(op: Op) -> None:
    """Raise ValueError when a part of `op` has no gradient, naming the operator and the pass."""
    for source in (op.source, *op.post):
        if op.kind is OpKind.OPAQUE or source in NO_GRADIENT:
            raise ValueError(
                f"Op {op.name!r} ({source}) has no gradient: training needs one in its bp pass"
            )


def stays_fused(op: Op) -> bool:
    """Whether the gradient of `op.post` follows from the operator's output."""
    if not op.post:
        return True
    *before, last = op.post
    from_output = last in FROM_OUTPUT or last in SUMS
    # These save no output; others might need theirs as it was before `post`.
    free = op.gemm is not None or op.source in SUMS or op.source == BATCH_STATISTICS
    return from_output and set(before) <= SUMS and free


def save_inputs(graph: WorkloadGraph) -> WorkloadGraph:
    """Split fused work off whose gradient needs the value it starts from.

    Op `x` then yields the tensor `<output>.pre`, and an element-wise op `x.post` the output.
    """
    names = dict.fromkeys(op.name for op in graph.ops)
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        if stays_fused(op):
            ops.append(op)
            continue
        saved = fresh(f"{op.output}.pre", tensors)
        tensors[saved] = replace(tensors[op.output], name=saved)
        after = Op(
            name=fresh(f"{op.name}.post", names),
            kind=OpKind.ELEMENTWISE,
            inputs=(saved,),
            output=op.output,
            source=op.post[0],
            post=op.post[1:],
            repeat=op.repeat,
        )
        names[after.name] = None
        ops += [replace(op, output=saved, post=()), after]
    return replace(graph, ops=tuple(ops), tensors=tensors)


def _reduced(op: Op, index: int, tensors: Tensors) -> VectorGradient | None:
    """Copy the gradient to an operand of a sum; one that was broadcast gets it added up."""
    operand, output = tensors[op.inputs[index]], tensors[op.output]
    if operand.shape == output.shape:
        return None
    if operand.size == output.size:
        return VectorGradient(kind=OpKind.RESHAPE, source="Reshape")
    return VectorGradient(kind=OpKind.NORM, source="ReduceSum")


def _saved_elementwise(op: Op, index: int) -> tuple[str, ...]:
    others = tuple(name for i, name in enumerate(op.inputs) if i != index)
    if op.post:
        return op.inputs
    if op.source in FROM_OUTPUT:
        return (op.output,)
    if op.source in LINEAR or (op.source in SCALES and not others):
        return ()
    return others if op.source == "Mul" else op.inputs


def _elementwise(op: Op, index: int, tensors: Tensors) -> VectorGradient | None:
    copies = op.source in SUMS or (op.source == "Sub" and index == 0)
    if copies and not op.post:
        return _reduced(op, index, tensors)
    first, *rest = (f"{source}.grad" for source in reversed((op.source, *op.post)))
    return VectorGradient(
        kind=OpKind.ELEMENTWISE,
        source=first,
        saved=_saved_elementwise(op, index),
        post=tuple(rest),
    )


def _norm(op: Op, tensors: Tensors) -> VectorGradient:
    """Read the input again for its statistics; those of a batch norm are constants here."""
    if op.source in LINEAR_REDUCTIONS:
        saved: tuple[str, ...] = ()
    elif op.source == "BatchNormalization":
        saved = tuple(name for name in op.inputs if tensors[name].parameter)
    elif op.source.startswith("Reduce"):
        saved = (*op.inputs, op.output)
    else:
        saved = op.inputs
    return VectorGradient(
        kind=OpKind.NORM, source=f"{op.source}.grad", saved=saved, passes=op.passes
    )


def vector_gradient(op: Op, index: int, tensors: Tensors) -> VectorGradient | None:
    """Return how the gradient of input `index` of `op` is made, or None for a free copy.

    Work left in `op.post` is one function with the operator itself (see `save_inputs`).
    Passes: softmax 2 (the dot product of output and gradient, then the result); norms as many as
    forward, since all sums run in the first; pooling as many as forward. A maximum pool finds its
    maxima again by comparing input and output.
    """
    source = f"{op.source}.grad"
    match op.kind:
        case OpKind.ELEMENTWISE:
            return _elementwise(op, index, tensors)
        case OpKind.NORM:
            return _norm(op, tensors)
        case OpKind.SOFTMAX:
            return VectorGradient(kind=op.kind, source=source, saved=(op.output,), passes=2)
        case OpKind.POOL:
            saved = () if op.source in AVERAGES else (op.inputs[index], op.output)
            return VectorGradient(kind=op.kind, source=source, saved=saved, passes=op.passes)
        case OpKind.MOVE:
            kind = OpKind.NORM if op.source in SPREADS else op.kind
            return VectorGradient(kind=kind, source=source)
        case OpKind.RESHAPE:
            return VectorGradient(kind=op.kind, source=source)
        case _:
            raise ValueError(f"Op {op.name!r}: a {op.kind} is no vector operator")
