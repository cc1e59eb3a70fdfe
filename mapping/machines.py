"""Map a workload by the machine it is for."""

from collections.abc import Callable

from mapping import closed_form, pe_grid
from mapping import graph as nm_array
from mapping.types import MapperResult
from simulator.arch import Accelerator, NMArray, PEGrid
from workloads.graph import WorkloadGraph

__all__ = ["map_graph"]


def map_graph(
    graph: WorkloadGraph,
    arch: Accelerator,
    *,
    mapper: str = "exhaustive",
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
) -> MapperResult:
    """Return every operator of `graph` mapped onto `arch`.

    Where time depends on where zeros are, structures are drawn from `seed`.

    Raises ValueError for an unknown mapper and NoMapping for an operator that fits no buffer.
    `on_op` is called with each operator's name when it is mapped.
    """
    if isinstance(arch, NMArray):
        return nm_array.map_graph(graph, arch, mapper=mapper, on_op=on_op)
    if isinstance(arch, PEGrid):
        return pe_grid.map_graph(graph, arch, mapper=mapper, seed=seed, on_op=on_op)
    return closed_form.map_graph(graph, arch, mapper=mapper, on_op=on_op)
