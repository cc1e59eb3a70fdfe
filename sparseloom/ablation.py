"""What each of a machine's optimisations is worth: switched off alone, all else mapped anew.

The training array has the three of SAT (arXiv 2309.13015): interleave mapping, pre-generation of
N:M weights, and offline scheduling. A grid has the greedy order of output features. DSP chains
have those of FlightLLM (arXiv 2401.03868): always-on-chip decode, weights below 8 bits, and
block-sparse attention.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mapping import simulate_graph
from simulator.arch import Accelerator, Dataflow, DspChain, NMArray, PEGrid
from simulator.arch.pe_grid import Balance
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


def _all_scores(arch: DspChain) -> DspChain:
    if arch.compression is None:
        return arch
    return replace(arch, compression=replace(arch.compression, attention_percent=100))


def _without(arch: Accelerator) -> Mapping[str, Sequence[Accelerator]]:
    """Return `arch` without each optimisation; several machines where any of them may be taken."""
    match arch:
        case NMArray():
            return {name: without(arch) for name, without in OPTIMISATIONS.items()}
        case PEGrid():
            return {"greedy balance": [replace(arch, balance=Balance.NONE)]}
        case DspChain():
            return {
                "always-on-chip decode": [replace(arch, always_on_chip=False)],
                "weights below 8 bits": [replace(arch, weight_bits=(8,), head_bits=8)],
                "block-sparse attention": [_all_scores(arch)],
            }
    return {}


def ablate(
    graph: WorkloadGraph, arch: Accelerator, cycles: int, *, compress: bool = False, seed: int = 0
) -> tuple[Optimisation, ...]:
    """Return what every optimisation that `arch` uses is worth to `graph`, which takes `cycles`.

    `compress` and `seed` are those of the run. Wider weights that a machine cannot hold are left
    out.
    """
    found = []
    for name, machines in _without(arch).items():
        if machines == [arch]:
            continue
        try:
            runs = [simulate_graph(graph, m, compress=compress, seed=seed) for m in machines]
        except ValueError:  # the weights outgrow the memory: there is no such run
            continue
        least = min(run.result.cycles for run in runs)
        found.append(Optimisation(name=name, cycles_without=least, worth=least / cycles))
    return tuple(found)
