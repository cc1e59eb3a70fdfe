"""Weights that an ONNX decoder keeps in another form: views, packed integers, or only a shape."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.frontends.decoder_terms import MALFORMED, Unrecognised
from workloads.frontends.onnx_nodes import Node

__all__ = ["is_outline", "outline", "plain_weights", "unpack"]

Constants = Mapping[str, NDArray[Any]]


def outline(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return what stands for a weight of which only the shape is known; it takes no memory."""
    return np.broadcast_to(np.float32(1), shape)


def is_outline(weight: NDArray[Any]) -> bool:
    """Whether only the shape of a weight is known."""
    return 0 in weight.strides


def plain_weights(nodes: Sequence[Node], constants: Constants) -> tuple[list[Node], Constants]:
    """Return operators and constants with every weight a matrix of numbers.

    A cast or transpose of a constant is a constant. MatMulNBits becomes a Gemm by the transpose
    of what its integers stand for, if they are constant and whole. Raises Unrecognised for
    integers that are neither 4 nor 8 bits wide.
    """
    known = dict(constants)
    plain = []
    for node in nodes:
        weight = known.get(node.inputs[0]) if node.inputs else None
        if node.type == "Cast" and weight is not None:
            known[node.outputs[0]] = weight
        if node.type == "Transpose" and weight is not None and weight.ndim == 2:
            known[node.outputs[0]] = weight.T
        plain.append(_plain_product(node, known) if node.type == "MatMulNBits" else node)
    return plain, known


def _plain_product(node: Node, known: dict[str, NDArray[Any]]) -> Node:
    try:
        known[node.inputs[1]] = unpack(node, known)
    except MALFORMED:
        return node  # is named where it is read
    return replace(node, type="Gemm", inputs=node.inputs[:2], attributes={"transB": 1})


def unpack(node: Node, constants: Constants) -> NDArray[np.float32]:
    """Return the (n, k) weight of a MatMulNBits: (integer - zero point) * scale of its block."""
    n, k, bits = (node.attributes[name] for name in ("N", "K", "bits"))
    if bits not in (4, 8):
        raise Unrecognised(f"operator {node.name!r} has weights of {bits} bits, not 4 or 8")
    if is_outline(constants[node.inputs[1]]):
        return outline((n, k))
    packed, scales = (constants[name] for name in node.inputs[1:3])
    codes = _integers(packed, bits).reshape(n, -1)
    blocks = scales.size // n
    zeros: NDArray[Any] = np.full((n, blocks), 1 << bits - 1, dtype=np.uint8)
    if len(node.inputs) > 3 and node.inputs[3]:
        given = constants[node.inputs[3]]
        given = _integers(given, bits) if given.dtype == np.uint8 else given
        zeros = given.reshape(n, -1)[:, :blocks]
    shape = (n, blocks, node.attributes["block_size"])
    signed = codes.reshape(shape).astype(np.float32) - zeros[..., None].astype(np.float32)
    weight = signed * scales.reshape(n, blocks, 1).astype(np.float32)
    return np.asarray(weight.reshape(n, -1)[:, :k])


def _integers(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return bytes as integers of `bits`, the low half of a byte first."""
    flat = packed.astype(np.uint8, copy=False).reshape(len(packed), -1)
    if bits == 8:
        return flat
    return np.stack([flat & 15, flat >> 4], axis=-1).reshape(len(flat), -1)
