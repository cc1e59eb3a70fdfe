"""One point of a sweep, in whatever process it runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cost_models import price
from mapping import Cache, simulate_graph, total_graph
from simulator.arch import Accelerator
from simulator.arch.load import load_arch
from sparseloom.runs import prepared
from sparseloom.sweeps.metrics import measure
from sparseloom.sweeps.points import Point, nested
from sparseloom.sweeps.spec import Workload
from workloads.graph import WorkloadGraph

__all__ = ["Outcome", "causes", "evaluate"]

_CACHE = Cache()
"""Points differ in a parameter or two: what they have in common is mapped once a process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a point came to: its metrics, or the sentence that says why there are none."""

    metrics: dict[str, float | int] | None
    error: str | None = None
    seconds: float = 0.0


@lru_cache(maxsize=16)
def _graph(source: str, options: tuple[tuple[str, Any], ...], sparsity: str, phase: str,
           method: str | None) -> WorkloadGraph:  # fmt: skip
    return prepared(source, sparsity, phase=phase, method=method, options=dict(options)).graph


def _workload(workload: Workload, sparsity: str) -> WorkloadGraph:
    options = tuple(sorted(workload.options.items()))
    return _graph(workload.source, options, sparsity, workload.phase, workload.method)


@lru_cache(maxsize=16)
def _base(name: str) -> Accelerator:
    return load_arch(name)


def _asked(point: Point) -> tuple[WorkloadGraph, Accelerator]:
    arch = load_arch(_base(point.base), **nested(point.parameters))
    return _workload(point.workload, point.sparsity), arch


def causes(point: Point) -> dict[str, int]:
    """Return the cycles of a point by what takes them, which its metrics leave out for speed."""
    graph, arch = _asked(point)
    found = simulate_graph(
        graph,
        arch,
        mapper=point.mapper,
        objective=point.minimise,
        cache=_CACHE,
        compress=False,
    )
    return {cause: cycles for cause, cycles, _ in found.result.bottlenecks()}


def _metrics(point: Point) -> dict[str, float | int]:
    graph, arch = _asked(point)
    found = total_graph(graph, arch, mapper=point.mapper, objective=point.minimise, cache=_CACHE)
    return measure(found, price(found))


def _outcome(point: Point) -> Outcome:
    began = time.perf_counter()
    try:
        metrics = _metrics(point)
    except Exception as error:  # noqa: BLE001  a point that fails is a row, not the sweep's end
        text = " ".join(str(error).split())
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return Outcome(metrics=None, error=kind + text, seconds=time.perf_counter() - began)
    return Outcome(metrics=metrics, seconds=time.perf_counter() - began)


def evaluate(points: Sequence[Point]) -> list[Outcome]:
    """Return the outcome of every point, in order."""
    return [_outcome(point) for point in points]
