"""Map a workload onto the PEGrid: exact time from masks, memory in double-buffered blocks.

Masks come from known values, recorded activations or a structure drawn from a seed; operators
of equal shape and structure share one draw. Whatever is not known to be zero counts as dense.
"""

import collections.abc as abc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mapping.graph import rounding_note
from mapping.grid_blocks import Blocking, Part, Timed, blocking, blockings
from mapping.grid_cells import RECORD, Cells, time_gemm
from mapping.grid_lanes import act_lanes, weight_lanes
from mapping.inference import Lowered, map_inference, transfer_cycles
from mapping.objective import Objective
from mapping.types import MapperResult, NoMapping
from simulator.arch import MemoryMode, PEGrid
from simulator.counts import Event, add
from simulator.engine import program_cycles
from simulator.models.product import Packed, least_packed
from simulator.schedule import Block, OpSchedule, Step, Unit
from simulator.units.pe_grid import pe_cycles
from workloads.graph import Op, WorkloadGraph
from workloads.pruning import listed, nnz_of
from workloads.sparsity import Dense

__all__ = ["map_graph"]

Ints = NDArray[np.int64]

MOST_PROGRAMS: Final = 4
"""Blockings whose exact time is looked at beside the one estimated fastest."""

SLACK: Final = 1.01
"""Time that less traffic may cost: a percent."""

TOKENS: Final = {"shadow": 1}

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

    Every mapper and objective finds the same: of the blockings that fit the buffers one that is
    about as fast as the fastest, within a percent, and moves least. Raises ValueError for an
    unknown mapper or objective, a training step, a mask of another shape or a frame longer
    than a delta encoder's state, and NoMapping for an operator that fits no buffer.
    """
    work = _Work(graph, arch, seed)
    return map_inference(
        graph, arch, work.product, work.notes, mapper=mapper, objective=objective, on_op=on_op
    )


@dataclass(slots=True, eq=False)
class _Work:
    """Lowers products one by one and remembers what it has timed."""

    graph: WorkloadGraph
    arch: PEGrid
    seed: int
    known: dict[Any, Lowered] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def product(self, op: Op) -> Lowered:
        """Return one product and its bound; equal ones that are drawn share their time."""
        assert op.gemm is not None
        key = (op.gemm, op.window, bool(op.post), *map(self._source, (*op.inputs[:2], op.output)))
        if key not in self.known:
            self.known[key] = self._timed(op)
        elif self._drawn(op):
            self.shared.append(op.name)
        if self.arch.skips_activations and self._dense(op.inputs[0]):
            self.unseen.append(op.name)
        chosen, least = self.known[key]
        named = replace(chosen, name=op.name, kind=op.kind.value, repeat=op.repeat)
        return named, named if least is chosen else least

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

    def _timed(self, op: Op) -> Lowered:
        g, grid = op.gemm, self.arch
        assert g is not None
        self._check_delta(op)
        try:
            act = act_lanes(self.graph, op, seed=self.seed)
            weight = weight_lanes(self.graph, op, grid.balance, seed=self.seed)
        except ValueError as error:
            raise ValueError(f"Op {op.name!r}: {error}") from None
        cells = time_gemm(grid, g, act, weight)
        timed = Timed(gemm=g, cells=cells, act=act.stored, weight=weight.stored)
        written = self._written(op)
        found = self._blockings(op, timed)
        chosen, program = _thriftiest(grid, found, written)
        outputs = g.groups * g.m * g.n
        moved = _moved(grid, chosen, written)
        done = OpSchedule(
            name=op.name,
            kind=op.kind.value,
            program=program,
            tokens=_tokens(chosen),
            macs_dense=g.macs,
            macs_effectual=cells.events.effectual,
            macs_weight=cells.macs_weight,
            macs_act=cells.macs_act,
            array_waits=_waits(grid, cells, chosen),
            counts=add(
                [
                    _array_events(grid, cells),
                    moved,
                    {("vector", "op", "full"): outputs} if op.post else {},
                ]
            ),
            detail={
                "dataflow": "os",
                "nm": f"skip {grid.skip}",
                "tile": f"{grid.rows}x{grid.cols}x{grid.chunk}, {chosen.shape}",
            },
        )
        if len(found) == 1:
            return done, done
        least = _least_moved(grid, found, written)
        spared = {event: least[event] - n for event, n in moved.items()}
        bound = replace(
            done,
            program=(Step(unit=Unit.ARRAY, label="least", cycles=_floor(grid, found, written)),),
            tokens={},
            counts=add([done.counts, spared]),
        )
        return done, bound

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

    def _blockings(self, op: Op, timed: Timed) -> list[Blocking]:
        """Return the blockings to choose from, at least one."""
        if self.arch.memory is not MemoryMode.MODELLED:
            return [blocking(self.arch, timed, (1, 1, 1), rows_outer=True)]
        found = blockings(self.arch, timed)
        if not found:
            finest = blocking(self.arch, timed, timed.cells.cell.shape, rows_outer=True)
            raise NoMapping(f"Op {op.name!r} fits no buffer: {finest.misfit(self.arch)}")
        return found


def _floor(grid: PEGrid, found: list[Blocking], written: Packed) -> int:
    """Return cycles that none of the blockings falls below: its array's, its transfers'."""
    array = (int((b.first + b.others).sum()) for b in found)
    bits = (_traffic(grid, b) + written.bits for b in found)
    rate = 8 * grid.dram.bandwidth_bytes_per_s
    return min(max(n, m * grid.clock_hz // rate) for n, m in zip(array, bits, strict=True))


def _least_moved(grid: PEGrid, found: list[Blocking], written: Packed) -> Counter[Event]:
    """Return the least of each event of moving data that any of the blockings takes."""
    events = [Counter(_moved(grid, b, written)) for b in found]
    least = events[0].copy()
    for other in events[1:]:
        least &= other
    return least


def _thriftiest(grid: PEGrid, found: list[Blocking], written: Packed) -> tuple[Blocking, Block]:
    """Return the blocking that moves least among those about as fast as the fastest."""
    about = [_estimate(grid, b, written) for b in found]
    near = [b for b, cycles in zip(found, about, strict=True) if cycles <= SLACK * min(about)]
    near.sort(key=lambda b: _traffic(grid, b))
    fastest = found[about.index(min(about))]
    tried = [(b, _program(grid, b, written)) for b in (fastest, *near[:MOST_PROGRAMS])]
    cycles = [program_cycles(program, _tokens(b)) for b, program in tried]
    fit = [pair for pair, n in zip(tried, cycles, strict=True) if n <= SLACK * min(cycles)]
    return min(fit, key=lambda pair: _traffic(grid, pair[0]))


def _traffic(grid: PEGrid, b: Blocking) -> int:
    """Return the operand bits that come from memory."""
    return sum(_load_bits(grid, b.act)) + sum(_load_bits(grid, b.weight))


def _load_bits(grid: PEGrid, part: Part) -> list[int]:
    return [moved.bits if moved else 0 for moved in part.moved(grid)]


def _store_bits(b: Blocking, written: Packed) -> Ints:
    """Return the bits that each block writes, in proportion to its results."""
    ends: Ints = written.bits * b.outputs.cumsum() // b.outputs.sum()
    return np.diff(ends, prepend=0)


def _estimate(grid: PEGrid, b: Blocking, written: Packed) -> float:
    """Return about how long a blocking takes: the slower of work and transfers, block by block."""
    loads = sum(np.array(_load_bits(grid, part)) for part in (b.act, b.weight))
    moved = np.append(loads, 0.0)
    moved[2:] += _store_bits(b, written)[:-1]
    cycles = moved * grid.clock_hz / (8 * grid.dram.bandwidth_bytes_per_s)
    last = transfer_cycles(grid, int(_store_bits(b, written)[-1]))
    beside = np.maximum(b.first + b.others, cycles[1:] + grid.dram.latency_cycles * (loads > 0))
    return float(cycles[0] + beside.sum() + last)


def _tokens(b: Blocking) -> abc.Mapping[str, int]:
    out = 1 + (b.size > 1)
    return {**TOKENS, "act.free": b.act.slots, "weight.free": b.weight.slots, "out.free": out}


def _load(grid: PEGrid, name: str, bits: int) -> Step:
    return Step(
        unit=Unit.DMA,
        label=f"load {name}",
        cycles=transfer_cycles(grid, bits),
        latency=grid.dram.latency_cycles,
        waits=(f"{name}.free",),
        releases=(f"{name}.full",),
    )


def _array(
    grid: PEGrid, b: Blocking, index: int, fresh: list[str], done: list[str]
) -> tuple[Step, ...]:
    """Return a block's steps on the array and its drain.

    The sums of the first tile move to the shadow registers when those of the block before have
    left them; so do the others' in turn, whose intervals allow for it.
    """
    first = Step(
        unit=Unit.ARRAY,
        label="first tile",
        cycles=int(b.first[index]),
        busy=int(b.first_busy[index]),
        waits=(*(f"{name}.full" for name in fresh), "out.free"),
    )
    others = Step(
        unit=Unit.ARRAY,
        label="array",
        cycles=int(b.others[index]),
        busy=int(b.others_busy[index]),
        waits=("shadow",),
        releases=("done", *(f"{name}.free" for name in done)),
    )
    drain = Step(
        unit=Unit.DRAIN,
        label="drain",
        cycles=grid.drain_beats,
        waits=("done",),
        releases=("shadow", "out.full"),
    )
    return first, others, drain


def _store(grid: PEGrid, bits: int) -> Step:
    return Step(
        unit=Unit.DMA,
        label="store",
        cycles=transfer_cycles(grid, bits),
        waits=("out.full",),
        releases=("out.free",),
    )


def _program(grid: PEGrid, b: Blocking, written: Packed) -> Block:
    """Return the blocks in order; a store is issued behind the next block's loads."""
    parts = {"act": b.act, "weight": b.weight}
    bits = {name: _load_bits(grid, part) for name, part in parts.items()}
    stores = _store_bits(b, written).tolist()
    block: list[Step] = []
    for index in range(b.size):
        fresh = [name for name, part in parts.items() if part.loaded[index]]
        last = index == b.size - 1
        done = [name for name, part in parts.items() if last or part.loaded[index + 1]]
        block += [_load(grid, name, bits[name][index]) for name in fresh]
        block += _array(grid, b, index, fresh, done)
        if index:
            block.append(_store(grid, stores[index - 1]))
    return (*block, _store(grid, stores[-1]))


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


def _moved(grid: PEGrid, b: Blocking, written: Packed) -> dict[Event, int]:
    """Return the events of bringing operands in and results out."""
    outputs = grid.operand_bits * int(b.outputs.sum())
    found: list[dict[Event, int]] = [
        written.events("dram", "write"),
        {("out_buffer", "write", "full"): outputs, ("out_buffer", "read", "full"): outputs},
    ]
    for name, part in (("act_buffer", b.act), ("weight_buffer", b.weight)):
        found += [moved.events("dram", "read") for moved in part.moved(grid) if moved]
        held = {
            (name, "write", "full"): grid.operand_bits * int(part.nonzeros[part.loaded].sum()),
            (name, "write", "metadata"): int(part.positions[part.loaded].sum()),
        }
        found.append(held)
    return add(found)
