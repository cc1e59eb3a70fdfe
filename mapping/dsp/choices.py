"""What the compiler chose for every operator of a decoder, and what that costs.

The compiler has one way for an operator of a phase, so its mapping is the only candidate and its
bound is its cost. Costs are of all runs of a phase, each with the time and events of its bucket.
"""

import collections.abc as abc
from typing import Any, Final

from mapping.dsp.compile import CompiledModel
from mapping.dsp.events import code_events
from mapping.dsp.phase import Codes, PhaseRun, macs, scored_tokens, split_products
from mapping.dsp.tiles import Unit
from mapping.objective import Number, Objective, cost_of
from mapping.problem import TileShape
from mapping.types import MapperResult, Tiled
from simulator.arch.dsp_chain import DspChain
from simulator.counts import scale
from simulator.dsp_isa import Code, Module, count, walk
from simulator.result import Result
from simulator.schedule import OpSchedule, Schedule

__all__ = ["decoder_mapping"]

ONE_WAY: Final = (
    "The compiler of a DspChain has one way for every operator: each mapper and objective finds it"
)


def decoder_mapping(
    model: CompiledModel,
    phases: abc.Sequence[PhaseRun],
    result: Result,
    *,
    mapper: str,
    objective: Objective,
    seconds: float,
) -> MapperResult:
    """Return the operators of all phases with their tiles and costs.

    Programs stay in the compiled model: an operator's is empty.
    """
    costs = tuple(cost for phase in phases for cost in _costs(model, phase, objective))
    ops = tuple(op for phase in phases for op in _ops(model.arch, phase))
    tiles = ((op.name, op.detail.get("shape")) for op in ops)
    return MapperResult(
        schedule=Schedule(
            workload=result.workload,
            workload_digest=result.provenance.workload_digest,
            arch_digest=result.provenance.arch_digest,
            sparsity=result.sparsity,
            ops=ops,
            notes=(*result.notes, ONE_WAY),
        ),
        mappings=tuple(Tiled(op=name, shape=s, considered=1) for name, s in tiles if s),
        mapper=mapper,
        objective=objective,
        op_costs=costs,
        op_bounds=costs,
        considered=len(ops),
        seconds=seconds,
    )


def _ops(arch: DspChain, phase: PhaseRun) -> abc.Iterator[OpSchedule]:
    """Yield the rows of a phase as operators; one behind all nodes fetches instructions."""
    known: dict[tuple[int, ...], dict[str, Any]] = {}
    for row, codes in zip(phase.rows, (*phase.codes, ()), strict=False):
        key = tuple(id(section.code) for section, _ in codes)
        if key not in known:
            known[key] = _choice(arch, codes)
        yield OpSchedule(
            name=str(row["name"]),
            kind=str(row["kind"]),
            program=(),
            repeat=sum(times for _, times in phase.programs),
            macs_dense=int(row["macs_dense"]),
            macs_effectual=int(row["macs_effectual"]),
            detail={"dataflow": str(row["dataflow"]), "nm": str(row["nm"]), **known[key]},
        )


def _choice(arch: DspChain, codes: Codes) -> dict[str, Any]:
    """Return the tile of a node's products in its largest bucket, weight bits, and all loads."""
    if not codes:
        return {}
    found = {"loads": sum(count(section.code)[Module.LD] * times for section, times in codes)}
    return found | _tile(arch, codes[-1][0].code)


def _tile(arch: DspChain, code: Code) -> dict[str, Any]:
    items = [item for item, _ in walk(code)]
    products = [item for item in items if item.module in (Module.MM, Module.MV)]
    if not products:
        return {}
    matrix = products[0].module is Module.MM
    shape = TileShape(
        units=1,
        m=max(item.get("tokens") for item in products) if matrix else 1,
        k=arch.group * max(item.get("groups") for item in products),
        n=Unit.of(arch, matrix=matrix).tile_columns,
    )
    bits = max(item.get("bits") for item in items if item.module is Module.LD)
    return {"shape": shape, **({"bits": bits} if bits else {})}


def _costs(model: CompiledModel, phase: PhaseRun, objective: Objective) -> abc.Iterator[Number]:
    """Yield what each row of a phase costs, in the objective's unit."""
    cycles = phase.rows["cycles"].tolist()
    for index, taken in enumerate(cycles):
        if index == len(phase.nodes):  # instructions come from a memory of their own
            yield cost_of(model.arch, objective, {}, taken)
        elif objective is Objective.EDP:
            yield _delayed(model, phase, index)
        else:
            yield cost_of(model.arch, objective, phase.events[index], taken)


def _delayed(model: CompiledModel, phase: PhaseRun, index: int) -> Number:
    """Return the energy of every run of a node times the run's own time, summed."""
    arch, cost, first = model.arch, 0.0, model.decoder.prefill + 1
    for (section, times), cycles in zip(phase.codes[index], phase.alone[:, index], strict=True):
        tokens, scored = model.decoder.prefill, 0
        if phase.name == "decode":
            tokens, scored, first = times, scored_tokens(first, times), first + times
        _, effectual = macs(model, phase.nodes[index], phase.name, tokens, scored)
        events = split_products(scale(code_events(arch, section.code), times), effectual)
        cost += cost_of(arch, Objective.EDP, events, int(cycles))
    return cost
