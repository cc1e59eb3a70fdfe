"""One training step: forward, backward, update and selection in execution order.

Every operator of the inference graph becomes `<name>.ff`. The loss follows, then the backward in
reverse order: for a product `act (m, k) x weight (k, n)` with output Y

    <name>.bp   dX[m, k] = dY[m, n] W^T[n, k]     inputs (dY, `W.T`), a convolution scatters
    <name>.wu   dW[k, n] = X^T[k, m] dY[m, n]     inputs (X, dY), a convolution gathers along m

and then `<name>.update` of the weight and `<name>.select_ff` / `.select_bp` of what the next
step reads compressed. Operands keep the layout of their tensor; X^T and, in products of two
activations, the transposed factor are strided reads. `W.T` is a parameter of shape ([g,] n, k).
SDGP instead computes dX^T[k, m] = W[k, n] dY^T[n, m] with inputs (W, selected dY): there the
gradient, made by `<name>.select_bp`, is the compressed second operand, and a convolution scatters
columns of the product, not rows. A product of two activations has `.bp_0` and `.bp_1`, one for
each operand, as has every operator with several operands that need a gradient.

Gradients are named `<tensor>.grad`. A tensor that several operators read gets one part from each
and `<name>.sum_bp`, behind its producer's name, adds them; the gradient of a sum is the same
tensor for every operand. The gradient of fused work (`Op.post`) is fused in turn, as an entry such
as "Relu.grad", into the operator that makes the gradient, which then also reads the saved output;
`<tensor>.grad` is in that case the gradient in front of the fused work. When that operator is a
mere view or move, or somebody else needs the gradient as it is, `<name>.post_bp` does the work.
"""

from collections.abc import Iterable
from dataclasses import replace

from workloads.graph import Op, OpKind, Phase, TensorSpec, WorkloadGraph
from workloads.pruning import listed, sparsify
from workloads.sparsity import Dense, Sparsity
from workloads.training.gradients import SUMS, save_inputs, stays_fused, vector_gradient
from workloads.training.method import SGD, Method, WeightPlan, weight_plan
from workloads.training.products import (
    factor_gradients,
    input_gradient,
    pruned,
    weight_gradient,
)
from workloads.training.reach import Reach, check_trainable, reach_of, trained_weight
from workloads.training.tape import VALUE_BITS, Tape

__all__ = ["training"]

LOSS_PASSES = 3
"""Maximum, sum of exponentials, probabilities less labels."""


def _sparse_weights(graph: WorkloadGraph) -> list[str]:
    weights = (trained_weight(graph, op) for op in graph.gemm_ops)
    named = dict.fromkeys(name for name in weights if name)
    return [name for name in named if not isinstance(graph.tensors[name].sparsity, Dense)]


def _structured(
    graph: WorkloadGraph, method: Method, sparsity: Sparsity | None, first_layer: bool
) -> WorkloadGraph:
    """Return `graph` with the structure of FF on its weights; values may still be dense."""
    sparse = _sparse_weights(graph)
    if sparse and sparsity is not None:
        raise ValueError(
            f"Workload {graph.name!r} is sparse already (weight {sparse[0]!r} is "
            f"{graph.tensors[sparse[0]].sparsity}): give training no sparsity of its own"
        )
    lost = [name for name in sparse if name in graph.values]
    if lost:
        raise ValueError(
            f"Weight {lost[0]!r} holds values pruned to {graph.tensors[lost[0]].sparsity}, but "
            "training starts from dense ones: call training(..., sparsity=...) without sparsify"
        )
    if sparsity is None or method is Method.DENSE:
        return graph
    # Only structure and notes are wanted here; pruning the values is the plan's business.
    return sparsify(replace(graph, values={}), sparsity, first_layer=first_layer)


def _plans(graph: WorkloadGraph, method: Method) -> dict[str, WeightPlan]:
    plans = {}
    for op in graph.gemm_ops:
        weight = trained_weight(graph, op)
        if weight and weight not in plans:
            spec = graph.tensors[weight]
            plans[weight] = weight_plan(method, weight, spec.sparsity, spec.shape)
    return plans


def _start(graph: WorkloadGraph, plans: dict[str, WeightPlan], dense: WorkloadGraph) -> Tape:
    """Return a tape with the forward pass on it, weights as FF reads them."""
    # Real numbers are 8 bits wide in an inference graph; indices and biases are wider already.
    tensors = {n: replace(s, bits=max(s.bits, VALUE_BITS)) for n, s in graph.tensors.items()}
    values = dict(dense.values)
    for name, plan in plans.items():
        tensors[name] = replace(tensors[name], sparsity=plan.forward)
        if name in values:
            values[name] = pruned(values[name], plan.forward)
    tape = Tape(
        reach=reach_of(graph), plans=plans, dense=dense.values, tensors=tensors, values=values
    )
    for op in graph.ops:
        tape.append(replace(op, name=f"{op.name}.ff", phase=Phase.FF))
    return tape


def _loss(tape: Tape, logits: str) -> None:
    """Append softmax cross-entropy, which yields the gradient of `logits`."""
    spec = tape.tensors[logits]
    labels = TensorSpec(
        name="labels", dims=spec.dims[:-1] or ("b",), shape=spec.shape[:-1] or (1,), bits=32
    )
    op = Op(
        name="loss",
        kind=OpKind.SOFTMAX,
        inputs=(logits, tape.add(labels)),
        output=tape.like(logits, ".grad"),
        passes=LOSS_PASSES,
        source="SoftmaxCrossEntropy",
        phase=Phase.BP,
    )
    tape.contribute(logits, tape.append(op))


def _through_post(tape: Tape, op: Op, gradient: str) -> str:
    """Return the gradient in front of the operator's fused work."""
    entries = tuple(f"{source}.grad" for source in reversed(op.post) if source not in SUMS)
    if not entries or tape.fuse(gradient, op.output, entries):
        return gradient
    return tape.append(
        Op(
            name=f"{op.name}.post_bp",
            kind=OpKind.ELEMENTWISE,
            inputs=(gradient, op.output),
            output=tape.like(op.output, ".pre.grad"),
            source=entries[0],
            post=entries[1:],
            phase=Phase.BP,
        )
    )


def _vector_gradients(tape: Tape, op: Op, gradient: str) -> None:
    wanted = tape.reach.wanted(op)
    for index in wanted:
        rule = vector_gradient(op, index, tape.tensors)
        if rule is None:
            tape.contribute(op.inputs[index], gradient)
            continue
        made = Op(
            name=f"{op.name}.bp_{index}" if len(wanted) > 1 else f"{op.name}.bp",
            kind=rule.kind,
            inputs=tuple(dict.fromkeys((gradient, *rule.saved))),
            output=tape.part(op.inputs[index]),
            post=rule.post,
            passes=rule.passes,
            source=rule.source,
            phase=Phase.BP,
        )
        tape.contribute(op.inputs[index], tape.append(made))


def _backward(tape: Tape, op: Op, optimizer: SGD) -> None:
    """Append everything that follows from the gradient of one operator's output."""
    gradient = tape.total(op.output, f"{op.name}.sum_bp", Phase.BP)
    if stays_fused(op):
        gradient = _through_post(tape, op, gradient)
        op = replace(op, post=())
    if op.gemm is None:
        _vector_gradients(tape, op, gradient)
    elif tape.tensors[op.inputs[1]].parameter:
        input_gradient(tape, op, op.gemm, gradient)
        weight_gradient(tape, op, op.gemm, gradient, optimizer)
    else:
        factor_gradients(tape, op, op.gemm, gradient)


def _kept_constant(graph: WorkloadGraph, plans: Iterable[str]) -> list[str]:
    read = dict.fromkeys(name for op in graph.ops for name in op.inputs)
    return [n for n in read if graph.tensors[n].parameter and n not in set(plans)]


def _notes(
    graph: WorkloadGraph, method: Method, optimizer: SGD, plans: dict[str, WeightPlan], reach: Reach
) -> list[str]:
    weighted = [(op, plans[w]) for op in graph.gemm_ops if (w := trained_weight(graph, op))]
    back = [op.name for op, _ in weighted if op.output in reach.activations and reach.wanted(op)]
    first = [op.name for op, _ in weighted if op.output in reach.activations]
    short = [op.name for op, plan in weighted if plan.short and op.name in back]
    reasons = (
        (short, "BP runs dense, since a group is longer than the output features"),
        ([n for n in first if n not in back], "No BP, since nothing in front needs a gradient"),
        (
            [op.name for op, _ in weighted if op.output not in reach.activations],
            "Not trained, since the last output does not depend on them",
        ),
        (_kept_constant(graph, plans), "Biases and other constants keep their values"),
    )
    step = f"One training step, method {method}, {optimizer}, loss on {reach.loss!r}"
    return [step, *(f"{why}: {listed(names)}" for names, why in reasons if names)]


def _unused(method: Method, sparsity: Sparsity | None, plans: dict[str, WeightPlan]) -> list[str]:
    """Say so where the method and the sparsity asked for do not go together."""
    if method is Method.DENSE:
        asked = None if sparsity is None or isinstance(sparsity, Dense) else sparsity
        return [f"Dense in spite of {asked}, since method dense prunes nothing"] if asked else []
    if all(plan == WeightPlan() for plan in plans.values()):
        return [f"No weight is sparse, so method {method} trains as method dense does"]
    return []


def training(
    graph: WorkloadGraph,
    method: Method | str,
    *,
    sparsity: Sparsity | None = None,
    first_layer: bool = False,
    optimizer: SGD | None = None,
) -> WorkloadGraph:
    """Return one training step of an inference graph; the module describes its operators.

    N:M comes from the weights of a graph sparsified before, or is `sparsity`, put on by the rules
    of `sparsify`. A graph with values needs the second form, with its dense values: both masks
    of BDWP are drawn from them by magnitude. Weights that are dense in FF are dense in every
    pass, and method dense drops all structure. Loss is the softmax cross-entropy of the last
    output with a new input, `labels`. Weights of products are trained, other constants kept;
    notes say so, and which operators have no BP or a dense one.

    Activations, gradients and weights are 16 bits wide, master weights and momentum 32; an update
    reads (gradient, master, momentum), yields the 16-bit weight `W.next` and changes the other
    two in place. Drawn masks of a weight and its SR-STE transpose have equal structure and
    density; known values are exact transposes.

    Raises ValueError for an unknown method; a weight that is not N:M; values already pruned;
    operators that run several times, or have no gradient, named with the pass; and a last output
    that depends on no weight.

    >>> from workloads.zoo import build
    >>> step = build("resnet9", batch=2).training("dense")
    >>> [op.name for op in step.ops][-2:]
    ['conv1.wu', 'conv1.update']
    """
    method, optimizer = Method(method), optimizer or SGD()
    check_trainable(graph)
    whole = _structured(graph, method, sparsity, first_layer)
    reach_of(whole)  # refuses by the operators' own names, before fused work becomes some
    structured = save_inputs(whole)
    plans = _plans(structured, method)
    tape = _start(structured, plans, graph)
    _loss(tape, tape.reach.loss)
    for op in reversed(structured.ops):
        if op.output in tape.reach.activations:
            _backward(tape, op, optimizer)
    notes = [
        *_notes(structured, method, optimizer, plans, tape.reach),
        *_unused(method, sparsity, plans),
    ]
    return WorkloadGraph(
        name=graph.name,
        ops=tuple(tape.ops),
        tensors=tape.tensors,
        values=tape.values,
        notes=(*structured.notes, *notes),
    )
