"""Gradients of products: BP of the activations, WU of the weights, update and selection."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from workloads.graph import Gemm, Op, OpKind, Phase, TensorSpec, WindowUse
from workloads.pruning import prune
from workloads.sparsity import Dense, NofM, Sparsity
from workloads.training.method import SGD
from workloads.training.tape import VALUE_BITS, Tape

__all__ = ["STATE_BITS", "factor_gradients", "input_gradient", "pruned", "weight_gradient"]

Values = NDArray[np.float32]

STATE_BITS = 32
"""Width of master weights and momentum."""


def pruned(values: Values, sparsity: Sparsity) -> Values:
    """Return `values` with all but the largest magnitudes of each group zero."""
    if isinstance(sparsity, Dense):
        return values
    return np.where(prune(values, sparsity), values, np.float32(0))


def _turned(values: Values) -> Values:
    return np.ascontiguousarray(np.swapaxes(values, -1, -2))


def _turned_spec(spec: TensorSpec, name: str, sparsity: Sparsity) -> TensorSpec:
    *lead, k, n = spec.shape
    dims = (*spec.dims[:-2], spec.dims[-1], spec.dims[-2])
    return replace(spec, name=name, dims=dims, shape=(*lead, n, k), sparsity=sparsity)


def _product(
    op: Op,
    name: str,
    phase: Phase,
    gemm: Gemm,
    inputs: tuple[str, str],
    output: str,
    use: WindowUse,
) -> Op:
    return Op(
        name=name,
        kind=op.kind,
        inputs=inputs,
        output=output,
        gemm=gemm,
        window=op.window,
        source=op.source,
        phase=phase,
        window_use=use if op.window else WindowUse.GATHER_M,
    )


def _select(name: str, tensor: str, output: str) -> Op:
    return Op(
        name=name,
        kind=OpKind.SELECT,
        inputs=(tensor,),
        output=output,
        source="TopNofM",
        phase=Phase.SELECT,
    )


def factor_gradients(tape: Tape, op: Op, gemm: Gemm, gradient: str) -> None:
    """Append dA = dY B^T and dB = A^T dY of a product of two activations."""
    g, m, k, n = gemm.groups, gemm.m, gemm.k, gemm.n
    first, second = op.inputs[:2]
    wanted = tape.reach.wanted(op)
    for index in wanted:
        if index == 0:
            turned, inputs = Gemm(groups=g, m=m, k=n, n=k), (gradient, second)
        else:
            turned, inputs = Gemm(groups=g, m=k, k=m, n=n), (first, gradient)
        name = f"{op.name}.bp_{index}" if len(wanted) > 1 else f"{op.name}.bp"
        part = tape.part(op.inputs[index])
        made = tape.append(_product(op, name, Phase.BP, turned, inputs, part, WindowUse.SCATTER))
        tape.contribute(op.inputs[index], made)


def input_gradient(tape: Tape, op: Op, gemm: Gemm, gradient: str) -> None:
    """Append BP of a product with a weight unless nothing in front of it needs a gradient."""
    if not tape.reach.wanted(op):
        return
    g, m, k, n = gemm.groups, gemm.m, gemm.k, gemm.n
    x, weight = op.inputs[:2]
    if isinstance(tape.plans[weight].gradient, Dense):
        turned, inputs = Gemm(groups=g, m=m, k=n, n=k), (gradient, _transpose(tape, weight))
        use = WindowUse.SCATTER
    else:
        turned = Gemm(groups=g, m=k, k=n, n=m)
        inputs = (weight, _selected_gradient(tape, op, gemm, gradient))
        use = WindowUse.SCATTER_N
    part = tape.part(x)
    tape.append(_product(op, f"{op.name}.bp", Phase.BP, turned, inputs, part, use))
    tape.contribute(x, part)


def _selected_gradient(tape: Tape, op: Op, gemm: Gemm, gradient: str) -> str:
    """Append the selection of dY along n; its output is shaped (n, m), as BP reads it."""
    lead = (gemm.groups,) if gemm.groups > 1 else ()
    output = tape.add(
        TensorSpec(
            name=f"{gradient}.selected",
            dims=("g", "n", "m")[1 - len(lead) :],
            shape=(*lead, gemm.n, gemm.m),
            bits=VALUE_BITS,
            sparsity=tape.plans[op.inputs[1]].gradient,
        )
    )
    return tape.append(_select(f"{op.name}.select_bp", gradient, output))


def _transpose(tape: Tape, weight: str) -> str:
    """Return the parameter `W.T` that BP reads, added when the first product asks for it."""
    if weight not in tape.transposed:
        plan = tape.plans[weight].backward
        name = tape.add(_turned_spec(tape.tensors[weight], f"{weight}.T", plan))
        tape.transposed[weight] = name
        if weight in tape.dense:
            tape.values[name] = _transposed_values(tape, weight, plan)
    return tape.transposed[weight]


def _transposed_values(tape: Tape, weight: str, plan: Sparsity) -> Values:
    if _keeps_forward_zeros(plan):
        return _turned(tape.values[weight])
    return pruned(_turned(tape.dense[weight]), plan)


def _keeps_forward_zeros(plan: Sparsity) -> bool:
    """Whether BP reads FF's selection transposed (SR-STE) and makes none of its own."""
    return isinstance(plan, NofM) and plan.axis is not None


def weight_gradient(tape: Tape, op: Op, gemm: Gemm, gradient: str, optimizer: SGD) -> None:
    """Append WU and, behind the last product of a weight, its update and selections."""
    x, weight = op.inputs[:2]
    turned = Gemm(groups=gemm.groups, m=gemm.k, k=gemm.m, n=gemm.n)
    part = tape.part(weight)
    tape.append(
        _product(op, f"{op.name}.wu", Phase.WU, turned, (x, gradient), part, WindowUse.GATHER_K)
    )
    tape.contribute(weight, part)
    if tape.complete(weight):
        total = tape.total(weight, f"{op.name}.sum_wu", Phase.WU)
        updated = _update(tape, op, weight, total, optimizer)
        _select_weight(tape, op, weight, updated)


def _update(tape: Tape, op: Op, weight: str, gradient: str, optimizer: SGD) -> str:
    """Append the optimiser's step; master weight and momentum change in place."""
    state = replace(tape.tensors[weight], bits=STATE_BITS, sparsity=Dense())
    master = tape.add(replace(state, name=f"{weight}.master"))
    momentum = tape.add(replace(state, name=f"{weight}.momentum"))
    if weight in tape.dense:
        tape.values[master] = tape.dense[weight]
    return tape.append(
        Op(
            name=f"{op.name}.update",
            kind=OpKind.UPDATE,
            inputs=(gradient, master, momentum),
            output=tape.like(weight, ".next"),
            source=str(optimizer),
            phase=Phase.UPDATE,
        )
    )


def _select_weight(tape: Tape, op: Op, weight: str, updated: str) -> None:
    """Append the selections, from the new weight, that the next step's FF and BP read.

    Their outputs name the axis: no product of this step says which one it sums over.
    """
    plan, spec = tape.plans[weight], tape.tensors[updated]
    if isinstance(plan.forward, NofM):
        along = replace(plan.forward, axis=-2)
        output = tape.add(replace(spec, name=f"{updated}.ff", sparsity=along))
        tape.append(_select(f"{op.name}.select_ff", updated, output))
    if (
        weight in tape.transposed
        and isinstance(plan.backward, NofM)
        and not _keeps_forward_zeros(plan.backward)
    ):
        along = replace(plan.backward, axis=-2)
        output = tape.add(_turned_spec(spec, f"{updated}.bp", along))
        tape.append(_select(f"{op.name}.select_bp", updated, output))
