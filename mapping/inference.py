"""What machines without a search of dataflows share: inference in order, vector work, chunks.

With memory "modelled" an operator runs in chunks, double-buffered.
"""

import collections.abc as abc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mapping.objective import Number, Objective, op_cost
from mapping.problem import TileShape
from mapping.types import MapperResult, Tiled
from simulator.arch import MemoryMode, PEGrid
from simulator.arch.accelerator import ClosedForm
from simulator.engine import program_cycles
from simulator.schedule import Block, OpSchedule, Repeat, Schedule, Step, Unit
from workloads.graph import Op, OpKind, Phase, TensorSpec, WorkloadGraph

__all__ = ["Lowered", "map_inference", "program_of", "transfer_cycles", "vector_op"]

MOST_HALVINGS = 6
"""How often chunks are halved below the largest that fits, in search of more overlap."""

Unmapped = PEGrid | ClosedForm

Program = tuple[Block, abc.Mapping[str, int]]
Ints = NDArray[np.int64]
IntLike = TypeVar("IntLike", int, Ints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """An operator with its program, and what it was chosen from.

    `bound` is what one execution costs at least whatever is chosen, None if that is its cost;
    `shape` is the tile of the choice, if there was one, out of `considered`.
    """

    op: OpSchedule
    shape: TileShape | None = None
    bound: Number | None = None
    considered: int = 0


def map_inference(
    graph: WorkloadGraph,
    arch: Unmapped,
    product: Callable[[Op], Lowered],
    notes: Callable[[], Iterable[str]],
    *,
    mapper: str,
    objective: Objective,
    on_op: Callable[[str], None] | None,
) -> MapperResult:
    """Return every operator of `graph`: products by `product`, the rest on the vector lanes.

    `notes` is called last, for what `product` has to tell the reader; `on_op` with the name of
    each operator when it is mapped. Raises ValueError for a training step.
    """
    _check_inference(graph)
    began = time.perf_counter()
    found: list[Lowered] = []
    for op in graph.ops:
        found.append(product(op) if op.gemm else Lowered(op=vector_op(graph, arch, op)))
        if on_op:
            on_op(op.name)
    costs = [op_cost(arch, objective, lowered.op) for lowered in found]
    bounds = [
        cost if lowered.bound is None else lowered.bound
        for cost, lowered in zip(costs, found, strict=True)
    ]
    return MapperResult(
        schedule=Schedule(
            workload=graph.name,
            workload_digest=graph.digest(),
            arch_digest=arch.digest(),
            sparsity=_label(graph),
            ops=tuple(lowered.op for lowered in found),
            notes=(*graph.notes, *notes()),
        ),
        mappings=tuple(
            Tiled(op=lowered.op.name, shape=lowered.shape, considered=lowered.considered)
            for lowered in found
            if lowered.shape
        ),
        mapper=mapper,
        objective=objective,
        op_costs=tuple(cost * lo.op.repeat for cost, lo in zip(costs, found, strict=True)),
        op_bounds=tuple(bound * lo.op.repeat for bound, lo in zip(bounds, found, strict=True)),
        considered=sum(lowered.considered for lowered in found),
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


def vector_op(graph: WorkloadGraph, arch: Unmapped, op: Op) -> OpSchedule:
    """Return an operator of the vector lanes: data in, work, data out."""
    free = op.kind in (OpKind.RESHAPE, OpKind.OPAQUE) or arch.memory is MemoryMode.IDEAL
    if free:
        return OpSchedule(name=op.name, kind=op.kind.value, program=(), repeat=op.repeat)
    tensors = [graph.tensors[name] for name in (op.output, *op.inputs)]
    write, *reads = (_bits(arch, spec) for spec in tensors)
    read = min(sum(reads), write) if op.kind is OpKind.MOVE else sum(reads)
    work = 0 if op.kind is OpKind.MOVE else max(t.size for t in tensors) * op.passes
    step = Step(unit=Unit.VECTOR, label="vector", cycles=-(-work // arch.vector_lanes))
    program, tokens = program_of(arch, step, read, write)
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


def _bits(arch: Unmapped, spec: TensorSpec) -> int:
    """Return the bits of a tensor as the machine stores it; wide tensors stay wide."""
    return spec.size * (spec.bits if spec.bits > 16 else arch.operand_bits)


def program_of(arch: Unmapped, work: Step, read_bits: int, write_bits: int) -> Program:
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


def _chunked(arch: Unmapped, work: Step, read_bits: int, write_bits: int, chunks: int) -> Program:
    """Return load, work and store, each cut into `chunks`; a store follows the next chunk's load.

    The parts of every unit sum to the whole: cutting changes overlap, never work.
    """
    load = Step(
        unit=Unit.DMA,
        label="load",
        cycles=transfer_cycles(arch, read_bits),
        latency=arch.dram.latency_cycles,
        waits=("in.free",),
        releases=("in.full",),
    )
    use = replace(work, waits=("in.full", "out.free"), releases=("in.free", "out.full"))
    store = Step(
        unit=Unit.DMA,
        label="store",
        cycles=transfer_cycles(arch, write_bits),
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


def transfer_cycles(arch: Unmapped, bits: IntLike) -> IntLike:
    """Return the cycles of moving `bits` in whole bytes at the main memory's bandwidth."""
    size = -(-bits // 8)
    return -(-size * arch.clock_hz // arch.dram.bandwidth_bytes_per_s)
