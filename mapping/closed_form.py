"""Map a workload onto a machine whose operators have a closed form.

There is nothing to search but what the model itself chooses. Main memory is compulsory traffic:
every operator reads its operands once, as compressed as the machine takes them, and writes its
results once.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mapping.graph import known_mapper
from mapping.inference import Lowered, map_inference, program_of
from mapping.objective import Objective
from mapping.types import MapperResult
from simulator.arch.accelerator import ClosedForm
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.outer_product import OuterProduct
from simulator.counts import Event, add
from simulator.models import Operand, Product, Work, work_of
from simulator.schedule import OpSchedule, Step, Unit
from workloads.graph import Op, TensorSpec, WorkloadGraph
from workloads.pruning import listed, mask_of, nnz_of
from workloads.sparsity import Balanced, ConstantFanIn, Dense, NofM, Unstructured

__all__ = ["map_graph"]

COUNTED = (Dense, Unstructured, NofM, Balanced, ConstantFanIn)
"""Structures whose counts of non-zeros have a closed form wherever a machine asks for them."""

Shape = tuple[int, int, int]


def map_graph(
    graph: WorkloadGraph,
    arch: ClosedForm,
    *,
    mapper: str = "exhaustive",
    objective: str | Objective = Objective.CYCLES,
    on_op: Callable[[str], None] | None = None,
) -> MapperResult:
    """Return every operator of `graph` on `arch`; every mapper and objective finds the same.

    Raises ValueError for an unknown mapper or objective and for a training step.
    """
    ignored: dict[str, list[str]] = {}
    return map_inference(
        graph,
        arch,
        lambda op: Lowered(op=_product(graph, arch, op, ignored), considered=1),
        lambda: [f"{why}: {listed(names)}" for why, names in ignored.items()],
        mapper=known_mapper(mapper),
        objective=Objective.of(objective),
        on_op=on_op,
    )


def _product(
    graph: WorkloadGraph, arch: ClosedForm, op: Op, ignored: dict[str, list[str]]
) -> OpSchedule:
    assert op.gemm is not None
    g = op.gemm
    found = Product(
        gemm=g,
        act=_operand(graph, arch, graph.tensors[op.inputs[0]], (g.groups, g.m, g.k), -1),
        weight=_operand(graph, arch, graph.tensors[op.inputs[1]], (g.groups, g.k, g.n), -2),
    )
    work = work_of(arch, found)
    for why in work.ignored:
        ignored.setdefault(why, []).append(op.name)
    step = Step(unit=Unit.ARRAY, label="array", cycles=work.cycles, busy=work.busy)
    written = arch.operand_bits * found.outputs
    program, tokens = program_of(arch, step, work.act.bits + work.weight.bits, written)
    post = {("vector", "op", "full"): found.outputs} if op.post else {}
    return OpSchedule(
        name=op.name,
        kind=op.kind.value,
        program=program,
        tokens=tokens,
        repeat=op.repeat,
        macs_dense=g.macs,
        macs_effectual=work.macs,
        macs_weight=found.weight_pairs,
        macs_act=g.n * found.act.nonzeros,
        counts=add([work.counts, _moved(arch, work, found.outputs), post]),
        detail=work.detail,
    )


def _moved(arch: ClosedForm, work: Work, outputs: int) -> dict[Event, int]:
    """Return the events of bringing operands in and results out."""
    return add(
        [
            work.act.events("dram", "read"),
            work.weight.events("dram", "read"),
            work.act.events("act_buffer", "write"),
            work.weight.events("weight_buffer", "write"),
            {("out_buffer", "read", "full"): arch.acc_bits * outputs},
            {("dram", "write", "full"): arch.operand_bits * outputs},
        ]
    )


def _operand(
    graph: WorkloadGraph, arch: ClosedForm, spec: TensorSpec, shape: Shape, axis: int
) -> Operand:
    """Return the operand that a product reads as `shape`, whose reduction is `axis`."""
    positions = math.prod(shape)
    kept = nnz_of(graph, spec.name, bits=arch.operand_bits)
    return Operand(
        positions=positions,
        nonzeros=round(Fraction(kept * positions, spec.size)),
        stored=min(spec.size, positions),
        sparsity=spec.sparsity,
        mask=_mask(graph, arch, spec, shape, axis) if kept < spec.size else None,
    )


def _mask(
    graph: WorkloadGraph, arch: ClosedForm, spec: TensorSpec, shape: Shape, axis: int
) -> NDArray[np.bool_] | None:
    """Return where an operand is not zero, bool[g, vectors, k], if the machine needs to know.

    The windows of a convolution read an image, whose zeros count as spread evenly.
    """
    counted = isinstance(spec.sparsity, COUNTED) and spec.name not in graph.values
    known = spec.shape == shape or (1, *spec.shape) == shape
    if counted or not known or not isinstance(arch, OuterProduct | FlexDpe):
        return None
    mask = mask_of(graph, spec.name, bits=arch.operand_bits).reshape(shape)
    return np.moveaxis(mask, axis, -1)
