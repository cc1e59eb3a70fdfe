"""The operators, shapes and constants of a static ONNX model in plain terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Node", "Shape", "read_constants", "read_facts", "read_nodes"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One ONNX operator in plain terms."""

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


def read_nodes(model: "ModelProto") -> list[Node]:
    """Return the operators, each with a name of its own."""
    from onnx.helper import get_attribute_value

    seen: dict[str, int] = {}
    found = []
    for i, node in enumerate(model.graph.node):
        name = node.name or f"{node.op_type}_{i}"
        seen[name] = seen.get(name, -1) + 1
        foreign = node.domain not in ("", "ai.onnx", "com.microsoft")
        found.append(
            Node(
                name=f"{name}#{seen[name]}" if seen[name] else name,
                type=f"{node.domain}::{node.op_type}" if foreign else node.op_type,
                inputs=tuple(node.input),
                outputs=tuple(name for name in node.output if name),
                attributes={a.name: get_attribute_value(a) for a in node.attribute},
            )
        )
    return found


def _bits(element: int) -> int:
    """Return the width a tensor has on the machine: int8 for real numbers, else its own."""
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        dtype = np.dtype(tensor_dtype_to_np_dtype(element))
    except (KeyError, TypeError, ValueError):
        return 8
    return dtype.itemsize * 8 if dtype.kind in "iu" else 8


def read_facts(model: "ModelProto") -> tuple[dict[str, Shape], dict[str, int]]:
    """Return the shape and width of every tensor whose shape is fully known."""
    shapes: dict[str, Shape] = {}
    bits: dict[str, int] = {}
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") or any(d.dim_value < 1 for d in tensor.shape.dim):
            continue
        shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
        bits[value.name] = _bits(tensor.elem_type)
    return shapes, bits


def read_constants(path: Path, model: "ModelProto") -> dict[str, NDArray[Any]]:
    from onnx.numpy_helper import to_array

    found = {}
    for tensor in model.graph.initializer:
        try:
            found[tensor.name] = to_array(tensor)
        except (LookupError, TypeError, ValueError) as error:
            raise WorkloadError(
                f"{path}: weight {tensor.name!r} of data type {tensor.data_type} and shape "
                f"{tuple(tensor.dims)} cannot be read: {error}"
            ) from None
    return found
