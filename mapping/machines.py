"""Map a workload by the machine it is for."""

from collections.abc import Callable

from mapping import closed_form
from mapping import graph as nm_array
from mapping.cache import Cache
from mapping.objective import Objective
from mapping.types import MapperResult
from simulator.arch import Accelerator, NMArray
from workloads.graph import WorkloadGraph

__all__ = ["map_graph"]


def map_graph(
    graph: WorkloadGraph,
    arch: Accelerator,
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
    if isinstance(arch, NMArray):
        return nm_array.map_graph(
            graph, arch, mapper=mapper, objective=objective, cache=cache, on_op=on_op
        )
    return closed_form.map_graph(graph, arch, mapper=mapper, objective=objective, on_op=on_op)
