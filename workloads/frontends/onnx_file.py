"""Reading an ONNX file that may be damaged or hostile, with every shape made static.

Files are data: no operator library is loaded from them, external weights must lie in the model's
own folder, and sizes are bounded before any memory is asked for. The recipe that makes shapes
static is: fix the input sizes, let ONNX Runtime fold constants (basic optimisation, nothing is
run), then infer shapes.
"""

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workloads.errors import WorkloadError
from workloads.paths import absence

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["outlined", "read_model", "static_model"]

Shapes = dict[str, tuple[int, ...]]

MAX_FILE_BYTES: Final = (1 << 31) - 1  # protobuf's own limit
MAX_TENSOR_ELEMENTS: Final = 1 << 40
MAX_SHAPE_ELEMENTS: Final = 1 << 10  # constants that shape inference may have to read
MAX_FOLDED_ELEMENTS: Final = 1 << 28  # constants that folding would build: 1 GiB of float32

RUNTIME_OPERATORS: Final = frozenset(("SimplifiedLayerNormalization",))
"""Operators that ONNX Runtime adds to the standard's own domain."""

OUTLINED: Final = "a weight that was left out"

IMAGE_CHANNELS: Final = (1, 3, 4)
IMAGES_BY_NAME: Final = {"det": (640, 640), "rec": (48, 320), "cls": (48, 192)}
"""Height and width assumed for the three PaddleOCR models, by a word of the file's name."""

IMAGES: Final = ((224, 224), (48, 320))
"""Height and width assumed for other images: the first that the model accepts."""


def _graph_tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    """Yield every stored tensor, those in attributes and subgraphs included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[Any]) -> Iterator["TensorProto"]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _check_external(path: Path, tensor: "TensorProto") -> int:
    """Refuse weights outside the model's folder; return the bytes of the file they lie in."""
    location = next((e.value for e in tensor.external_data if e.key == "location"), "")
    folder = path.parent.resolve()
    target = (folder / location).resolve()
    if Path(location).is_absolute() or not target.is_relative_to(folder):
        raise WorkloadError(
            f"{path}: weight {tensor.name!r} lies in {location!r}, outside the model's folder; "
            "only files beside or below the model are read"
        )
    if not target.is_file():
        raise WorkloadError(f"{path}: weight file {location!r} of {tensor.name!r} does not exist")
    return target.stat().st_size


def _check_tensors(path: Path, model: "ModelProto") -> int:
    """Check stored tensors before anything is allocated; return the bytes of files outside."""
    external: dict[str, int] = {}
    for tensor in _tensors(model):
        if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_TENSOR_ELEMENTS:
            raise WorkloadError(
                f"{path}: tensor {tensor.name!r} claims shape {tuple(tensor.dims)}; sizes must "
                f"not be negative and at most {MAX_TENSOR_ELEMENTS} elements are allowed"
            )
        if tensor.data_location == tensor.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            external[location] = _check_external(path, tensor)
    return sum(external.values())


def _outline(model: "ModelProto") -> None:
    """Make inputs of all weights that lie outside, settings of shapes aside."""
    import onnx

    kept = []
    for tensor in model.graph.initializer:
        if tensor.data_location != tensor.EXTERNAL or math.prod(tensor.dims) <= MAX_SHAPE_ELEMENTS:
            kept.append(tensor)
            continue
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        value.doc_string = OUTLINED
        model.graph.input.append(value)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def outlined(model: "ModelProto") -> dict[str, tuple[int, ...]]:
    """Return the shapes of weights that `read_model` left out."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in model.graph.input
        if value.doc_string == OUTLINED
    }


def _check_text(path: Path, model: "ModelProto") -> None:
    """Refuse names that are not text: protobuf hands them out as bytes."""
    waiting: list[Any] = [model]
    while waiting:
        for described, value in waiting.pop().ListFields():
            if described.type not in (described.TYPE_MESSAGE, described.TYPE_STRING):
                continue
            single = isinstance(value, str | bytes) or hasattr(value, "ListFields")
            values = [value] if single else value
            if described.type == described.TYPE_MESSAGE:
                waiting.extend(values)
            elif any(not isinstance(text, str) for text in values):
                raise WorkloadError(
                    f"{path} is not a readable ONNX model: its field {described.name!r} holds "
                    "bytes that are no UTF-8 text"
                )


def _check_file(path: Path) -> None:
    if why := absence(path):
        raise WorkloadError(f"File {str(path)!r} {why}")
    size = path.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise WorkloadError(
            f"{path} has {size} bytes; an ONNX file has 1 to {MAX_FILE_BYTES}, larger weights "
            "in files beside it"
        )


def read_model(path: Path, *, outline: bool = False) -> "ModelProto":
    """Return the model in `path` with its weights.

    With `outline`, weights outside that are too large to load are left out, their shapes kept as
    inputs (`outlined`). Raises WorkloadError when the file is missing, empty, truncated or not
    ONNX, has no operator, refers to weights outside its folder or claims absurd sizes.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import load_external_data_for_model

    _check_file(path)
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise WorkloadError(
            f"{path} is not a readable ONNX model, it is truncated or another format: "
            f"{_sentence(error)}"
        ) from None
    _check_text(path, model)
    if not model.graph.node:
        raise WorkloadError(f"{path} holds no operators; an ONNX model with a graph is needed")
    outside = _check_tensors(path, model)
    if outside > MAX_FILE_BYTES and not outline:
        raise WorkloadError(
            f"{path}: weights take {outside} bytes; at most {MAX_FILE_BYTES} bytes can be loaded"
        )
    if outside > MAX_FILE_BYTES:
        _outline(model)
    if outside:
        try:
            load_external_data_for_model(model, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise WorkloadError(f"{path}: weights cannot be loaded: {_sentence(error)}") from None
    return model


def _sentence(error: BaseException) -> str:
    """Return the first 200 characters of a library's message on one line."""
    return re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__


def _declared(model: "ModelProto") -> dict[str, tuple[int | None, ...]]:
    """Return the declared shape of each true input; None is a free size."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
        if value.name not in weights
    }


def _shown(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _images(path: Path) -> list[tuple[int, int]]:
    words = re.split(r"[^a-z0-9]+", path.stem.lower())
    named = [image for word, image in IMAGES_BY_NAME.items() if word in words]
    return list(dict.fromkeys([*named, *IMAGES]))


def _image_axes(shape: Sequence[int | None]) -> tuple[int, int] | None:
    """Return the height and width axes of what looks like an image, or None."""
    if len(shape) != 4:
        return None
    if shape[1] in IMAGE_CHANNELS:
        return 2, 3
    return (1, 2) if shape[3] in IMAGE_CHANNELS else None


def _with_batch(
    path: Path, name: str, shape: tuple[int | None, ...], batch: int
) -> tuple[int | None, ...]:
    if len(shape) < 2:
        return shape
    if shape[0] is None:
        return batch, *shape[1:]
    if batch not in (1, shape[0]):
        raise WorkloadError(
            f"{path}: input {name!r} has a fixed batch of {shape[0]}, so batch={batch} is not "
            "possible"
        )
    return shape


def _guesses(path: Path, name: str, shape: tuple[int | None, ...]) -> list[tuple[int, ...]]:
    """Return the shapes worth trying for an input, best first."""
    known = tuple(size for size in shape if size is not None)
    if len(known) == len(shape):
        return [known]
    axes = _image_axes(shape)
    free = [axis for axis, size in enumerate(shape) if size is None]
    if axes is None or not set(free) <= set(axes):
        raise WorkloadError(
            f"{path}: input {name!r} has free sizes ({_shown(shape)}) that cannot be guessed; "
            f"give its shape as inputs={{{name!r}: ({', '.join(_asked(shape))})}}"
        )
    found = []
    for image in _images(path):
        sizes = dict(zip(axes, image, strict=True))
        guess = tuple(sizes[a] if s is None else s for a, s in enumerate(shape))
        if all(guess[a] == sizes[a] for a in axes):
            found.append(guess)
    side = next((shape[a] for a in axes if shape[a] is not None), None)
    if side is not None:
        found.append(tuple(side if s is None else s for s in shape))
    return found


def _asked(shape: Sequence[int | None]) -> list[str]:
    return ["?" if size is None else str(size) for size in shape]


def _given(
    path: Path, name: str, declared: tuple[int | None, ...], given: Sequence[int]
) -> tuple[int, ...]:
    """Check a shape the caller gave against the declared one."""
    fits = len(given) == len(declared) and all(
        isinstance(size, int) and size > 0 and want in (None, size)
        for size, want in zip(given, declared, strict=True)
    )
    if not fits:
        raise WorkloadError(
            f"{path}: input {name!r} takes shape {_shown(declared)} with sizes of at least 1, "
            f"not {'x'.join(map(str, given))}"
        )
    if math.prod(given) > MAX_TENSOR_ELEMENTS:
        raise WorkloadError(
            f"{path}: input {name!r} of shape {tuple(given)} exceeds {MAX_TENSOR_ELEMENTS} elements"
        )
    return tuple(given)


def _candidates(
    path: Path, model: "ModelProto", inputs: Mapping[str, Sequence[int]], batch: int
) -> list[Shapes]:
    """Return complete assignments of input shapes, best first."""
    declared = _declared(model)
    for name in inputs:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise WorkloadError(f"{path} has no input {name!r}; known: {known}")
    choices = [
        [_given(path, name, shape, inputs[name])]
        if name in inputs
        else _guesses(path, name, _with_batch(path, name, shape, batch))
        for name, shape in declared.items()
    ]
    return [dict(zip(declared, shapes, strict=True)) for shapes in product(*choices)]


def _with_inputs(model: "ModelProto", shapes: Shapes) -> "ModelProto":
    """Return a copy with static inputs, weights that cannot be overridden and open outputs."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    # Before version 4 weights are inputs with a default, which nothing can fold.
    fixed.ir_version = max(fixed.ir_version, 4)
    del fixed.graph.input[:]
    for value in model.graph.input:
        if value.name in shapes:
            kept = fixed.graph.input.add()
            kept.CopyFrom(value)
            kept.type.tensor_type.shape.Clear()
            for size in shapes[value.name]:
                kept.type.tensor_type.shape.dim.add().dim_value = size
    for value in fixed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return fixed


def _infer(path: Path, model: "ModelProto") -> "GraphProto":
    """Return the graph with the shapes that follow from its inputs, large weights left out."""
    import onnx

    outline = onnx.ModelProto()
    outline.CopyFrom(model)
    for tensor in outline.graph.initializer:
        if math.prod(tensor.dims) > MAX_SHAPE_ELEMENTS:
            for payload in ("raw_data", "float_data", "double_data", "int32_data", "int64_data"):
                tensor.ClearField(payload)
    try:
        return onnx.shape_inference.infer_shapes(outline, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise WorkloadError(f"{path}: shapes cannot be inferred: {_sentence(error)}") from None


def _with_shapes(path: Path, model: "ModelProto") -> "ModelProto":
    import onnx

    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    inferred = _infer(path, model)
    for field in ("value_info", "output"):
        shaped.graph.ClearField(field)
        getattr(shaped.graph, field).extend(getattr(inferred, field))
    return shaped


def _check_folding(path: Path, model: "ModelProto") -> None:
    """Refuse constants that folding would blow up, before ONNX Runtime builds them."""
    shapes = {
        value.name: math.prod(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in _infer(path, model).value_info
    }
    constant = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if not all(name in constant for name in node.input if name):
            continue
        constant.update(node.output)
        worst = max((shapes.get(name, 0) for name in node.output), default=0)
        if worst > MAX_FOLDED_ELEMENTS:
            raise WorkloadError(
                f"{path}: operator {node.name or node.op_type!r} would build a constant of "
                f"{worst} elements; at most {MAX_FOLDED_ELEMENTS} are allowed"
            )


def _fold(path: Path, model: "ModelProto") -> "ModelProto":
    """Return the model after ONNX Runtime's basic optimisation; nothing of it is run."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4  # its warnings are about speed, its errors are raised
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(folded)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                # Equal layers with equal weights are two layers all the same.
                disabled_optimizers=["CommonSubexpressionElimination"],
                enable_fallback=0,  # a second try would print to stdout
            )
            return onnx.load_model(str(folded))
        except Exception as error:  # noqa: BLE001  ONNX Runtime's errors share no base class
            raise WorkloadError(
                f"{path}: ONNX Runtime refuses the model: {_sentence(error)}"
            ) from None


def _foreign(model: "ModelProto") -> bool:
    """Whether some operator is in no set ONNX Runtime could know."""
    import onnx

    own = {(function.domain, function.name) for function in model.functions}
    return any(
        not onnx.defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain)
        and not node.domain.startswith("com.microsoft")
        and (node.domain, node.op_type) not in own
        and node.op_type not in RUNTIME_OPERATORS
        for node in model.graph.node
    )


def _static(path: Path, model: "ModelProto", shapes: Shapes) -> "ModelProto":
    fixed = _with_inputs(model, shapes)
    if _foreign(fixed):
        # ONNX Runtime loads no model with an operator it does not know; shapes noted in the
        # file are then the only way past that operator.
        return _with_shapes(path, fixed)
    fixed.graph.ClearField("value_info")
    _check_folding(path, fixed)
    return _with_shapes(path, _fold(path, fixed))


def static_model(
    path: Path, model: "ModelProto", inputs: Mapping[str, Sequence[int]], batch: int
) -> tuple["ModelProto", Shapes]:
    """Return the constant-folded model with inferred shapes, and the input shapes assumed.

    Free sizes of an input are taken from `inputs`, else a free first axis is `batch` and a free
    image size is `IMAGES_BY_NAME` or the first of `IMAGES` that the model accepts. Raises
    WorkloadError when a size cannot be guessed, saying how to give it, and when ONNX Runtime or
    shape inference refuse the model.
    """
    free = {
        name for name, shape in _declared(model).items() if None in shape and name not in inputs
    }
    tried = _candidates(path, model, inputs, batch)
    refused = ""
    for shapes in tried:
        try:
            static = _static(path, model, shapes)
        except WorkloadError as error:
            refused = refused or str(error)
        else:
            return static, {name: shape for name, shape in shapes.items() if name in free}
    if len(tried) > 1:
        example = {name: shape for name, shape in tried[0].items() if name in free}
        refused += f"; its input sizes were guessed, give them as inputs={example}"
    raise WorkloadError(refused)
