"""Map a workload onto a machine whose operators have a closed form.

There is nothing to search but what the model itself chooses. Main memory is compulsory traffic:
every operator reads its operands once, as compressed as the machine takes them, and writes its
results once. With memory "modelled" an operator runs in chunks, double-buffered.
"""

import collections.abc as abc
import math
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mapping.graph import MAPPERS
from mapping.objective import Objective, op_cost
from mapping.types import MapperResult
from simulator.arch.accelerator import ClosedForm
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.memory import MemoryMode
from simulator.arch.outer_product import OuterProduct
from simulator.counts import Event, add
from simulator.engine import program_cycles
from simulator.models import Operand, Product, Work, work_of
from simulator.schedule import Block, OpSchedule, Repeat, Schedule, Step, Unit
from workloads.graph import Op, OpKind, Phase, TensorSpec, WorkloadGraph
from workloads.pruning import listed, mask_of, nnz_of
from workloads.sparsity import Balanced, ConstantFanIn, Dense, NofM, Unstructured

__all__ = ["map_graph"]

MOST_HALVINGS = 6
"""How often chunks are halved below the largest that fits, in search of more overlap."""

COUNTED = (Dense, Unstructured, NofM, Balanced, ConstantFanIn)
"""Structures whose counts of non-zeros have a closed form wherever a machine asks for them."""

Shape = tuple[int, int, int]
Program = tuple[Block, abc.Mapping[str, int]]


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
    if mapper not in MAPPERS:
        raise ValueError(f"Unknown mapper {mapper!r}; known: {', '.join(MAPPERS)}")
    wanted = Objective.of(objective)
    _check_inference(graph)
    began = time.perf_counter()
    ignored: dict[str, list[str]] = {}
    ops = []
    for op in graph.ops:
        ops.append(_product(graph, arch, op, ignored) if op.gemm else _vector(graph, arch, op))
        if on_op:
            on_op(op.name)
    costs = tuple(op_cost(arch, wanted, op) * op.repeat for op in ops)
    return MapperResult(
        schedule=Schedule(
            workload=graph.name,
            workload_digest=graph.digest(),
            arch_digest=arch.digest(),
            sparsity=_label(graph),
            ops=tuple(ops),
            notes=(*graph.notes, *(f"{why}: {listed(names)}" for why, names in ignored.items())),
        ),
        mappings=(),
        mapper=mapper,
        objective=wanted,
        op_costs=costs,
        op_bounds=costs,
        considered=len(list(graph.gemm_ops)),
        seconds=time.perf_counter() - began,
    )


def _check_inference(graph: WorkloadGraph) -> None:
    for op in graph.ops:
        if op.phase is not Phase.INFER:
            raise ValueError(
                f"Op {op.name!r} belongs to a training step, which this machine does not run; "
                "sat-vcu1525 is a preset that does"
            )


def _label(graph: WorkloadGraph) -> str:
    weights = {op.inputs[1] for op in graph.gemm_ops}
    labels = {str(graph.tensors[w].sparsity) for w in weights} - {"dense"}
    return ", ".join(sorted(labels)) or "dense"


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
    program, tokens = _program(arch, step, work.act.bits + work.weight.bits, written)
    post = {("vector", "op", "full"): found.outputs} if op.post else {}
    return OpSchedule(
        name=op.name,
        kind=op.kind.value,
        program=program,
        tokens=tokens,
        repeat=op.repeat,
        macs_dense=g.macs,
        macs_effectual=work.macs,
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


def _vector(graph: WorkloadGraph, arch: ClosedForm, op: Op) -> OpSchedule:
    """Return an operator of the vector lanes: data in, work, data out."""
    free = op.kind in (OpKind.RESHAPE, OpKind.OPAQUE) or arch.memory is MemoryMode.IDEAL
    if free:
        return OpSchedule(name=op.name, kind=op.kind.value, program=(), repeat=op.repeat)
    tensors = [graph.tensors[name] for name in (op.output, *op.inputs)]
    write, *reads = (_bits(arch, spec) for spec in tensors)
    read = min(sum(reads), write) if op.kind is OpKind.MOVE else sum(reads)
    work = 0 if op.kind is OpKind.MOVE else max(t.size for t in tensors) * op.passes
    step = Step(unit=Unit.VECTOR, label="vector", cycles=-(-work // arch.vector_lanes))
    program, tokens = _program(arch, step, read, write)
    return OpSchedule(
        name=op.name,
        kind=op.kind.value,
        program=program,
        tokens=tokens,
        repeat=op.repeat,
        counts={
            ("dram", "read", "full"): read,
            ("dram", "write", "full"): write,
            ("act_buffer", "read", "full"): read + write,
            ("act_buffer", "write", "full"): read + write,
            ("vector", "op", "full"): work,
        },
    )


def _bits(arch: ClosedForm, spec: TensorSpec) -> int:
    """Return the bits of a tensor as the machine stores it; wide tensors stay wide."""
    return spec.size * (spec.bits if spec.bits > 16 else arch.operand_bits)


def _program(arch: ClosedForm, work: Step, read_bits: int, write_bits: int) -> Program:
    """Return the fastest program of `work` between `read_bits` in and `write_bits` out."""
    least = max(
        1,
        _chunks(read_bits, arch.act_buffer.capacity_bytes + arch.weight_buffer.capacity_bytes),
        _chunks(write_bits, arch.out_buffer.capacity_bytes),
    )
    if arch.memory is not MemoryMode.MODELLED:
        return _chunked(arch, work, read_bits, write_bits, 1)
    counts = (least << halvings for halvings in range(MOST_HALVINGS + 1))
    programs = [_chunked(arch, work, read_bits, write_bits, chunks) for chunks in counts]
    return min(programs, key=lambda program: program_cycles(*program))


def _chunks(bits: int, capacity_bytes: int) -> int:
    """Return the chunks of `bits` of which two fit `capacity_bytes`."""
    return -(-bits // (4 * capacity_bytes))


def _chunked(arch: ClosedForm, work: Step, read_bits: int, write_bits: int, chunks: int) -> Program:
    """Return load, work and store, each cut into `chunks`; a store follows the next chunk's load.

    The parts of every unit sum to the whole: cutting changes overlap, never work.
    """
    load = Step(
        unit=Unit.DMA,
        label="load",
        cycles=_transfer_cycles(arch, read_bits),
        latency=arch.dram.latency_cycles,
        waits=("in.free",),
        releases=("in.full",),
    )
    use = replace(work, waits=("in.full", "out.free"), releases=("in.free", "out.full"))
    store = Step(
        unit=Unit.DMA,
        label="store",
        cycles=_transfer_cycles(arch, write_bits),
        waits=("out.full",),
        releases=("out.free",),
    )
    tokens = {"in.free": 2, "out.free": 2}
    (load, last_load), (use, last_use), (store, last_store) = (
        _cut(step, chunks) for step in (load, use, store)
    )
    if chunks == 1:
        return (last_load, last_use, last_store), tokens
    again: Block = ()
    if chunks > 2:
        again = (Repeat(times=chunks - 2, body=(load, use, store)),)
    return (load, use, *again, last_load, last_use, store, last_store), tokens


def _cut(step: Step, chunks: int) -> tuple[Step, Step]:
    """Return one of the first `chunks` - 1 parts of a step, and the last, which takes the rest."""
    cycles, busy = step.cycles // chunks, step.busy // chunks
    before = chunks - 1
    last = replace(step, cycles=step.cycles - before * cycles, busy=step.busy - before * busy)
    return replace(step, cycles=cycles, busy=busy), last


def _transfer_cycles(arch: ClosedForm, bits: int) -> int:
    """Return the cycles of moving `bits` in whole bytes at the main memory's bandwidth."""
    size = -(-bits // 8)
    return -(-size * arch.clock_hz // arch.dram.bandwidth_bytes_per_s)
