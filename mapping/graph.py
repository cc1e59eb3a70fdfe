"""Map a whole workload: every operator gets its program."""

import collections.abc as abc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from mapping.cache import Cache, Key
from mapping.exhaustive import exhaustive, lowered
from mapping.greedy import greedy
from mapping.integer import integer
from mapping.objective import Goal, Number, Objective, op_cost
from mapping.problem import Problem
from mapping.stream import Stream
from mapping.types import MapperResult, Mapping
from mapping.updates import check_trainer, select_stream, update_stream
from simulator.arch import MemoryMode, NMArray, Precision
from simulator.schedule import Block, OpSchedule, Schedule
from workloads.graph import Op, OpKind, Phase, TensorSpec, WorkloadGraph
from workloads.pruning import nnz_of
from workloads.sparsity import Balanced, Dense, NofM, Sparsity

__all__ = ["MAPPERS", "map_graph", "skippable"]

Mapper = Callable[[NMArray, Problem, str, Goal], Mapping]
Program = tuple[Block, abc.Mapping[str, int]]

MAPPERS: Final[abc.Mapping[str, Mapper]] = {
    "exhaustive": exhaustive,
    "integer": integer,
    "greedy": greedy,
}


def skippable(arch: NMArray, sparsity: Sparsity) -> tuple[int, int] | None:
    """Return the (N, M) the array can skip by along the reduction, or None if it runs dense.

    The array skips N:M with M up to max_m; balanced banks are N:M with M the bank. Other
    structures keep their zeros' place: the multiplier is gated, no time is saved. All-zero
    groups still take one slot, so N is at least 1.
    """
    match sparsity:
        case NofM(n=n, m=m, axis=None) if m <= arch.max_m:
            return max(1, n if isinstance(n, int) else max(n)), m
        case Balanced(bank=bank, density=density) if bank <= arch.max_m:
            return max(1, round(bank * density)), bank
    return None


def packings(arch: NMArray, problem: Problem) -> list[Problem]:
    """Return `problem` as it is and, if grouped, with as many groups packed as the array takes.

    Packed groups divide the number of groups, and their channels fit one group of max_m.
    """
    if not problem.pack_channels:
        return [problem]
    most = arch.max_m // problem.pack_channels
    packs = [p for p in range(2, most + 1) if problem.gemm.groups % p == 0]
    return [problem, *(problem.packed(p) for p in packs[-1:])]


def map_graph(
    graph: WorkloadGraph,
    arch: NMArray,
    *,
    mapper: str = "exhaustive",
    objective: str | Objective = Objective.CYCLES,
    cache: Cache | None = None,
    on_op: Callable[[str], None] | None = None,
) -> MapperResult:
    """Return every operator of `graph` mapped onto `arch` at the least cost under `objective`.

    Problems whose proved optimum `cache` holds are not solved again. `on_op` is called with each
    operator's name when it is mapped. Raises ValueError for an unknown mapper or objective and
    NoMapping for an operator that fits no buffer.
    """
    if mapper not in MAPPERS:
        raise ValueError(f"Unknown mapper {mapper!r}; known: {', '.join(MAPPERS)}")
    check_trainer(graph, arch)
    began = time.perf_counter()
    work = _GraphMapper(graph, arch, mapper, Objective.of(objective), cache or Cache())
    ops = []
    for op in graph.ops:
        ops.append(work.lower(op))
        if on_op:
            on_op(op.name)
    return MapperResult(
        schedule=Schedule(
            workload=graph.name,
            workload_digest=graph.digest(),
            arch_digest=arch.digest(),
            sparsity=_sparsity_label(graph),
            ops=tuple(ops),
            notes=graph.notes + tuple(work.notes()),
        ),
        mappings=tuple(work.mappings),
        mapper=mapper,
        objective=work.objective,
        op_costs=tuple(cost for cost, _ in work.costs),
        op_bounds=tuple(bound for _, bound in work.costs),
        considered=work.considered,
        seconds=time.perf_counter() - began,
    )


def _format(mapping: Mapping) -> str:
    s = mapping.setting
    label = f"{s.kept}:{s.group}" if s.indexed else f"dense/{s.group}"
    return f"{label} x{mapping.packed}" if mapping.packed > 1 else label


def _sparsity_label(graph: WorkloadGraph) -> str:
    weights = {op.inputs[1] for op in graph.gemm_ops}
    labels = {str(graph.tensors[w].sparsity) for w in weights} - {"dense"}
    return ", ".join(sorted(labels)) or "dense"


class _GraphMapper:
    """Maps operators one by one and remembers the problems it has solved."""

    def __init__(
        self, graph: WorkloadGraph, arch: NMArray, mapper: str, objective: Objective, cache: Cache
    ) -> None:
        self.graph, self.arch, self.mapper, self.cache = graph, arch, mapper, cache
        self.objective = objective
        self.mappings: list[Mapping] = []
        self.costs: list[tuple[Number, Number]] = []  # (cost, bound) of every operator
        self.considered = 0
        self._solved: dict[tuple[Problem, Goal], tuple[Mapping, Program]] = {}
        self._stream_costs: dict[Stream, Number] = {}
        self._gated: list[tuple[str, str]] = []
        self._kept = self._rounded = 0

    def notes(self) -> list[str]:
        """Return sentences about weights that the reader may not expect to be, or cost, zero."""
        found = [self._rounding_note()] if self._rounded else []
        if not self._gated:
            return found
        name, label = self._gated[0]
        note = (
            f"{len(self._gated)} operators ({name}, ...) with {label} weights run at dense time, "
            f"zeros gated: the array skips only N:M groups of at most M = {self.arch.max_m}"
        )
        return [*found, note]

    def _rounding_note(self) -> str:
        share = self._rounded / self._kept
        scale = " with one scale per tensor" if self.arch.precision is Precision.INT8 else ""
        return (
            f"{share:.1%} of the weights that are not zero round to zero in {self.arch.precision}"
            f"{scale}; they count as zeros, as the hardware gates them"
        )

    def lower(self, op: Op) -> OpSchedule:
        """Return the program of one operator."""
        if op.gemm:
            return self._gemm(op)
        stream = self._stream(op)
        program: Program = ((), {})
        cost: Number = 0
        if stream and self.arch.memory is not MemoryMode.IDEAL:
            program = self.cache.stream(self.arch, stream)
            if stream not in self._stream_costs:
                done = _scheduled(op, program)
                self._stream_costs[stream] = op_cost(self.arch, self.objective, done)
            cost = self._stream_costs[stream]
        # Streams take the fastest cut of a fixed few; events do not depend on the cut.
        self.costs.append((cost * op.repeat, cost * op.repeat))
        return _scheduled(op, program)

    def _gemm(self, op: Op) -> OpSchedule:
        assert op.gemm is not None
        weight = self.graph.tensors[op.inputs[1]]
        compressed = skippable(self.arch, weight.sparsity)
        if compressed is None and str(weight.sparsity) != "dense":
            self._gated.append((op.name, str(weight.sparsity)))
        problem = Problem(
            gemm=op.gemm,
            window=op.window,
            window_use=op.window_use,
            compressed=compressed,
            select=compressed is not None and self._selects_on_load(op, weight),
        )
        macs = op.gemm.m * self._nonzeros(weight, op)
        # Fused element-wise work sits on the output path: events, no time of its own.
        fused = op.gemm.groups * op.gemm.m * op.gemm.n * len(op.post)
        key = problem, Goal.of(self.objective, macs, fused)
        if key not in self._solved:
            self._solved[key] = self._solve(*key, op.name)
        mapping, program = self._solved[key]
        self.mappings.append(replace(mapping, op=op.name))
        self.costs.append((mapping.cost * op.repeat, mapping.bound * op.repeat))
        s, t = mapping.setting, mapping.shape
        return _scheduled(
            op,
            program,
            macs_dense=op.gemm.macs,
            macs_effectual=macs,
            counts={("vector", "op", "full"): fused} if fused else {},
            detail={
                "dataflow": s.dataflow.value,
                "nm": _format(mapping),
                "tile": f"{t.units}x {t.m}x{t.k}x{t.n} {t.order}",
            },
        )

    def _solve(self, problem: Problem, goal: Goal, name: str) -> tuple[Mapping, Program]:
        key = Key.of(self.mapper, self.arch, problem, goal)
        best = self.cache.find(key)
        if best is None:
            best = self._search(problem, goal, name)
            if best.bound == best.cost:
                self.cache.keep(key, best)
        self.considered += best.considered
        chosen = problem.packed(best.packed) if best.packed > 1 else problem
        return best, lowered(self.arch, chosen, best.setting, best.shape)

    def _search(self, problem: Problem, goal: Goal, name: str) -> Mapping:
        """Return the best mapping of `problem` over its packings."""
        mapper = MAPPERS[self.mapper]
        tried = [(mapper(self.arch, p, name, goal), p) for p in packings(self.arch, problem)]
        best, chosen = min(tried, key=lambda pair: pair[0].cost)
        return replace(
            best,
            packed=problem.gemm.groups // chosen.gemm.groups,
            bound=min(found.bound for found, _ in tried),
            considered=sum(found.considered for found, _ in tried),
        )

    def _nonzeros(self, weight: TensorSpec, op: Op) -> int:
        assert op.gemm is not None
        if weight.parameter or not isinstance(weight.sparsity, Dense):
            nonzeros = nnz_of(self.graph, weight.name, bits=self.arch.operand_bits)
            if weight.name in self.graph.values:
                kept = int(np.count_nonzero(self.graph.values[weight.name]))
                self._kept += kept
                self._rounded += kept - nonzeros
            return nonzeros
        return op.gemm.groups * op.gemm.k * op.gemm.n

    def _selects_on_load(self, op: Op, weight: TensorSpec) -> bool:
        """Whether SORE compresses the weight in front of every load of a training step."""
        if op.phase is Phase.INFER or self.arch.training is None:
            return False
        return not weight.parameter or not self.arch.training.pregenerate

    def _stream(self, op: Op) -> Stream | None:
        match op.kind:
            case OpKind.RESHAPE | OpKind.OPAQUE:
                return None
            case OpKind.UPDATE:
                return update_stream(self.graph, self.arch, op)
            case OpKind.SELECT:
                return select_stream(self.graph, self.arch, op)
        tensors = [self.graph.tensors[t] for t in op.inputs]
        out = self.graph.tensors[op.output]
        read, write = sum(map(self._bytes, tensors)), self._bytes(out)
        if op.kind is OpKind.MOVE:  # slices and gathers read what they keep
            return Stream(read_bytes=min(read, write), write_bytes=write, ops=0)
        size = max(out.size, *(t.size for t in tensors)) if tensors else out.size
        return Stream(read_bytes=read, write_bytes=write, ops=size * op.passes)

    def _bytes(self, spec: TensorSpec) -> int:
        """Return the bytes of a tensor as the machine stores it; wide tensors stay wide."""
        bits = spec.bits if spec.bits > 16 else self.arch.operand_bits
        return -(-spec.size * bits // 8)


def _scheduled(op: Op, program: Program, **extra: Any) -> OpSchedule:
    block, tokens = program
    return OpSchedule(
        name=op.name,
        kind=op.kind.value,
        phase=op.phase.value,
        program=block,
        tokens=tokens,
        repeat=op.repeat,
        **extra,
    )
