"""One product on one machine, for the sections that reproduce tables of products."""

from typing import Any

from mapping import map_graph
from simulator.arch.load import load_arch
from simulator.result import Result
from simulator.simulate import simulate
from workloads.gemm import gemm_graph
from workloads.sparsity import Sparsity

__all__ = ["run_product"]


def run_product(
    arch: str,
    m: int,
    k: int,
    n: int,
    weight: Sparsity | None = None,
    activation: Sparsity | None = None,
    **overrides: Any,
) -> Result:
    """Return the result of activations (m, k) times weights (k, n) on a preset."""
    machine = load_arch(arch, **overrides)
    graph = gemm_graph(m, k, n, weight=weight, activation=activation)
    return simulate(map_graph(graph, machine).schedule, machine)
