"""Map a whole workload: every operator gets its program."""

import collections.abc as abc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from mapping.cache import Cache, Key
from mapping.exhaustive import Accept, exhaustive, lowered
from mapping.fuse import Kept, Row, best_keeping, check_inference, rows
from mapping.greedy import greedy
from mapping.integer import integer
from mapping.lower import gemm_plan
from mapping.objective import Goal, Number, Objective, op_cost
from mapping.problem import Problem
from mapping.types import Fusion, MapperResult, Mapping, NoMapping
from mapping.updates import check_trainer, select_stream, update_stream
from simulator.arch import MemoryMode, NMArray, Precision
from simulator.plan import Flow, GemmPlan, Stream, StreamPlan
from simulator.schedule import Block, OpSchedule, Schedule
from workloads.graph import Op, OpKind, Phase, TensorSpec, WorkloadGraph
from workloads.pruning import nnz_of
from workloads.sparsity import Balanced, Dense, NofM, Sparsity

__all__ = ["MAPPERS", "known_mapper", "map_graph", "rounding_note", "skippable"]

MOVED_ELEMENTS: Final = 1024
"""Elements of a granule where a move's source and result share no fitting one."""

Mapper = Callable[[NMArray, Problem, str, Goal, Accept | None], Mapping]
Layout = Callable[[Op, GemmPlan], bool]
Program = tuple[Block, abc.Mapping[str, int], GemmPlan | StreamPlan | None]

MAPPERS: Final[abc.Mapping[str, Mapper]] = {
    "exhaustive": exhaustive,
    "integer": integer,
    "greedy": greedy,
}


def known_mapper(name: str) -> str:
    """Return `name`; raise ValueError listing the known mappers if it is none of them."""
    if name not in MAPPERS:
        raise ValueError(f"Unknown mapper {name!r}; known: {', '.join(MAPPERS)}")
    return name


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
    fuse: bool = False,
    cache: Cache | None = None,
    on_op: Callable[[str], None] | None = None,
    layout: Layout | None = None,
) -> MapperResult:
    """Return every operator of `graph` mapped onto `arch` at the least cost under `objective`.

    With `fuse` tensors between operators may stay on chip (`mapping.fuse`). Only plans that
    `layout` accepts are taken, such as those a memory map has whole beats for; a layout places
    every tensor in memory, so nothing is fused. Without one, problems that `cache` holds are not
    solved again. `on_op` is called with each operator's name when it is mapped. Raises ValueError
    for an unknown mapper or objective and for a training step to be fused, and NoMapping for an
    operator that fits no buffer.
    """
    mapper = known_mapper(mapper)
    if fuse:
        check_inference(graph)
    check_trainer(graph, arch)
    began = time.perf_counter()
    wanted = Objective.of(objective)
    work = _GraphMapper(graph, arch, mapper, wanted, cache or Cache(), layout)
    fuse = fuse and not layout and arch.memory is not MemoryMode.IDEAL
    kept, fused = _fused(graph, work) if fuse else ({}, None)
    ops = []
    for op in graph.ops:
        ops.append(work.lower(op, kept.get(op.name, Kept())))
        if on_op:
            on_op(op.name)
    return MapperResult(
        schedule=Schedule(
            workload=graph.name,
            workload_digest=graph.digest(),
            arch_digest=arch.digest(),
            sparsity=_sparsity_label(graph),
            ops=tuple(ops),
            notes=(*graph.notes, *work.notes(), *_fusion_notes(fused)),
        ),
        mappings=tuple(work.mappings),
        mapper=mapper,
        objective=wanted,
        op_costs=tuple(cost for cost, _ in work.costs),
        op_bounds=tuple(bound for _, bound in work.costs),
        considered=work.considered,
        seconds=time.perf_counter() - began,
        fused=fused,
    )


def _fused(graph: WorkloadGraph, work: "_GraphMapper") -> tuple[dict[str, Kept], Fusion]:
    """Return what every operator keeps on chip at the least cost of the whole graph."""
    keeps: dict[str, Kept] = {}
    chains: list[tuple[str, ...]] = []
    least: Number = 0
    known = rows(graph)
    for row in known:
        best = best_keeping(len(row.ops), partial(work.price, row))
        bound = best_keeping(len(row.ops), partial(work.price, row, bound=True))
        if best is None or bound is None:  # then some operator fits nowhere by itself
            return {}, Fusion(chains=(), bound=0, unfused=None)
        flags = (False, *best.kept, False)
        for i, op in enumerate(row.ops):
            keeps[op.name] = row.kept(i, *flags[i : i + 2])
        chains += (chain for chain in row.chains(best.kept) if len(chain) > 1)
        least += bound.cost
    alone = [work.price(row, i, False, False) for row in known for i in range(len(row.ops))]
    unfused = None if None in alone else sum(cost for cost in alone if cost is not None)
    return keeps, Fusion(chains=tuple(chains), bound=least, unfused=unfused)


def _fusion_notes(fused: Fusion | None) -> list[str]:
    if not (fused and fused.chains):
        return []
    kept = sum(len(chain) - 1 for chain in fused.chains)
    chains = len(fused.chains)
    return [f"{kept} tensors in {chains} chains of operators stay on chip, which no RTL does yet"]


def _format(mapping: Mapping) -> str:
    s = mapping.setting
    label = f"{s.kept}:{s.group}" if s.indexed else f"dense/{s.group}"
    return f"{label} x{mapping.packed}" if mapping.packed > 1 else label


def _sparsity_label(graph: WorkloadGraph) -> str:
    weights = {op.inputs[1] for op in graph.gemm_ops}
    labels = {str(graph.tensors[w].sparsity) for w in weights} - {"dense"}
    return ", ".join(sorted(labels)) or "dense"


def rounding_note(precision: Precision, share: float) -> str:
    """Say that a share of the weights is zero only as the machine holds them."""
    scale = " with one scale per tensor" if precision is Precision.INT8 else ""
    return (
        f"{share:.1%} of the weights that are not zero round to zero in {precision}"
        f"{scale}; they count as zeros, as the hardware gates them"
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A product's problem, its effectual multiplications and its operations on the output path."""

    problem: Problem
    macs: int
    fused: int


class _GraphMapper:
    """Maps operators one by one and remembers the problems it has solved."""

    def __init__(
        self,
        graph: WorkloadGraph,
        arch: NMArray,
        mapper: str,
        objective: Objective,
        cache: Cache,
        layout: Layout | None,
    ) -> None:
        self.graph, self.arch, self.mapper, self.layout = graph, arch, mapper, layout
        self.objective, self.cache = objective, cache
        self.mappings: list[Mapping] = []
        self.costs: list[tuple[Number, Number]] = []  # (cost, bound) of every operator
        self.considered = 0
        self._solved: dict[tuple[Problem, Goal, str], tuple[Mapping, Program] | NoMapping] = {}
        self._asked: dict[str, _Asked] = {}
        self._stream_costs: dict[Stream, Number] = {}
        self._gated: list[tuple[str, str]] = []
        self._kept = self._rounded = 0

    def notes(self) -> list[str]:
        """Return sentences about weights that the reader may not expect to be, or cost, zero."""
        found = (
            [rounding_note(self.arch.precision, self._rounded / self._kept)]
            if self._rounded
            else []
        )
        if not self._gated:
            return found
        name, label = self._gated[0]
        note = (
            f"{len(self._gated)} operators ({name}, ...) with {label} weights run at dense time, "
            f"zeros gated: the array skips only N:M groups of at most M = {self.arch.max_m}"
        )
        return [*found, note]

    def lower(self, op: Op, kept: Kept) -> OpSchedule:
        """Return the program of one operator."""
        if op.gemm:
            return self._gemm(op, kept)
        program, cost = self._streamed(op, kept)
        # Streams take the fastest cut of a fixed few; events do not depend on the cut.
        self.costs.append((cost * op.repeat, cost * op.repeat))
        return _scheduled(op, program)

    def price(
        self, row: Row, index: int, before: bool, behind: bool, *, bound: bool = False
    ) -> Number | None:
        """Return the cost of an operator, or a bound of it; None if what is kept leaves no room."""
        op, kept = row.ops[index], row.kept(index, before, behind)
        try:
            if not op.gemm:
                return self._streamed(op, kept)[1] * op.repeat
            mapping, _ = self._mapped(op, kept)
        except NoMapping:
            return None
        return (mapping.bound if bound else mapping.cost) * op.repeat

    def _streamed(self, op: Op, kept: Kept) -> tuple[Program, Number]:
        """Return the program of an operator beside the array, and what it costs once."""
        stream = self._stream(op)
        if stream is None or self.arch.memory is MemoryMode.IDEAL:
            return ((), {}, None), 0
        if kept != Kept():
            found = () if kept.input is None else (f"in_{kept.input}",)
            stream = replace(stream, resident=(*found, "out") if kept.output else found)
        program: Program = self.cache.stream(self.arch, stream)
        if stream not in self._stream_costs:
            done = _scheduled(op, program)
            self._stream_costs[stream] = op_cost(self.arch, self.objective, done)
        return _unplanned(program, kept), self._stream_costs[stream]

    def _gemm(self, op: Op, kept: Kept) -> OpSchedule:
        assert op.gemm is not None
        mapping, program = self._mapped(op, kept)
        asked = self._ask(op)
        self.mappings.append(replace(mapping, op=op.name))
        self.costs.append((mapping.cost * op.repeat, mapping.bound * op.repeat))
        s, t = mapping.setting, mapping.shape
        return _scheduled(
            op,
            _unplanned(program, kept),
            macs_dense=op.gemm.macs,
            macs_effectual=asked.macs,
            counts={("vector", "op", "full"): asked.fused} if asked.fused else {},
            detail={
                "dataflow": s.dataflow.value,
                "nm": _format(mapping),
                "tile": f"{t.units}x {t.m}x{t.k}x{t.n} {t.order}",
            },
        )

    def _ask(self, op: Op) -> "_Asked":
        """Return what is asked of a mapper for one product."""
        if op.name not in self._asked:
            self._asked[op.name] = self._problem(op)
        return self._asked[op.name]

    def _problem(self, op: Op) -> "_Asked":
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
            turned=op.phase is Phase.BP,
            saved=any(entry.endswith(".grad") for entry in op.post),
        )
        # Fused element-wise work sits on the output path: events, no time of its own.
        fused = op.gemm.groups * op.gemm.m * op.gemm.n * len(op.post)
        return _Asked(problem, op.gemm.m * self._nonzeros(weight, op), fused)

    def _mapped(self, op: Op, kept: Kept) -> tuple[Mapping, Program]:
        """Return the mapping of one product and its program; raise NoMapping if there is none."""
        asked, problem = self._ask(op), self._ask(op).problem
        if kept != Kept():
            problem = replace(
                problem,
                kept_in=0 if kept.input is None else self._tensor_bits(op.inputs[kept.input]),
                kept_out=self._tensor_bits(op.output) if kept.output else 0,
            )
        goal = Goal.of(self.objective, asked.macs, asked.fused)
        # Where layouts matter, operators of one shape may lie differently.
        key = problem, goal, op.name if self.layout else ""
        if key not in self._solved:
            try:
                self._solved[key] = self._solve(problem, goal, op)
            except NoMapping as error:
                self._solved[key] = error
        found = self._solved[key]
        if isinstance(found, NoMapping):
            raise found
        return found

    def _tensor_bits(self, name: str) -> int:
        return self._bits(self.graph.tensors[name])

    def _accept(self, problem: Problem, op: Op) -> Accept | None:
        layout = self.layout
        if layout is None:
            return None
        return lambda setting, shape: layout(op, gemm_plan(problem, setting, shape))

    def _solve(self, problem: Problem, goal: Goal, op: Op) -> tuple[Mapping, Program]:
        key = Key.of(self.mapper, self.arch, problem, goal)
        best = None if self.layout else self.cache.find(key)
        if best is None:
            best = self._search(problem, goal, op)
            if not self.layout:
                self.cache.keep(key, best)
        self.considered += best.considered
        chosen = problem.packed(best.packed) if best.packed > 1 else problem
        program, tokens = lowered(self.arch, chosen, best.setting, best.shape)
        return best, (program, tokens, gemm_plan(chosen, best.setting, best.shape))

    def _search(self, problem: Problem, goal: Goal, op: Op) -> Mapping:
        """Return the best mapping of `problem` over its packings."""
        mapper = MAPPERS[self.mapper]
        tried = [
            (mapper(self.arch, p, op.name, goal, self._accept(p, op)), p)
            for p in packings(self.arch, problem)
        ]
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
        return self._vector_stream(op)

    def _vector_stream(self, op: Op) -> Stream:
        """Return element-wise work, a reduction or a move over the largest tensor's granules."""
        out = self.graph.tensors[op.output]
        tensors = [self.graph.tensors[t] for t in op.inputs]
        if op.kind is OpKind.MOVE:
            return self._move(tensors, out)
        largest = max([out, *tensors], key=lambda spec: spec.size)
        granules = self._granules(op, largest.size, (out, *tensors))
        return Stream(
            reads=tuple(self._flow(f"in_{i}", t, granules) for i, t in enumerate(tensors)),
            writes=(self._flow("out", out, granules),),
            granules=granules,
            ops=largest.size * op.passes,
        )

    def _move(self, tensors: abc.Sequence[TensorSpec], out: TensorSpec) -> Stream:
        """Return a move: slices and gathers read what they keep, in granules of whole elements."""
        bits = self._bits(out)
        kept = min(sum(map(self._bits, tensors)), bits)
        width = bits // out.size
        granules = math.gcd(kept // width, out.size)
        if (kept + bits) // granules > 2 * self.arch.act_buffer.capacity_bytes:
            granules = -(-out.size // MOVED_ELEMENTS)
        read = Flow(role="in_0", granule_bits=kept // width // granules * width, bits=kept)
        return Stream(
            reads=(read,), writes=(self._flow("out", out, granules),), granules=granules, ops=0
        )

    def _granules(self, op: Op, largest: int, tensors: abc.Sequence[TensorSpec]) -> int:
        """Return the granules of vector work: rows of softmax and norms, else elements.

        Tensors of several sizes share the most granules that divide them all: a pooling window
        goes with its result. Constants, and what a granule would not fit a slot with, are taken
        whole with the first granule, or written with the last.
        """
        if op.kind in (OpKind.SOFTMAX, OpKind.NORM):
            largest //= max(tensors, key=lambda spec: spec.size).shape[-1]
        shared = math.gcd(largest, *(t.size for t in tensors if not t.parameter))
        bits = sum(map(self._bits, tensors)) // shared
        return shared if bits <= 2 * self.arch.act_buffer.capacity_bytes else largest

    def _flow(self, role: str, spec: TensorSpec, granules: int) -> Flow:
        """Return a tensor's share of whole elements a granule."""
        bits = self._bits(spec)
        return Flow(role=role, granule_bits=spec.size // granules * (bits // spec.size), bits=bits)

    def _bits(self, spec: TensorSpec) -> int:
        """Return the bits of a tensor as the machine stores it; wide tensors stay wide."""
        return spec.size * (spec.bits if spec.bits > 16 else self.arch.operand_bits)


def _unplanned(program: Program, kept: Kept) -> Program:
    """Return a program without its plan if tensors of it have no place in memory."""
    return program if kept == Kept() else (*program[:2], None)


def _scheduled(op: Op, program: Program, **extra: Any) -> OpSchedule:
    block, tokens, plan = program
    return OpSchedule(
        name=op.name,
        kind=op.kind.value,
        phase=op.phase.value,
        program=block,
        plan=plan,
        tokens=tokens,
        repeat=op.repeat,
        **extra,
    )
