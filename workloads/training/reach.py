"""Which tensors of a graph need a gradient: made from a trained weight, and used by the loss."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from workloads.canonical import Spec
from workloads.graph import Op, OpKind, WorkloadGraph
from workloads.training.gradients import CONSTANT_SOURCES, refuse_gradient

__all__ = ["Reach", "check_trainable", "reach_of", "trained_weight"]


def trained_weight(graph: WorkloadGraph, op: Op) -> str | None:
    """Return the weight that `op` multiplies by, None if it has none."""
    if op.gemm is None or not graph.tensors[op.inputs[1]].parameter:
        return None
    return op.inputs[1]


def _operands(op: Op) -> tuple[str, ...]:
    """Return the inputs that may get a gradient; constants behind a product's operands may not."""
    if op.kind is OpKind.RESHAPE:
        return op.inputs[:1]  # views keep further inputs for their order only
    return op.inputs[:2] if op.gemm else op.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach(Spec):
    """The loss, the activations whose gradient is computed, and how many operators add to each.

    `readers` also counts the products of every trained weight.
    """

    loss: str
    activations: frozenset[str]
    readers: Mapping[str, int] = field(default_factory=dict)

    def wanted(self, op: Op) -> tuple[int, ...]:
        """Return the inputs of `op` whose gradient is computed, as indices."""
        return tuple(i for i, name in enumerate(_operands(op)) if name in self.activations)


def check_trainable(graph: WorkloadGraph) -> None:
    """Raise ValueError, naming the operator, for a graph that is not one inference pass."""
    for op in graph.ops:
        if op.phase:
            raise ValueError(
                f"Workload {graph.name!r} is a training step already: op {op.name!r} is {op.phase}"
            )
        if op.kind is OpKind.OPAQUE:
            refuse_gradient(op)
        if op.repeat > 1:
            raise ValueError(
                f"Op {op.name!r} runs {op.repeat} times: training needs a graph in which every "
                "operator runs once, such as prefill without decode"
            )


def _depends(graph: WorkloadGraph) -> set[str]:
    """Return the tensors that depend on a trained weight."""
    found: set[str] = set()
    for op in graph.ops:
        if op.source in CONSTANT_SOURCES:
            continue
        if trained_weight(graph, op) or not found.isdisjoint(_operands(op)):
            found.add(op.output)
    return found


def reach_of(graph: WorkloadGraph) -> Reach:
    """Return what the gradient of the last operator's output reaches.

    Raises ValueError when it reaches no weight, or an operator that has no gradient.
    """
    depends = _depends(graph)
    loss = graph.ops[-1].output if graph.ops else ""
    if loss not in depends:
        raise ValueError(f"Workload {graph.name!r}: its last output depends on no weight to train")
    activations = {loss}
    readers: Counter[str] = Counter()
    for op in reversed(graph.ops):
        if op.output not in activations:
            continue
        refuse_gradient(op)
        readers.update(name for name in _operands(op) if name in depends)
        activations.update(name for name in _operands(op) if name in depends)
        if weight := trained_weight(graph, op):
            readers[weight] += 1
    return Reach(loss=loss, activations=frozenset(activations), readers=readers)
