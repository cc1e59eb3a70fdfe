"""Map and run a workload by the machine it is for."""

from collections.abc import Callable
from dataclasses import dataclass

from mapping import closed_form, pe_grid
from mapping import graph as nm_array
from mapping.cache import Cache
from mapping.dsp import simulate_decoder
from mapping.objective import Objective
from mapping.types import MapperResult
from simulator.arch import Accelerator, DspChain, NMArray, PEGrid
from simulator.result import Result, Totals
from simulator.simulate import simulate, totals
from workloads.graph import WorkloadGraph

__all__ = ["Simulated", "map_graph", "simulate_graph", "total_graph"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulated:
    """A workload mapped, and what running it came to."""

    mapped: MapperResult
    result: Result


def _check_fuses(arch: Accelerator, fuse: bool) -> None:
    """Raise ValueError if operators are to be fused on a machine that cannot."""
    if fuse and not isinstance(arch, NMArray):
        raise ValueError(f"{type(arch).__name__} does not fuse operators; NMArray does")


def map_graph(
    graph: WorkloadGraph,
    arch: Accelerator,
    *,
    mapper: str = "exhaustive",
    objective: str | Objective = Objective.CYCLES,
    fuse: bool = False,
    cache: Cache | None = None,
    compress: bool = True,
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
) -> MapperResult:
    """Return every operator of `graph` mapped onto `arch` at the least cost under `objective`.

    With `fuse` tensors between operators of an N:M array may stay on chip. Problems that `cache`
    holds are not solved again. Unless `compress` is false, a dense graph of the model that a
    machine's preset was published with is compressed as it was. Where time depends on where zeros
    are, structures are drawn from `seed`. `on_op` is called with each operator's name when it is
    mapped. Raises ValueError for an unknown mapper or objective and where nothing can be fused,
    and NoMapping for an operator that fits no buffer.
    """
    if isinstance(arch, DspChain):  # the only mapping is costed by running it
        return simulate_graph(
            graph,
            arch,
            mapper=mapper,
            objective=objective,
            fuse=fuse,
            compress=compress,
            seed=seed,
            on_op=on_op,
        ).mapped
    _check_fuses(arch, fuse)
    if isinstance(arch, NMArray):
        return nm_array.map_graph(
            graph, arch, mapper=mapper, objective=objective, fuse=fuse, cache=cache, on_op=on_op
        )
    if isinstance(arch, PEGrid):
        return pe_grid.map_graph(
            graph, arch, mapper=mapper, objective=objective, seed=seed, on_op=on_op
        )
    return closed_form.map_graph(graph, arch, mapper=mapper, objective=objective, on_op=on_op)


def simulate_graph(
    graph: WorkloadGraph,
    arch: Accelerator,
    *,
    mapper: str = "exhaustive",
    objective: str | Objective = Objective.CYCLES,
    fuse: bool = False,
    cache: Cache | None = None,
    compress: bool = True,
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
) -> Simulated:
    """Return `graph` mapped onto `arch` and run; the arguments are those of `map_graph`."""
    if isinstance(arch, DspChain):
        _check_fuses(arch, fuse)
        done = simulate_decoder(
            graph,
            arch,
            mapper=nm_array.known_mapper(mapper),
            objective=Objective.of(objective),
            compress=compress,
            seed=seed,
        )
        if on_op:
            for op in graph.ops:
                on_op(op.name)
        return Simulated(mapped=done.mapped, result=done.result)
    mapped = map_graph(
        graph,
        arch,
        mapper=mapper,
        objective=objective,
        fuse=fuse,
        cache=cache,
        seed=seed,
        on_op=on_op,
    )
    return Simulated(mapped=mapped, result=simulate(mapped.schedule, arch, seed=seed))


def total_graph(
    graph: WorkloadGraph,
    arch: Accelerator,
    *,
    mapper: str = "exhaustive",
    objective: str | Objective = Objective.CYCLES,
    cache: Cache | None = None,
) -> Totals:
    """Return the sums of what `simulate_graph` returns, faster: without the causes of waiting.

    Nothing is compressed that is not in `graph`.
    """
    if isinstance(arch, DspChain):
        done = simulate_graph(graph, arch, mapper=mapper, objective=objective, compress=False)
        return done.result.totals()
    mapped = map_graph(graph, arch, mapper=mapper, objective=objective, cache=cache)
    return totals(mapped.schedule, arch)
