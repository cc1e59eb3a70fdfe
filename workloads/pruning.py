"""Magnitude pruning, and the rules by which a whole graph is made sparse."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from workloads.graph import Op, TensorSpec, WorkloadGraph
from workloads.quantize import stored
from workloads.sampling import CHUNK_ELEMENTS
from workloads.sparsity import (
    Balanced,
    Block,
    ConstantFanIn,
    Dense,
    Explicit,
    NofM,
    Positional,
    Sparsity,
    Unstructured,
    check_sparsity,
)

__all__ = ["listed", "mask_of", "nnz_of", "prune", "reduction_axis", "runs_dense", "sparsify"]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


def _largest_per_row(magnitudes: Floats, kept: int) -> Mask:
    """Return bool[rows, length] with the `kept` largest of each row, ties to the lower index."""
    rows, length = magnitudes.shape
    if kept in (0, length):
        return np.full((rows, length), kept > 0, dtype=np.bool_)
    mask = np.empty((rows, length), dtype=np.bool_)
    order = np.arange(length - 1, -1, -1, dtype=np.uint64)
    step = max(1, CHUNK_ELEMENTS // length)
    for start in range(0, rows, step):
        # The bits of a non-negative float order like the float: with the index below them every
        # key is unique, and one partition gives the exact cut.
        bits = np.ascontiguousarray(magnitudes[start : start + step]).view(np.uint32)
        keys = (bits.astype(np.uint64) << np.uint64(32)) | order
        cut = np.partition(keys, length - kept, axis=1)[:, length - kept]
        mask[start : start + step] = keys >= cut[:, None]
    return mask


def _largest_per_group(magnitudes: Floats, kept: int, group: int) -> Mask:
    rows, length = magnitudes.shape
    full, tail = divmod(length, group)
    body = magnitudes[:, : full * group].reshape(rows * full, group)
    mask = _largest_per_row(body, kept).reshape(rows, full * group)
    if not tail:
        return mask
    rest = _largest_per_row(magnitudes[:, full * group :], min(kept, tail))
    return np.concatenate([mask, rest], axis=1)


def _prune_groups(magnitudes: Floats, sparsity: NofM, axis: int) -> Mask:
    axis = axis if sparsity.axis is None else sparsity.axis
    vectors = np.moveaxis(magnitudes, axis, -1)
    rows = vectors.reshape(-1, vectors.shape[-1])
    kept = sparsity.kept_per_vector(vectors.shape[:-1])
    if isinstance(kept, int):
        mask = _largest_per_group(rows, kept, sparsity.m)
    else:
        mask = np.empty(rows.shape, dtype=np.bool_)
        for n in np.unique(kept):
            mask[kept == n] = _largest_per_group(rows[kept == n], int(n), sparsity.m)
    return np.moveaxis(mask.reshape(vectors.shape), -1, axis)


def _prune_fan_in(magnitudes: Floats, fan_in: int, axis: int) -> Mask:
    vectors = np.moveaxis(magnitudes, axis, -1)
    rows = vectors.reshape(-1, vectors.shape[-1])
    mask = _largest_per_row(rows, min(fan_in, rows.shape[1]))
    return np.moveaxis(mask.reshape(vectors.shape), -1, axis)


def _prune_blocks(magnitudes: Floats, sparsity: Block) -> Mask:
    shape = magnitudes.shape
    matrices = magnitudes.reshape(-1, *shape[-2:]).astype(np.float64)
    tall = np.add.reduceat(matrices, np.arange(0, shape[-2], sparsity.shape[0]), axis=1)
    norms = np.add.reduceat(tall, np.arange(0, shape[-1], sparsity.shape[1]), axis=2)
    kept = np.zeros(norms.shape, dtype=np.bool_)
    for down, across, count, _ in sparsity.strata(shape):
        part = norms[:, down, across]
        chosen = np.zeros(part.size, dtype=np.bool_)
        chosen[np.argsort(-part.ravel(), kind="stable")[:count]] = True
        kept[:, down, across] = chosen.reshape(part.shape)
    return sparsity.expand(kept, shape)


def prune(values: NDArray[np.floating], sparsity: Sparsity, axis: int = -2) -> Mask:
    """Return the mask of `sparsity` that keeps the largest magnitudes, bool of `values`' shape.

    Magnitudes compare as float32 and ties keep the lower index. Blocks rank by L1 norm within
    their class (interior, right edge, bottom edge, corner), so a mask has exactly
    `sparsity.nnz(values.shape, axis=axis)` True. Positional and explicit structures do not look
    at magnitudes. Raises ValueError when a value is not finite or the structure does not fit.
    """
    magnitudes = np.abs(np.asarray(values, dtype=np.float32))
    if not np.isfinite(magnitudes).all():
        raise ValueError("Only finite values can be pruned by magnitude")
    match sparsity:
        case Dense():
            return np.ones(magnitudes.shape, dtype=np.bool_)
        case NofM():
            mask = _prune_groups(magnitudes, sparsity, axis)
        case Balanced():
            mask = _prune_groups(magnitudes, sparsity.as_nofm, axis)
        case Unstructured():
            row = magnitudes.reshape(1, -1)
            mask = _largest_per_row(row, sparsity.nnz(magnitudes.shape)).reshape(magnitudes.shape)
        case Block():
            mask = _prune_blocks(magnitudes, sparsity)
        case ConstantFanIn():
            mask = _prune_fan_in(magnitudes, sparsity.k, axis)
        case Positional() | Explicit():
            return sparsity.sample(magnitudes.shape, np.random.default_rng(0), axis=axis)
        case _:
            assert_never(sparsity)
    return np.ascontiguousarray(mask)


def runs_dense(sparsity: Sparsity, shape: tuple[int, ...], axis: int = -2) -> bool:
    """Whether a tensor stays dense because its reduction is shorter than one group or bank."""
    match sparsity:
        case NofM(m=group):
            axis = axis if sparsity.axis is None else sparsity.axis
        case Balanced(bank=group):
            pass
        case _:
            return False
    return -len(shape) <= axis < len(shape) and shape[axis] < group


def listed(names: Iterable[str]) -> str:
    """Name up to three operators and count the rest."""
    all_names = list(names)
    more = len(all_names) - 3
    return ", ".join(all_names[:3]) + (f" and {more} more" if more > 0 else "")


def _notes(sparsity: Sparsity, first: list[Op], short: list[Op], products: list[Op]) -> list[str]:
    reasons = (
        (first, "the first layer stays dense unless asked otherwise"),
        (short, f"the reduction is shorter than one group of {sparsity}"),
        (products, "both operands are activations"),
    )
    return [
        f"Dense in spite of {sparsity}, since {why}: {listed(op.name for op in ops)}"
        for ops, why in reasons
        if ops
    ]


def _sparse_spec(spec: TensorSpec, sparsity: Sparsity) -> TensorSpec:
    try:
        sparsity.nnz(spec.shape)  # closed form: the structure itself says whether it fits
    except ValueError as error:
        raise ValueError(f"Weight {spec.name!r}: {error}") from None
    return replace(spec, sparsity=sparsity)


def sparsify(
    graph: WorkloadGraph, sparsity: Sparsity, *, first_layer: bool = False
) -> WorkloadGraph:
    """Return `graph` with `sparsity` on the weights of its GEMM-like operators.

    Known values are pruned by magnitude and stay float32. Three kinds of operator stay dense,
    each with a sentence in the notes: the first one with a weight unless `first_layer`, those
    whose reduction is shorter than one group or bank, and products of two activations. Operators
    that lose every weight are noted as well. Raises ValueError when the structure does not fit a
    weight, naming it, and for what is no sparsity.
    """
    check_sparsity(sparsity)
    if isinstance(sparsity, Dense):
        return graph
    weighted = [op for op in graph.gemm_ops if graph.tensors[op.inputs[1]].parameter]
    products = [op for op in graph.gemm_ops if not graph.tensors[op.inputs[1]].parameter]
    spared = set() if first_layer else {op.inputs[1] for op in weighted[:1]}
    first = [op for op in weighted if op.inputs[1] in spared]
    rest = [op for op in weighted if op.inputs[1] not in spared]
    short = [op for op in rest if runs_dense(sparsity, graph.tensors[op.inputs[1]].shape)]
    dense = spared | {op.inputs[1] for op in short}
    chosen = dict.fromkeys(op.inputs[1] for op in weighted if op.inputs[1] not in dense)
    specs = {name: _sparse_spec(graph.tensors[name], sparsity) for name in chosen}
    empty = {name for name, spec in specs.items() if not sparsity.nnz(spec.shape)}
    none_left = listed(op.name for op in rest if op.inputs[1] in empty)
    pruned = {
        name: np.where(prune(graph.values[name], sparsity), graph.values[name], np.float32(0))
        for name in chosen
        if name in graph.values
    }
    return replace(
        graph,
        tensors={**graph.tensors, **specs},
        values={**graph.values, **pruned},
        notes=(
            *graph.notes,
            *_notes(sparsity, first, short, products),
            *([f"No weight is left under {sparsity}: {none_left}"] if empty else []),
        ),
    )


def reduction_axis(graph: WorkloadGraph, tensor: str) -> int:
    """Return the axis of `tensor` that its product sums over: -2 for second operands, else -1."""
    second = any(op.inputs[1] == tensor for op in graph.gemm_ops)
    return -2 if second else -1


def _spec(graph: WorkloadGraph, tensor: str) -> TensorSpec:
    if tensor not in graph.tensors:
        raise ValueError(f"Workload {graph.name!r} has no tensor {tensor!r}")
    return graph.tensors[tensor]


def mask_of(graph: WorkloadGraph, tensor: str, *, seed: int = 0, bits: int = 8) -> Mask:
    """Return where `tensor` is non-zero, bool of its shape.

    Known values are non-zero when they are as operands of `bits` (`quantize.stored`); otherwise
    the tensor's sparsity is sampled from a generator derived from `seed` and the tensor's name
    alone, so that masks do not depend on the order in which they are drawn.
    `mask_of(...).sum() == nnz_of(...)` always.
    """
    spec = _spec(graph, tensor)
    if tensor in graph.values:
        return np.asarray(stored(graph.values[tensor], bits) != 0)
    key = int.from_bytes(hashlib.sha256(tensor.encode()).digest()[:8])
    rng = np.random.default_rng(np.random.SeedSequence([seed, key]))
    return spec.sparsity.sample(spec.shape, rng, axis=reduction_axis(graph, tensor))


def nnz_of(graph: WorkloadGraph, tensor: str, *, bits: int = 8) -> int:
    """Return the non-zeros of `tensor` as operands of `bits`; shape alone draws no mask."""
    spec = _spec(graph, tensor)
    if tensor in graph.values:
        return int(np.count_nonzero(stored(graph.values[tensor], bits)))
    return spec.sparsity.nnz(spec.shape, axis=reduction_axis(graph, tensor))
