"""What follows a weight's gradient: the update on WUVE and the N:M selections on SORE.

With pre-generation, updated weights stream through SORE on their way to memory: the update
writes what the next step reads compressed, and dense fp16 weights only if some pass reads them.
Without it, the update writes dense weights and every load of a sparse pass selects again.
"""

from mapping.stream import Stream
from simulator.arch import NMArray, TrainingUnits
from simulator.schedule import Unit
from workloads.graph import Op, OpKind, TensorSpec, WorkloadGraph
from workloads.sparsity import NofM

__all__ = ["check_trainer", "select_stream", "update_stream"]


def check_trainer(graph: WorkloadGraph, arch: NMArray) -> None:
    """Raise ValueError if `graph` is a training step that `arch` has no units for."""
    for op in graph.ops:
        if op.kind in (OpKind.UPDATE, OpKind.SELECT) and arch.training is None:
            raise ValueError(
                f"Op {op.name!r} needs the arch's `training` units (sore, wuve), which it has not; "
                "sat-vcu1525 is a preset that has them"
            )


def _stored_bytes(spec: TensorSpec) -> int:
    return -(-spec.size * spec.bits // 8)


def _groups(spec: TensorSpec) -> tuple[int, int, int]:
    """Return (groups, N, M) of a selected tensor ([g,] k, n), ragged groups included."""
    assert isinstance(spec.sparsity, NofM)
    assert isinstance(spec.sparsity.n, int)
    k, m = spec.shape[-2], spec.sparsity.m
    return spec.size // k * -(-k // m), spec.sparsity.n, m


def _compressed_bytes(spec: TensorSpec) -> int:
    groups, kept, group = _groups(spec)
    return -(-groups * kept * (spec.bits + (group - 1).bit_length()) // 8)


def _is_transposed(graph: WorkloadGraph, op: Op) -> bool:
    """Whether a selection runs along the other axis than the weight is stored in."""
    return graph.tensors[op.output].dims[-1] != graph.tensors[op.inputs[0]].dims[-1]


def _own_pass(units: TrainingUnits, graph: WorkloadGraph, op: Op) -> bool:
    return units.pregenerate and not units.transposer and _is_transposed(graph, op)


def update_stream(graph: WorkloadGraph, arch: NMArray, op: Op) -> Stream:
    """Return the update of one weight: gradient and state in, state and new weights out."""
    assert arch.training is not None
    units, tensors = arch.training, graph.tensors
    selects = [s for s in graph.ops if s.kind is OpKind.SELECT and s.inputs == (op.output,)]
    streamed = [s for s in selects if units.pregenerate and not _own_pass(units, graph, s)]
    state = [tensors[name] for name in op.inputs[1:]]
    write = sum(map(_stored_bytes, state))
    write += sum(_compressed_bytes(tensors[s.output]) for s in streamed)
    has_bp = any(other.name == f"{op.name.removesuffix('.update')}.bp" for other in graph.ops)
    if len(streamed) < 1 + has_bp:
        write += _stored_bytes(tensors[op.output])
    return Stream(
        read_bytes=sum(_stored_bytes(tensors[name]) for name in op.inputs),
        write_bytes=write,
        ops=tensors[op.output].size,
        unit=Unit.WUVE,
    )


def select_stream(graph: WorkloadGraph, arch: NMArray, op: Op) -> Stream | None:
    """Return a selection that is a pass of its own; None if it happens while data moves anyway."""
    assert arch.training is not None
    source = graph.tensors[op.inputs[0]]
    updated = any(u.kind is OpKind.UPDATE and u.output == source.name for u in graph.ops)
    if not (updated and _own_pass(arch.training, graph, op)):
        return None
    selected = graph.tensors[op.output]
    groups, kept, group = _groups(selected)
    return Stream(
        read_bytes=_stored_bytes(source),
        write_bytes=_compressed_bytes(selected),
        ops=groups,
        unit=Unit.SORE,
        kept=kept,
        group=group,
    )
