"""ONNX decoders: an exported LLM as the phases that the zoo's decoders have, for any lengths.

The graph is read at the length it was exported with, or a short one where that is free; what is
recognised in it is the decoder's shape and the matrix of every projection. Products and weights
are then counted on both sides: what the file multiplies is what the recognised decoder does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError
from workloads.frontends.decoder_terms import (
    Projection,
    Recognised,
    Unrecognised,
    recognise,
)
from workloads.frontends.onnx_file import outlined, read_model, static_model
from workloads.frontends.onnx_nodes import read_constants, read_facts, read_nodes
from workloads.frontends.onnx_recording import runtime_shapes
from workloads.frontends.onnx_weights import is_outline, outline, plain_weights
from workloads.graph import WorkloadGraph
from workloads.zoo.decoder import DecoderShape, decoder_graph

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["load_onnx_decoder"]

TOKENS: Final = 8
CACHED: Final = 16
"""Tokens, and keys and values before them, at which a graph of free lengths is read."""


def _free(symbol: str, axis: int) -> int:
    """Return the size at which a free axis is read, from its name if it has one."""
    if "+" in symbol:
        return sum(_free(part, axis) for part in symbol.split("+"))
    words = re.findall(r"batch|total|past|cache", symbol.lower())
    if "batch" in words or (not symbol.strip() and axis == 0):
        return 1
    if "total" in words:
        return CACHED + TOKENS
    return CACHED if words else TOKENS


def _inputs(model: "ModelProto") -> dict[str, tuple[int, ...]]:
    """Return a shape for every input with free axes."""
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and any(dim.dim_value < 1 for dim in dims):
            shapes[value.name] = tuple(
                dim.dim_value if dim.dim_value > 0 else _free(dim.dim_param, axis)
                for axis, dim in enumerate(dims)
            )
    return shapes


def load_onnx_decoder(
    path: str | Path,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    prefill: int | None = None,
    decode: int | None = None,
    batch: int = 1,
) -> WorkloadGraph:
    """Return prefill and decode of the LLM in the ONNX file `path`, its weights as values.

    `inputs` gives shapes of inputs by name to read the graph at; the lengths that run are
    `prefill` and `decode`. Raises WorkloadError, with one sentence, for what `load_onnx` refuses,
    for an operator that is no part of a known decoder, and if products or weights of the graph
    are not those of the decoder recognised in it.
    """
    path = Path(path)
    model = read_model(path, outline=True)
    left_out = {name: outline(size) for name, size in outlined(model).items()}
    static, _ = static_model(path, model, {**_inputs(model), **(inputs or {})}, 1)
    sources, (shapes, _) = read_nodes(static), read_facts(static)
    unknown = [name for node in sources for name in node.outputs if name not in shapes]
    shapes |= runtime_shapes(path, static, unknown) if unknown else {}
    try:
        nodes, constants = plain_weights(sources, read_constants(path, static) | left_out)
        found = recognise(nodes, shapes, constants)
        shape = _shape(path.stem, found)
        _check_counts(found, shape)
    except Unrecognised as error:
        raise WorkloadError(f"{path}: {error}") from None
    graph = decoder_graph(shape, prefill=prefill, decode=decode, batch=batch)
    values = {
        name: _matrix(constants, made)
        for name, made in _projections(found, shape)
        if not is_outline(constants[made.weight])
    }
    notes = [*graph.notes, _note(found, shape)]
    if any(is_outline(constants[name]) for name in found.weights):
        notes.append("Weights too large to load are taken as dense, whatever zeros they have")
    return replace(graph, values=values, notes=tuple(notes))


def _shape(name: str, found: Recognised) -> DecoderShape:
    """Return the shape that all layers have."""
    shapes = []
    for layer in found.layers:
        context = layer.context
        if layer.norms[0] != layer.norms[1]:
            raise Unrecognised(f"a layer has norms of two kinds, {' and '.join(layer.norms)}")
        shapes.append(
            DecoderShape(
                name=name,
                layers=len(found.layers),
                width=context.q.k,
                heads=context.heads,
                kv_heads=context.kv_heads,
                head_size=context.size,
                hidden=layer.up.n,
                vocabulary=found.head.n,
                norm=layer.norms[0],
                activation=layer.activation,
                gated=layer.gate is not None,
                rotary=context.rotary,
            )
        )
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise Unrecognised(f"layer {number} differs in shape from layer 0")
    return shapes[0]


def _projections(found: Recognised, shape: DecoderShape) -> Iterator[tuple[str, Projection]]:
    """Yield every projection with the name its weight has in the phases."""
    names = shape.names
    for number, layer in enumerate(found.layers):
        stem, context = f"{names.stem}.{number}", layer.context
        for part, made in (("q", context.q), ("k", context.k), ("v", context.v)):
            yield f"{stem}.self_attn.{part}_proj.weight", made
        yield f"{stem}.self_attn.{names.output}.weight", layer.output
        if layer.gate is None:
            yield f"{stem}.fc1.weight", layer.up
            yield f"{stem}.fc2.weight", layer.down
        else:
            yield f"{stem}.mlp.gate_proj.weight", layer.gate
            yield f"{stem}.mlp.up_proj.weight", layer.up
            yield f"{stem}.mlp.down_proj.weight", layer.down
    yield "lm_head.weight", found.head


def _check_counts(found: Recognised, shape: DecoderShape) -> None:
    """Raise Unrecognised if the graph multiplies or stores what the decoder does not."""
    graph = decoder_graph(shape, prefill=found.tokens, batch=found.batch)
    cached = 2 * shape.heads * shape.head_size * found.tokens * found.cached * found.batch
    more_words = (found.head_rows - found.batch) * shape.width * shape.vocabulary
    macs = graph.macs + shape.layers * cached + more_words
    weights = sum(spec.size for spec in graph.tensors.values() if spec.parameter)
    for what, in_file, in_shape in (
        ("products take {} multiply-accumulates", found.macs, macs),
        ("matrices hold {} weights", sum(found.weights.values()), weights),
    ):
        if in_file != in_shape:
            raise Unrecognised(
                f"its {what.format(in_file)}, but those of the decoder recognised in it {in_shape}"
            )


def _matrix(constants: Mapping[str, NDArray[Any]], made: Projection) -> NDArray[np.float32]:
    weight = constants[made.weight]
    columns = (weight.T if made.turned else weight)[:, made.start : made.stop]
    return np.ascontiguousarray(columns, dtype=np.float32)


def _note(found: Recognised, shape: DecoderShape) -> str:
    gate = "gated " if shape.gated else ""
    return (
        f"Decoder recognised in the ONNX graph, read at {found.tokens} tokens: {shape.layers} "
        f"layers of width {shape.width}, {shape.heads} heads of {shape.head_size} on "
        f"{shape.kv_heads} of keys, {gate}{shape.activation} of {shape.hidden}, {shape.norm}, "
        f"vocabulary {shape.vocabulary}"
    )
