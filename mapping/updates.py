"""What follows a weight's gradient: the update on WUVE and the N:M selections on SORE.

With pre-generation, updated weights stream through SORE on their way to memory: the update
writes what the next step reads compressed, and dense fp16 weights only if some pass reads them.
Without it, the update writes dense weights and every load of a sparse pass selects again.
"""

from simulator.arch import NMArray, TrainingUnits
from simulator.plan import Flow, Stream
from simulator.schedule import Unit
from workloads.graph import Op, OpKind, TensorSpec, WorkloadGraph
from workloads.sparsity import NofM
from workloads.training.products import STATE_BITS

__all__ = ["check_trainer", "select_stream", "update_stream"]


def check_trainer(graph: WorkloadGraph, arch: NMArray) -> None:
    """Raise ValueError if `graph` is a training step that `arch` has no units for."""
    for op in graph.ops:
        if op.kind in (OpKind.UPDATE, OpKind.SELECT) and arch.training is None:
            raise ValueError(
                f"Op {op.name!r} needs the arch's `training` units (sore, wuve), which it has not; "
                "sat-vcu1525 is a preset that has them"
            )


def _groups(spec: TensorSpec) -> tuple[int, int, int]:
    """Return (groups, N, M) of a selected tensor ([g,] k, n), ragged groups included."""
    assert isinstance(spec.sparsity, NofM)
    assert isinstance(spec.sparsity.n, int)
    k, m = spec.shape[-2], spec.sparsity.m
    return spec.size // k * -(-k // m), spec.sparsity.n, m


def _is_transposed(graph: WorkloadGraph, op: Op) -> bool:
    """Whether a selection runs along the other axis than the weight is stored in."""
    return graph.tensors[op.output].dims[-1] != graph.tensors[op.inputs[0]].dims[-1]


def _own_pass(units: TrainingUnits, graph: WorkloadGraph, op: Op) -> bool:
    return units.pregenerate and not units.transposer and _is_transposed(graph, op)


def _flow(role: str, bits: int, granules: int) -> Flow:
    return Flow(role=role, granule_bits=bits // granules, bits=bits)


def _selected_flow(role: str, spec: TensorSpec, granules: int) -> Flow:
    """Return the pairs of a selection; a granule takes whole groups with it."""
    groups, kept, group = _groups(spec)
    pair = spec.bits + (group - 1).bit_length()
    return Flow(role=role, granule_bits=groups // granules * kept * pair, bits=groups * kept * pair)


def _selected_granules(arch: NMArray, weight: TensorSpec, group: int) -> int:
    """Return the granules of M rows, or of M rows by the least strips of columns that fit."""
    columns = weight.shape[-1]
    rows = max(1, weight.size // (group * columns))
    slot = arch.act_buffer.capacity_bytes // 4
    strips = [n for n in range(1, columns // group + 1) if columns // group % n == 0]
    size = (weight.bits + 2 * STATE_BITS) // 8 * group * columns
    fitting = (n for n in strips if columns % group == 0 and size <= slot * n)
    return rows * next(fitting, 1)


def update_stream(graph: WorkloadGraph, arch: NMArray, op: Op) -> Stream:
    """Return the update of one weight: gradient and state in, state and new weights out.

    A granule is an element, or M rows of the weight where selections follow: then SORE has whole
    groups along k, and along n behind the transposer, which holds M rows of its lanes. Rows too
    long for a slot of the buffer are cut in strips of whole groups. A selection hands its last
    pairs over N cycles after WUVE's last result, behind the transposer M cycles later.
    """
    assert arch.training is not None
    units, tensors = arch.training, graph.tensors
    selects = [s for s in graph.ops if s.kind is OpKind.SELECT and s.inputs == (op.output,)]
    streamed = [s for s in selects if units.pregenerate and not _own_pass(units, graph, s)]
    weight = tensors[op.output]
    granules, latency = weight.size, 0
    for select in streamed:
        _, kept, group = _groups(tensors[select.output])
        granules = _selected_granules(arch, weight, group)
        latency = max(latency, kept + group * _is_transposed(graph, select))
    reads = [
        _flow(role, tensors[name].size * tensors[name].bits, granules)
        for role, name in zip(("gradient", "master", "momentum"), op.inputs, strict=True)
    ]
    writes = reads[1:]
    has_bp = any(other.name == f"{op.name.removesuffix('.update')}.bp" for other in graph.ops)
    if len(streamed) < 1 + has_bp:
        writes.append(_flow("copy", weight.size * weight.bits, granules))
    for select in streamed:
        role = "bp" if _is_transposed(graph, select) else "ff"
        writes.append(_selected_flow(role, tensors[select.output], granules))
    return Stream(
        reads=tuple(reads),
        writes=tuple(writes),
        granules=granules,
        ops=weight.size,
        unit=Unit.WUVE,
        latency=latency,
    )


def select_stream(graph: WorkloadGraph, arch: NMArray, op: Op) -> Stream | None:
    """Return a selection that is a pass of its own; None if it happens while data moves anyway.

    Its lanes take one row of the stored weight each, so a granule is as many rows as SORE has
    lanes.
    """
    assert arch.training is not None
    source = graph.tensors[op.inputs[0]]
    updated = any(u.kind is OpKind.UPDATE and u.output == source.name for u in graph.ops)
    if not (updated and _own_pass(arch.training, graph, op)):
        return None
    selected = graph.tensors[op.output]
    groups, kept, group = _groups(selected)
    granules = max(1, source.size // (arch.training.sore.lanes * source.shape[-1]))
    return Stream(
        reads=(_flow("dense", source.size * source.bits, granules),),
        writes=(_selected_flow("bp", selected, granules),),
        granules=granules,
        ops=groups,
        unit=Unit.SORE,
        kept=kept,
        group=group,
    )
