"""Pure passes from WorkloadGraph to WorkloadGraph."""

import heapq
from collections.abc import Mapping
from dataclasses import replace

from workloads.graph import Op, OpKind, WorkloadGraph

__all__ = ["fuse_post", "union"]

Readers = dict[str, list[int]]


def _readers(graph: WorkloadGraph) -> Readers:
    """Return the indices of the operators that read each tensor."""
    found: Readers = {}
    for index, op in enumerate(graph.ops):
        for name in dict.fromkeys(op.inputs):
            found.setdefault(name, []).append(index)
    return found


def _follows(graph: WorkloadGraph, op: Op, first: Op, region: dict[str, int]) -> bool:
    """Whether `op` works element by element on tensors of `region` and constants alone."""
    if op.kind is not OpKind.ELEMENTWISE or op.repeat != first.repeat:
        return False
    if graph.tensors[op.output].size != graph.tensors[first.output].size:
        return False
    return all(name in region for name in op.inputs if not graph.tensors[name].parameter)


def _fusible(graph: WorkloadGraph, first: Op, readers: Readers) -> list[int]:
    """Return the longest run of element-wise operators behind `first` that has a single exit.

    A run may branch and join again, as y * sigmoid(y) does; it is whole when every tensor in it
    but the last is read inside it only.
    """
    waiting = list(readers.get(first.output, ()))
    region = {first.output: len(waiting)}  # tensor -> readers not in the run yet
    heapq.heapify(waiting)
    taken: list[int] = []
    best = 0
    while waiting:
        index = heapq.heappop(waiting)
        if taken and index == taken[-1]:
            continue
        op = graph.ops[index]
        if not _follows(graph, op, first, region):
            break
        taken.append(index)
        for name in set(op.inputs) & region.keys():
            region[name] -= 1
        if not any(region.values()):
            best = len(taken)
        region[op.output] = len(readers.get(op.output, ()))
        for reader in readers.get(op.output, ()):
            heapq.heappush(waiting, reader)
    return taken[:best]


def fuse_post(graph: WorkloadGraph) -> WorkloadGraph:
    """Move element-wise work that only follows a product into that product's `post`.

    A run of element-wise operators fuses when it starts from one product's output, keeps its
    size, uses nothing else but constants and leaves a single result: ReLU, bias and scale, and
    activations that the source spells out, such as y * clip(y + 3, 0, 6) / 6. The product then
    yields the run's result and reads its constants after its own operands; MACs do not change.
    """
    readers = _readers(graph)
    fused: set[int] = set()
    ops: list[Op] = []
    gone: set[str] = set()
    for index, op in enumerate(graph.ops):
        if index in fused:
            continue
        run = _fusible(graph, op, readers) if op.gemm is not None else []
        behind = [graph.ops[i] for i in run]
        if behind:
            inside = {op.output, *(other.output for other in behind)}
            gone |= inside - {behind[-1].output}
            constants = [name for other in behind for name in other.inputs if name not in inside]
            op = replace(
                op,
                inputs=(*op.inputs, *dict.fromkeys(constants)),
                output=behind[-1].output,
                post=(*op.post, *(part for o in behind for part in (o.source, *o.post))),
            )
            fused.update(run)
        ops.append(op)
    tensors = {name: spec for name, spec in graph.tensors.items() if name not in gone}
    return replace(graph, ops=tuple(ops), tensors=tensors)


def union(graphs: Mapping[str, WorkloadGraph], name: str) -> WorkloadGraph:
    """Return `graphs` as one workload that runs them one after the other.

    Operators and tensors of the graph under key `x` are called `x/...`; values and notes stay
    behind, for what is mapped together is compared by shape.
    """
    ops: list[Op] = []
    tensors = {}
    for key, graph in graphs.items():
        renamed = {old: f"{key}/{old}" for old in graph.tensors}
        for old, spec in graph.tensors.items():
            tensors[renamed[old]] = replace(spec, name=renamed[old])
        for op in graph.ops:
            inputs = tuple(renamed[tensor] for tensor in op.inputs)
            label = f"{key}/{op.name}"
            ops.append(replace(op, name=label, inputs=inputs, output=renamed[op.output]))
    return WorkloadGraph(name=name, ops=tuple(ops), tensors=tensors)
