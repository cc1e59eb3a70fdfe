"""The document of a mapping: what `map --json` prints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mapping import Cache, MapperResult, map_graph
from simulator.arch import DspChain
from sparseloom.runs import check_trainer, named_arch, prepared
from workloads.graph import WorkloadGraph
from workloads.sparsity import Sparsity

__all__ = ["mapped_document"]


def mapped_document(
    source: str | Path | WorkloadGraph,
    *,
    arch: str | Path,
    mapper: str = "exhaustive",
    objective: str = "cycles",
    fuse: bool = False,
    sparsity: str | Sparsity | None = None,
    memory: str | None = None,
    first_layer: bool = False,
    phase: str = "infer",
    method: str | None = None,
    cache: Path | None = None,
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Load, sparsify and map `source` on `arch`; return the choices and how good they are.

    cost and bound are of the whole run, in `unit`; with `fuse` the document has the chains that are
    `fused`. Proved choices are kept in the folder `cache`.
    The other arguments are those of `run`.
    """
    machine, arch_name = named_arch(arch, memory)
    ready = prepared(
        source, sparsity, first_layer=first_layer, phase=phase, method=method, options=options
    )
    check_trainer(ready, machine, arch_name)
    found = map_graph(
        ready.graph,
        machine,
        mapper=mapper,
        objective=objective,
        fuse=fuse,
        cache=Cache(cache),
        compress=sparsity is None,
        seed=seed,
        on_op=on_op,
    )
    compiled = isinstance(machine, DspChain)  # perhaps compressed as published
    return {
        "workload": ready.graph.name,
        "arch": arch_name,
        "sparsity": found.schedule.sparsity if compiled else str(ready.sparsity),
        "mapper": found.mapper,
        "objective": found.objective.value,
        "unit": found.objective.unit,
        "cost": found.cost,
        "bound": found.bound,
        "gap": found.gap,
        "considered": found.considered,
        "seconds": found.seconds,
        **({"fused": _fused(found)} if fuse else {}),
        "ops": _ops(found),
        "notes": list(found.schedule.notes),
    }


def _fused(found: MapperResult) -> dict[str, Any]:
    """Return the chains whose tensors stay on chip, and the cost without any."""
    if found.fused is None:
        return {"chains": [], "unfused": found.cost}
    return {"chains": [list(chain) for chain in found.fused.chains], "unfused": found.fused.unfused}


def _ops(found: MapperResult) -> list[dict[str, Any]]:
    """Return every operator with the cost of all its executions; streams have no tile.

    On a DspChain an operator also has the bits of its weights and its loads.
    """
    shapes = {mapping.op: mapping.shape for mapping in found.mappings}
    rows = []
    for op, cost, bound in zip(found.schedule.ops, found.op_costs, found.op_bounds, strict=True):
        shape = shapes.get(op.name)
        rows.append(
            {
                "name": op.name,
                "kind": op.kind,
                "repeat": op.repeat,
                "dataflow": op.detail.get("dataflow", ""),
                "nm": op.detail.get("nm", ""),
                "tile": {name: getattr(shape, name) for name in ("units", "m", "k", "n")}
                if shape
                else None,
                "order": f"{shape.order}k" if shape else "",
                **{name: op.detail[name] for name in ("bits", "loads") if name in op.detail},
                "cost": cost,
                "bound": bound,
            }
        )
    return rows
