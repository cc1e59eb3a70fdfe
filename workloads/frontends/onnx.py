"""ONNX front end: a trained model as a WorkloadGraph with its weights as values.

Products keep their weights in the GEMM layout: Conv as (kh, kw, cin) by n, MatMul and Gemm as
(k, n). Tensors of the convolutional part are shaped channels last, (b, h, w, c), though ONNX
stores channels first; all others keep the shape of the source. A MatMul whose constant comes
first is taken as its transpose. ConvTranspose is the product that stride phases amount to,
m = input pixels and n = (kh, kw, cout), followed by col2im; no inserted zero is multiplied.
Scalars and settings such as axes are immediates; constants with more elements are parameters.
Operators that are not known become `OpKind.OPAQUE` and are named in the notes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from workloads.builder import conv_gemm
from workloads.errors import WorkloadError
from workloads.frontends.onnx_file import read_model, static_model
from workloads.frontends.onnx_nodes import Node, Shape, read_constants, read_facts, read_nodes
from workloads.frontends.onnx_ops import (
    FREE_CONSTANTS,
    KINDS,
    LAYOUT_CARRIERS,
    PASSES,
    SPATIAL,
    conv_window,
    transposed_overlaps,
    window_passes,
)
from workloads.frontends.onnx_recording import read_record, run_model
from workloads.graph import Gemm, Op, OpKind, TensorSpec, Window, WorkloadGraph
from workloads.passes import fuse_post
from workloads.recording import recorded

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["load_onnx"]

Values = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class _Net:
    """The source model's facts and the graph that grows out of them."""

    path: Path
    shapes: Mapping[str, Shape]
    bits: Mapping[str, int]
    constants: Mapping[str, NDArray[Any]]
    channels_first: frozenset[str]
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)

    def data(self, name: str) -> str:
        """Add an activation; a shape that nobody knows is that of a scalar."""
        if name not in self.tensors:
            shape = self.shapes.get(name, ())
            dims = tuple(f"d{i}" for i in range(len(shape)))
            if name in self.channels_first:
                shape = (shape[0], *shape[2:], shape[1])
                dims = ("b", "h", "w", "c") if len(shape) == 4 else ("b", "t", "c")
            bits = self.bits.get(name, 8)
            self.tensors[name] = TensorSpec(name=name, dims=dims, shape=shape, bits=bits)
        return name

    def parameter(self, name: str, values: NDArray[Any], *, bits: int = 8) -> str:
        """Add a constant in the layout given; one used in two layouts becomes two parameters."""
        shape = values.shape
        dims = ("g", "k", "n")[-len(shape) :] if 1 <= len(shape) <= 3 else ()
        dims = dims or tuple(f"d{i}" for i in range(len(shape)))
        values = np.ascontiguousarray(values, dtype=np.float32).reshape(shape)
        if name in self.values and not np.array_equal(self.values[name], values):
            name = f"{name}.{len(self.tensors)}"
        self.tensors[name] = TensorSpec(
            name=name, dims=dims, shape=shape, bits=bits, parameter=True
        )
        self.values[name] = values
        return name

    def bias(self, name: str, values: NDArray[Any]) -> str:
        """Add what a product's accumulator starts from."""
        return self.parameter(name, np.asarray(values).reshape(-1), bits=32)

    def operand(self, name: str) -> str:
        """Add an input of a vector operator, constant or not."""
        if name in self.constants:
            return self.parameter(name, self.constants[name])
        return self.data(name)

    def append(self, op: Op) -> None:
        """Add an operator and its output."""
        self.data(op.output)
        self.ops.append(op)


def _known(net: _Net, name: str) -> bool:
    return name in net.constants or name in net.shapes


def _opaque(net: _Net, node: Node) -> None:
    inputs = tuple(net.data(i) for i in node.inputs if i and i not in net.constants)
    net.append(
        Op(
            name=node.name,
            kind=OpKind.OPAQUE,
            inputs=inputs,
            output=node.outputs[0],
            source=node.type,
        )
    )
    for i, output in enumerate(node.outputs[1:], start=1):
        # An Op has one output; views of it stand for the others and keep the order.
        net.append(
            Op(
                name=f"{node.name}.{i}",
                kind=OpKind.RESHAPE,
                inputs=(node.outputs[0],),
                output=output,
                source=node.type,
            )
        )


def _conv(net: _Net, node: Node) -> None:
    x, w, *rest = node.inputs
    weight = net.constants[w].astype(np.float32)
    groups = node.attributes.get("group", 1)
    window = conv_window(node.attributes, net.shapes[x], weight.shape)
    gemm = conv_gemm(window, groups, weight.shape[0])
    expected = (1, *net.shapes[node.outputs[0]][2:])[-2:]
    if window.out != expected or groups * weight.shape[1] != net.shapes[x][1]:
        raise ValueError("its window disagrees with its output shape")
    matrix = np.moveaxis(weight.reshape(groups, gemm.n, weight.shape[1], -1), (1, 2), (3, 2))
    depthwise = groups > 1 and groups == net.shapes[x][1]
    net.append(
        Op(
            name=node.name,
            kind=OpKind.DEPTHWISE if depthwise else OpKind.CONV,
            inputs=(net.data(x), _weight(net, w, matrix, gemm), *_biases(net, rest)),
            output=node.outputs[0],
            gemm=gemm,
            window=window,
            source=node.type,
        )
    )


def _weight(net: _Net, name: str, values: NDArray[Any], gemm: Gemm) -> str:
    shape = (gemm.k, gemm.n) if gemm.groups == 1 else (gemm.groups, gemm.k, gemm.n)
    if not np.isfinite(values).all():
        raise ValueError(f"its weight {name!r} holds values that are not finite")
    return net.parameter(name, values.reshape(shape))


def _biases(net: _Net, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(net.bias(name, net.constants[name]) for name in names if name)


def _conv_transpose(net: _Net, node: Node) -> None:
    """Multiply cin by (kh, kw, cout) at every input pixel, then col2im into the output."""
    x, w, *rest = node.inputs
    weight = net.constants[w].astype(np.float32)
    groups = node.attributes.get("group", 1)
    batch, channels, *image = net.shapes[x]
    height, width = (1, image[0]) if len(image) == 1 else (image[0], image[1])
    cin, n = channels // groups, math.prod(weight.shape[1:])
    gemm = Gemm(groups=groups, m=batch * height * width, k=cin, n=n)
    matrix = np.moveaxis(weight.reshape(groups, cin, weight.shape[1], -1), 2, 3)
    columns = f"{node.outputs[0]}.columns"
    net.tensors[columns] = TensorSpec(
        name=columns, dims=("b", "h", "w", "c"), shape=(batch, height, width, groups * n)
    )
    net.append(
        Op(
            name=node.name,
            kind=OpKind.CONV,
            inputs=(net.data(x), _weight(net, w, matrix, gemm)),
            output=columns,
            gemm=gemm,
            window=Window(batch=batch, image=(height, width), channels=cin, kernel=(1, 1)),
            source=node.type,
        )
    )
    overlaps = transposed_overlaps({"kernel_shape": weight.shape[2:], **node.attributes})
    net.append(
        Op(
            name=f"{node.name}.col2im",
            kind=OpKind.ELEMENTWISE if overlaps or rest else OpKind.MOVE,
            inputs=(columns, *_biases(net, rest)),
            output=node.outputs[0],
            source="Col2Im",
        )
    )


def _gemm_weight(net: _Net, node: Node, gemm: Gemm) -> tuple[OpKind, str]:
    """Return the second operand as (k, n), scaled by alpha when it is constant."""
    name = node.inputs[1]
    if name not in net.constants:
        return OpKind.MATMUL, net.data(name)
    with np.errstate(all="ignore"):  # what is not finite is refused with its name
        scaled = net.constants[name] * np.float32(node.attributes.get("alpha", 1.0))
    turned = scaled.T if node.attributes.get("transB", 0) else scaled
    return OpKind.GEMM, _weight(net, name, turned, gemm)


def _gemm(net: _Net, node: Node) -> None:
    """A * B + C of matrices; a C that is not constant is added by the vector unit."""
    a, b, *rest = node.inputs
    m, k = net.shapes[a][::-1] if node.attributes.get("transA", 0) else net.shapes[a]
    shape = net.constants[b].shape if b in net.constants else net.shapes[b]
    gemm = Gemm(m=m, k=k, n=shape[0] if node.attributes.get("transB", 0) else shape[1])
    kind, weight = _gemm_weight(net, node, gemm)
    biases = [c for c in rest if c in net.constants]
    added = [c for c in rest if c and c not in net.constants]
    output = node.outputs[0]
    product = f"{output}.product" if added else output
    net.append(
        Op(
            name=node.name,
            kind=kind,
            inputs=(net.data(a), weight, *_biases(net, biases)),
            output=product,
            gemm=gemm,
            source=node.type,
        )
    )
    if added:
        net.tensors[product] = TensorSpec(name=product, dims=("d0", "d1"), shape=(m, gemm.n))
        net.append(
            Op(
                name=f"{node.name}.add",
                kind=OpKind.ELEMENTWISE,
                inputs=(product, net.data(added[0])),
                output=output,
                source="Add",
            )
        )


def _constant_product(net: _Net, node: Node, x: str, weight: NDArray[Any], name: str) -> None:
    """Activation by constant; a constant with a batch of its own makes groups."""
    k, n = weight.shape[-2:]
    groups = math.prod(weight.shape[:-2])
    gemm = Gemm(groups=groups, m=math.prod(net.shapes[node.outputs[0]]) // (groups * n), k=k, n=n)
    _product(net, node, OpKind.GEMM, net.data(x), _weight(net, name, weight, gemm), gemm)


def _product(net: _Net, node: Node, kind: OpKind, x: str, y: str, gemm: Gemm) -> None:
    net.append(
        Op(
            name=node.name,
            kind=kind,
            inputs=(x, y),
            output=node.outputs[0],
            gemm=gemm,
            source=node.type,
        )
    )


def _matmul(net: _Net, node: Node) -> None:
    a, b = node.inputs
    if b in net.constants:
        weight = net.constants[b]
        weight = weight.reshape(-1, 1) if weight.ndim == 1 else weight
        _constant_product(net, node, a, weight, b)
    elif a in net.constants:
        weight = net.constants[a]
        weight = weight.reshape(-1, 1) if weight.ndim == 1 else np.swapaxes(weight, -1, -2)
        _constant_product(net, node, b, weight, a)
    else:
        left, right = net.shapes[a], net.shapes[b]
        k, n = right[-2:] if len(right) > 1 else (right[0], 1)
        groups = math.prod(right[:-2])
        rows = math.prod(left) // k
        if groups > 1:
            groups = math.prod(np.broadcast_shapes(left[:-2], right[:-2]))
            rows = groups * (left[-2] if len(left) > 1 else 1)
        gemm = Gemm(groups=groups, m=rows // groups, k=k, n=n)
        _product(net, node, OpKind.MATMUL, net.data(a), net.data(b), gemm)


def _vector_inputs(net: _Net, node: Node, kind: OpKind) -> tuple[str, ...]:
    """Return the data inputs: scalars, settings and looked-up tables stay out."""
    constants = [name for name in node.inputs if name in net.constants]
    if kind in FREE_CONSTANTS or (kind is OpKind.MOVE and node.type != "Concat"):
        dropped = set(constants)
    else:
        dropped = {name for name in constants if net.constants[name].size <= 1}
    if node.type.startswith("Reduce"):
        dropped = set(constants)
    names = dict.fromkeys(name for name in node.inputs if name and name not in dropped)
    return tuple(net.operand(name) for name in names)


def _vector(net: _Net, node: Node) -> None:
    """Append an operator without a product, once for each output that is used."""
    kind = KINDS[node.type]
    passes = PASSES.get(node.type, 1)
    if kind is OpKind.POOL and not node.type.startswith("Global"):
        passes = window_passes(node.attributes)
    inputs = _vector_inputs(net, node, kind)
    for i, output in enumerate(node.outputs):
        net.append(
            Op(
                name=f"{node.name}.{i}" if i else node.name,
                kind=kind,
                inputs=inputs,
                output=output,
                passes=passes,
                source=node.type,
            )
        )


MALFORMED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What attributes or shapes that contradict each other end in."""

PRODUCTS: Final[Mapping[str, Callable[[_Net, Node], None]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _translates(net: _Net, node: Node) -> bool:
    """Whether a product is one the graph can hold: shapes known, 1-D or 2-D, constant filters."""
    if node.type not in PRODUCTS:
        return node.type in KINDS
    if node.type in ("Gemm", "MatMul"):
        return node.inputs[0] not in net.constants or node.type == "MatMul"
    filters = net.constants.get(node.inputs[1])
    return filters is not None and filters.ndim in (3, 4)


def _append(net: _Net, node: Node) -> None:
    names = [name for name in (*node.inputs, *node.outputs) if name]
    try:
        if not all(_known(net, name) for name in names) or not _translates(net, node):
            _opaque(net, node)
        elif node.type in PRODUCTS:
            PRODUCTS[node.type](net, node)
        else:
            _vector(net, node)
    except MALFORMED as error:
        raise WorkloadError(
            f"{net.path}: operator {node.name!r} ({node.type}) is malformed: {error}"
        ) from None


def _channels_first(
    nodes: Sequence[Node], shapes: Mapping[str, Shape], constants: Mapping[str, Any]
) -> frozenset[str]:
    """Return the tensors of the convolutional part, found by walking out from its operators."""

    def spatial(names: Sequence[str], rank: int) -> set[str]:
        return {n for n in names if len(shapes.get(n, ())) == rank and n not in constants}

    found: set[str] = set()
    for node in nodes:
        if node.type in SPATIAL and (rank := len(shapes.get(node.inputs[0], ()))) in (3, 4):
            found |= spatial((node.inputs[0], node.outputs[0]), rank)
    carriers = [node for node in nodes if node.type in LAYOUT_CARRIERS]
    size = -1
    while len(found) > size:
        size = len(found)
        for node in carriers:
            names = (*node.inputs, *node.outputs)
            for rank in {len(shapes[n]) for n in names if n in found}:
                found |= spatial(names, rank)
    return frozenset(found)


def _notes(assumed: Mapping[str, Shape], graph: WorkloadGraph) -> tuple[str, ...]:
    notes = [
        f"Input {name!r} has free sizes and is taken as {'x'.join(map(str, shape))}"
        for name, shape in assumed.items()
    ]
    unknown = graph.unsupported
    if unknown:
        counts = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        notes.append(f"Operators known by name only, which cost nothing in any result: {counts}")
    return tuple(notes)


def load_onnx(
    path: str | Path,
    *,
    inputs: Mapping[str, Sequence[int] | NDArray[Any]] | None = None,
    batch: int = 1,
    record: str | Path | None = None,
    fuse: bool = True,
) -> WorkloadGraph:
    """Return the model in the ONNX file `path` as a graph, weights as float32 values.

    `inputs` gives the shape of inputs by name. A free first axis otherwise is `batch`; a free
    image size is assumed (see `workloads.frontends.onnx_file`) and noted. `fuse` moves
    element-wise work behind products into their `post`.

    With arrays as `inputs`, or a file of them or an image as `record`, the model runs on them and
    every activation that a product reads becomes `Explicit`: False where it is exactly zero.

    Raises WorkloadError, with one sentence that names the file, for a file that is missing,
    damaged, hostile or has sizes that cannot be guessed, and for inputs that do not fit.
    """
    path = Path(path)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise WorkloadError(f"batch must be a whole number of at least 1, not {batch!r}")
    arrays = {n: x for n, x in (inputs or {}).items() if isinstance(x, np.ndarray)}
    if arrays and record is not None:
        raise WorkloadError(f"{path}: give arrays as inputs or a file to record, not both")
    shapes = {n: x.shape if isinstance(x, np.ndarray) else x for n, x in (inputs or {}).items()}
    model, assumed = static_model(path, read_model(path), shapes, batch)
    net = _translate(path, model)
    graph = _graph(net)
    graph = fuse_post(graph) if fuse else graph
    if record is not None:
        arrays = read_record(Path(record), model)
    if arrays or record is not None:
        graph = _recorded(net, model, graph, arrays)
    return replace(graph, notes=_notes(assumed, graph))


def _recorded(
    net: _Net, model: "ModelProto", graph: WorkloadGraph, arrays: Mapping[str, NDArray[Any]]
) -> WorkloadGraph:
    """Run the model and put masks on the activations that products read."""
    read = [name for op in graph.gemm_ops for name in op.inputs[:2]]
    wanted = [name for name in read if not graph.tensors[name].parameter and name in net.shapes]
    values = run_model(net.path, model, arrays, wanted)
    masks = {name: values[name] != 0 for name in dict.fromkeys(wanted)}
    for name in masks.keys() & net.channels_first:
        masks[name] = np.moveaxis(masks[name], 1, -1)
    return recorded(graph, masks)


def _translate(path: Path, model: "ModelProto") -> _Net:
    nodes = read_nodes(model)
    shapes, bits = read_facts(model)
    constants = read_constants(path, model)
    net = _Net(
        path=path,
        shapes=shapes,
        bits=bits,
        constants=constants,
        channels_first=_channels_first(nodes, shapes, constants),
    )
    for node in nodes:
        _append(net, node)
    return net


def _graph(net: _Net) -> WorkloadGraph:
    try:
        return WorkloadGraph(
            name=net.path.stem, ops=tuple(net.ops), tensors=net.tensors, values=net.values
        )
    except ValueError as error:
        raise WorkloadError(f"{net.path}: {error}") from None
