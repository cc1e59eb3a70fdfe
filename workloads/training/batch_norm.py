"""Batch norms as networks train with them: inference graphs hold them folded into their weights."""

from dataclasses import replace

from workloads.graph import Op, OpKind, WorkloadGraph
from workloads.training.gradients import BATCH_STATISTICS, fresh

__all__ = ["unfold_batch_norms"]


def unfold_batch_norms(graph: WorkloadGraph) -> WorkloadGraph:
    """Return `graph` with a batch norm behind every convolution, in front of its fused work.

    A norm takes one pass for the statistics and one to apply them, as the layer norms of the zoo.
    Scale and shift, two values a channel, are left out. Convolution `x` then yields the tensor
    `<output>.raw`, and operator `x.norm` the output.
    """
    names = dict.fromkeys(op.name for op in graph.ops)
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        if op.window is None:
            ops.append(op)
            continue
        raw = fresh(f"{op.output}.raw", tensors)
        tensors[raw] = replace(tensors[op.output], name=raw)
        norm = Op(
            name=fresh(f"{op.name}.norm", names),
            kind=OpKind.NORM,
            inputs=(raw,),
            output=op.output,
            source=BATCH_STATISTICS,
            passes=2,
            post=op.post,
            repeat=op.repeat,
        )
        names[norm.name] = None
        ops += [replace(op, output=raw, post=()), norm]
    count = len(ops) - len(graph.ops)
    note = (
        f"Trains with batch norms behind {count} convolutions; their scale and shift are left out"
    )
    return replace(graph, ops=tuple(ops), tensors=tensors, notes=(*graph.notes, note))
