"""What each of a machine's optimisations is worth on a network.

Of the training array the three of SAT (arXiv 2309.13015): interleave mapping, pre-generation of
N:M weights, and offline scheduling; of a grid the greedy order of output features. Each is
switched off alone, everything else mapped anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mapping import map_graph
from simulator.arch import Accelerator, Dataflow, NMArray, PEGrid
from simulator.arch.pe_grid import Balance
from simulator.simulate import simulate
from workloads.canonical import Spec
from workloads.graph import WorkloadGraph

__all__ = ["OPTIMISATIONS", "Optimisation", "ablate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation(Spec):
    """One optimisation: the run's cycles without it, and how many times as long that is."""

    name: str
    cycles_without: int
    worth: float


def _no_interleave(arch: NMArray) -> list[NMArray]:
    return [replace(arch, interleave=1)]


def _no_pregeneration(arch: NMArray) -> list[NMArray]:
    if arch.training is None:
        return [arch]
    return [replace(arch, training=replace(arch.training, pregenerate=False))]


def _one_dataflow(arch: NMArray) -> list[NMArray]:
    return [replace(arch, dataflow=flow) for flow in Dataflow]


OPTIMISATIONS: Final[dict[str, Callable[[NMArray], list[NMArray]]]] = {
    "interleave mapping": _no_interleave,
    "pre-generation": _no_pregeneration,
    "offline scheduling": _one_dataflow,
}
"""Machines without each optimisation; of several, the fastest counts: for offline scheduling the
best single dataflow for all layers and passes."""


def _without(arch: NMArray | PEGrid) -> Mapping[str, Sequence[Accelerator]]:
    if isinstance(arch, NMArray):
        return {name: without(arch) for name, without in OPTIMISATIONS.items()}
    if arch.balance is Balance.GREEDY:
        return {"greedy balance": [replace(arch, balance=Balance.NONE)]}
    return {}


def ablate(graph: WorkloadGraph, arch: NMArray | PEGrid, cycles: int) -> tuple[Optimisation, ...]:
    """Return what every optimisation is worth to `graph`, which takes `cycles` on `arch`."""
    found = []
    for name, machines in _without(arch).items():
        least = min(simulate(map_graph(graph, m).schedule, m).cycles for m in machines)
        found.append(Optimisation(name=name, cycles_without=least, worth=least / cycles))
    return tuple(found)
