"""The Python surface: one function for each step from a source to a price."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cost_models import HOROWITZ_45NM, Cost, EnergyTable
from cost_models import price as price_counts
from mapping import Cache, MapperResult, map_graph, simulate_graph
from simulator.arch import Accelerator
from simulator.arch.load import load_arch
from simulator.result import Result
from simulator.schedule import Schedule
from simulator.simulate import simulate as simulate_schedule
from workloads import frontends
from workloads.gemm import gemm_graph
from workloads.graph import WorkloadGraph
from workloads.sparsity import Sparsity

__all__ = ["arch", "gemm", "load", "map", "price", "simulate"]


def load(source: str | Path | WorkloadGraph, **options: Any) -> WorkloadGraph:
    """Return the workload of a zoo name, a decoder's .yaml, an .onnx or a SCALE-Sim topology .csv.

    Options are those of the source: batch, image, length, prefill and decode for the zoo, inputs
    for ONNX, with prefill and decode if it is a decoder. Raises ValueError naming the source and
    what is allowed.
    """
    return frontends.load(source, **options)


def arch(source: str | Path | Accelerator, **overrides: Any) -> Accelerator:
    """Return the machine of a preset or a YAML file, fields overridden by keyword.

    >>> arch("systolic", rows=8, cols=8, dataflow="os").pes
    64
    """
    return load_arch(source, **overrides)


def gemm(
    m: int,
    k: int,
    n: int,
    *,
    weight: Sparsity | None = None,
    activation: Sparsity | None = None,
    groups: int = 1,
) -> WorkloadGraph:
    """Return a workload of one product: activations (m, k) times weights (k, n).

    Both operands are dense by default; an `Explicit` mask has the shape of its operand.

    >>> gemm(4, 8, 2).macs
    64
    """
    return gemm_graph(m, k, n, weight=weight, activation=activation, groups=groups)


def map(
    graph: WorkloadGraph,
    arch: str | Path | Accelerator,
    *,
    mapper: str = "exhaustive",
    objective: str = "cycles",
    fuse: bool = False,
    cache: str | Path | None = None,
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
) -> MapperResult:
    """Return the schedule of `graph` on `arch` with the choice made for every operator.

    Mappers: exhaustive and integer prove the least cost in the machine's space, greedy is a fast
    baseline; a DspChain's compiler and closed forms have one way, which is costed. Objectives:
    cycles, energy (J), edp (J s, summed over operators) and dram_bytes.
    With `fuse` tensors between operators may stay on chip: a larger space, of N:M arrays only.
    Proved choices are kept in the folder `cache`, if one is given. Where time depends on where
    zeros are, structures are drawn from `seed`. `on_op` is called with each operator's name when
    it is mapped. Raises ValueError for an unknown mapper or objective and for an operator that
    fits no buffer.

    >>> found = map(gemm(64, 64, 64), "nm-tiny", mapper="integer", objective="energy")
    >>> found.gap
    0.0
    """
    return map_graph(
        graph,
        load_arch(arch),
        mapper=mapper,
        objective=objective,
        fuse=fuse,
        cache=_kept(cache),
        seed=seed,
        on_op=on_op,
    )


def _kept(folder: str | Path | None) -> Cache | None:
    return Cache(Path(folder)) if folder else None


def simulate(
    workload: WorkloadGraph | MapperResult | Schedule,
    arch: str | Path | Accelerator,
    *,
    mapper: str = "exhaustive",
    objective: str = "cycles",
    fuse: bool = False,
    cache: str | Path | None = None,
    seed: int = 0,
) -> Result:
    """Return the exact cycles and counted events of a workload, mapping it first if needed.

    mapper, objective, fuse and cache are those of `map`. On a DspChain a dense graph of the
    preset's published model runs compressed as published; with `compression=None` on the machine
    it runs dense. Raises ValueError for anything but a workload.
    """
    machine = load_arch(arch)
    match workload:
        case WorkloadGraph():
            return simulate_graph(
                workload,
                machine,
                mapper=mapper,
                objective=objective,
                fuse=fuse,
                cache=_kept(cache),
                seed=seed,
            ).result
        case MapperResult():
            return simulate_schedule(workload.schedule, machine, seed=seed)
        case Schedule():
            return simulate_schedule(workload, machine, seed=seed)
        case _:
            raise ValueError(
                f"Only a graph, as `load` returns, or its schedule is simulated, not {workload!r}"
            )


def price(result: Result, *, table: EnergyTable = HOROWITZ_45NM, dram: str | None = None) -> Cost:
    """Return the energy of `result` by `table`, with another main memory if `dram` names one.

    Raises MissingPrice if a counted event has no price.
    """
    return price_counts(result, table=table.with_dram(dram) if dram else table)
