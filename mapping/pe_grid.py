"""Map a workload onto the PEGrid: exact time from masks, memory in double-buffered blocks.

Masks come from known values, recorded activations or a structure drawn from a seed; operators
of equal shape and structure share one draw. Whatever is not known to be zero counts as dense.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from mapping.graph import known_mapper, rounding_note
from mapping.grid_blocks import Blocking, Timed, blocking, blockings, misfit
from mapping.grid_cells import RECORD, Cells, time_gemm
from mapping.grid_lanes import act_lanes, weight_lanes
from mapping.grid_mappers import MAPPERS
from mapping.grid_program import moved, program, tokens
from mapping.inference import Lowered, map_inference
from mapping.objective import Objective
from mapping.types import MapperResult, NoMapping
from simulator.arch import MemoryMode, PEGrid
from simulator.counts import Event, add
from simulator.models.product import Packed, least_packed
from simulator.schedule import Block, OpSchedule
from simulator.units.pe_grid import pe_cycles
from workloads.graph import Op, WorkloadGraph
from workloads.pruning import listed, nnz_of
from workloads.sparsity import Dense

__all__ = ["map_graph"]

CAUSES: Final = {
    "work": "compute",
    "vacant": "vacant",
    "coupling": "fifo",
    "imbalance": "imbalance",
    "fill": "pipeline",
    "drain": "pipeline",
}
"""Where the cycles of PEs go, as the result names it."""


def map_graph(
    graph: WorkloadGraph,
    arch: PEGrid,
    *,
    mapper: str = "exhaustive",
    objective: str | Objective = Objective.CYCLES,
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
) -> MapperResult:
    """Return every operator of `graph` on `arch`, structures drawn from `seed`.

    With memory modelled a mapper chooses the blocking of every product (`mapping.grid_mappers`);
    in the other modes a product is one block. Raises ValueError for an unknown mapper or
    objective, a training step, a mask of another shape or a frame longer than a delta encoder's
    state, and NoMapping for an operator that fits no buffer.
    """
    wanted = Objective.of(objective)
    work = _Work(graph, arch, seed, known_mapper(mapper), wanted)
    return map_inference(
        graph, arch, work.product, work.notes, mapper=mapper, objective=wanted, on_op=on_op
    )


@dataclass(slots=True, eq=False)
class _Work:
    """Lowers products one by one and remembers what it has timed."""

    graph: WorkloadGraph
    arch: PEGrid
    seed: int
    mapper: str
    objective: Objective
    known: dict[Any, Lowered] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def product(self, op: Op) -> Lowered:
        """Return one product and its bound; equal ones that are drawn share their time."""
        assert op.gemm is not None
        key = (op.gemm, op.window, bool(op.post), *map(self._source, (*op.inputs[:2], op.output)))
        again = key in self.known
        if not again:
            self.known[key] = self._lowered(op)
        elif self._drawn(op):
            self.shared.append(op.name)
        if self.arch.skips_activations and self._dense(op.inputs[0]):
            self.unseen.append(op.name)
        found = self.known[key]
        named = replace(found.op, name=op.name, kind=op.kind.value, repeat=op.repeat)
        return replace(found, op=named, considered=0 if again else found.considered)

    def _dense(self, tensor: str) -> bool:
        spec = self.graph.tensors[tensor]
        return isinstance(spec.sparsity, Dense) and tensor not in self.graph.values

    def _source(self, tensor: str) -> Any:
        """Return what a tensor's zeros follow from: its values, or its structure."""
        spec = self.graph.tensors[tensor]
        return tensor if tensor in self.graph.values else (spec.shape, spec.sparsity)

    def _drawn(self, op: Op) -> bool:
        return not all(self._dense(name) for name in op.inputs[:2])

    def notes(self) -> Iterator[str]:
        """Yield what the reader may not expect."""
        weights = {op.inputs[1] for op in self.graph.gemm_ops} & set(self.graph.values)
        kept = sum(int(np.count_nonzero(self.graph.values[name])) for name in sorted(weights))
        held = sum(nnz_of(self.graph, name) for name in sorted(weights))
        if kept > held:
            yield rounding_note(self.arch.precision, 1 - held / kept)
        if self.shared:
            yield (
                "Masks are drawn once for operators of equal shape and structure; drawn for "
                f"another: {listed(self.shared)}"
            )
        if self.unseen:
            yield (
                "Activations count as dense, since none were recorded (run --record) or given: "
                f"{listed(self.unseen)}"
            )

    def _lowered(self, op: Op) -> Lowered:
        """Return a product lowered by what the mapper chooses."""
        assert op.gemm is not None
        timed = self._timed(op)
        outputs = op.gemm.groups * op.gemm.m * op.gemm.n
        post: dict[Event, int] = {("vector", "op", "full"): outputs} if op.post else {}
        fixed = add([_array_events(self.arch, timed.cells), post])
        if self.arch.memory is not MemoryMode.MODELLED:
            whole = blocking(timed, (1, 1, 1), rows_outer=True)
            return Lowered(
                op=_scheduled(op, whole, program(whole), fixed), shape=whole.tile, considered=1
            )
        found = blockings(timed)
        if not found:
            why = misfit(timed, timed.cells.cell.shape)
            raise NoMapping(f"Op {op.name!r} fits no buffer: {why}")
        best = MAPPERS[self.mapper](self.objective, fixed, found)
        return Lowered(
            op=_scheduled(op, best.blocking, best.program, fixed),
            shape=best.blocking.tile,
            bound=best.bound,
            considered=len(found),
        )

    def _timed(self, op: Op) -> Timed:
        """Return a product with its exact time, drawn from its operands' structures."""
        g = op.gemm
        assert g is not None
        self._check_delta(op)
        try:
            act = act_lanes(self.graph, op, seed=self.seed)
            weight = weight_lanes(self.graph, op, self.arch.balance, seed=self.seed)
        except ValueError as error:
            raise ValueError(f"Op {op.name!r}: {error}") from None
        return Timed(
            grid=self.arch,
            gemm=g,
            cells=time_gemm(self.arch, g, act, weight),
            act=act.stored,
            weight=weight.stored,
            written=self._written(op),
        )

    def _check_delta(self, op: Op) -> None:
        g, most = op.gemm, self.arch.delta_chunks
        assert g is not None
        chunks = -(-g.k // self.arch.chunk)
        if most and chunks > most:
            raise ValueError(
                f"Op {op.name!r}: a frame of {g.k} activations is {chunks} chunks, but the delta "
                f"encoder keeps the state of delta_chunks = {most}"
            )

    def _written(self, op: Op) -> Packed:
        """Return the results as they go to memory: compressed if their zeros are known."""
        assert op.gemm is not None
        outputs, bits = op.gemm.groups * op.gemm.m * op.gemm.n, self.arch.operand_bits
        spec = self.graph.tensors[op.output]
        if self._dense(op.output) or spec.size != outputs:
            return Packed(value_bits=bits * outputs)
        return least_packed(outputs, nnz_of(self.graph, op.output), bits)


def _scheduled(op: Op, b: Blocking, block: Block, fixed: dict[Event, int]) -> OpSchedule:
    """Return an operator run as `block`, the program of a blocking."""
    assert op.gemm is not None
    grid, cells = b.timed.grid, b.timed.cells
    return OpSchedule(
        name=op.name,
        kind=op.kind.value,
        program=block,
        tokens=tokens(b),
        macs_dense=op.gemm.macs,
        macs_effectual=cells.events.effectual,
        macs_weight=cells.macs_weight,
        macs_act=cells.macs_act,
        array_waits=_waits(grid, cells, b),
        counts=add([fixed, moved(b)]),
        detail={
            "dataflow": "os",
            "nm": f"skip {grid.skip}",
            "tile": f"{grid.rows}x{grid.cols}x{grid.chunk}, {b.shape}",
        },
    )


def _waits(grid: PEGrid, cells: Cells, b: Blocking) -> dict[str, int]:
    """Return the cycles that PEs wait on average by cause; with their work they sum to the time.

    Shares are rounded by largest remainder, so that the sum is exact.
    """
    totals = np.array([cells.cell[name].sum() for name in RECORD])
    cycles, tiles = int((b.first + b.others).sum()), int(cells.cell["tiles"].sum())
    spent = pe_cycles(grid, totals, cycles=cycles, tiles=tiles, jobs=b.size)
    shares = dict.fromkeys(CAUSES.values(), 0)
    for name, cause in CAUSES.items():
        shares[cause] += spent[name]
    whole = {cause: share // grid.pes for cause, share in shares.items()}
    rest = sorted(shares, key=lambda cause: -(shares[cause] % grid.pes))
    for cause in rest[: cycles - sum(whole.values())]:
        whole[cause] += 1
    del whole["compute"]
    return whole


def _array_events(grid: PEGrid, cells: Cells) -> dict[Event, int]:
    """Return what the array does: multiplier uses, and bits of chunks taken from the buffers."""
    counts, bits = cells.events.counts, grid.operand_bits
    events: dict[Event, int] = {
        ("mac", grid.precision.value, "full"): counts["pe", "mac", "full"],
        ("mac", grid.precision.value, "gated"): counts["pe", "mac", "gated"],
    }
    for side, buffer in (("side", "act_buffer"), ("top", "weight_buffer")):
        events[buffer, "read", "full"] = bits * counts[side, "value", "full"]
        events[buffer, "read", "metadata"] = grid.chunk * counts[side, "chunk", "full"]
    if grid.delta_chunks:
        events["delta", "compare", "full"] = grid.chunk * counts["side", "chunk", "full"]
    return events
