"""Several workloads on one machine, mapped together: a product that two share is mapped once."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TypeVar

from mapping import map_graph
from simulator.arch import NMArray
from simulator.result import Result
from simulator.schedule import OpSchedule, Schedule
from simulator.simulate import op_cycles, simulate
from workloads.graph import Op, OpKind, WorkloadGraph
from workloads.passes import union

__all__ = ["cycles_together", "simulate_together", "without_products", "without_streams"]

Key = TypeVar("Key", bound=Hashable)


def _programs(
    graphs: Mapping[Key, WorkloadGraph], arch: NMArray
) -> dict[Key, tuple[OpSchedule, ...]]:
    """Return the programs of every graph, operators named as in it."""
    whole = union({str(index): graph for index, graph in enumerate(graphs.values())}, "together")
    ops = iter(map_graph(whole, arch).schedule.ops)
    return {
        key: tuple(replace(next(ops), name=op.name) for op in graph.ops)
        for key, graph in graphs.items()
    }


def simulate_together(graphs: Mapping[Key, WorkloadGraph], arch: NMArray) -> dict[Key, Result]:
    """Return the result of every graph: the cycles, events and records of simulating it alone."""
    return {
        key: simulate(
            Schedule(
                workload=graphs[key].name,
                workload_digest=graphs[key].digest(),
                arch_digest=arch.digest(),
                sparsity=str(key),
                ops=ops,
                notes=graphs[key].notes,
            ),
            arch,
        )
        for key, ops in _programs(graphs, arch).items()
    }


def cycles_together(graphs: Mapping[Key, WorkloadGraph], arch: NMArray) -> dict[Key, int]:
    """Return the cycles of every graph, without events or causes."""
    known: dict[int, int] = {}
    totals = {}
    programs = _programs(graphs, arch)
    for key, ops in programs.items():
        for op in ops:
            if id(op.program) not in known:
                known[id(op.program)] = op_cycles(arch, op)
        totals[key] = sum(known[id(op.program)] * op.repeat for op in ops)
    return totals


def without_streams(step: WorkloadGraph) -> WorkloadGraph:
    """Return the products of a training step alone."""
    return replace(step, ops=tuple(step.gemm_ops))


def without_products(step: WorkloadGraph) -> WorkloadGraph:
    """Return a training step with its products as views, which are free: the other units' work."""
    return replace(step, ops=tuple(_view(op) if op.gemm else op for op in step.ops))


def _view(op: Op) -> Op:
    return Op(name=op.name, kind=OpKind.RESHAPE, inputs=op.inputs, output=op.output, phase=op.phase)
