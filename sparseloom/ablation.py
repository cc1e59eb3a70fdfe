"""What each of a machine's optimisations is worth: switched off alone, all else mapped anew.

The training array has the three of SAT (arXiv 2309.13015): interleave mapping, pre-generation of
N:M weights, and offline scheduling. DSP chains have those of FlightLLM (arXiv 2401.03868):
always-on-chip decode, weights below 8 bits, and block-sparse attention.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from mapping import map_graph, simulate_graph
from simulator.arch import Dataflow, DspChain, NMArray
from simulator.simulate import simulate
from workloads.canonical import Spec
from workloads.graph import WorkloadGraph

__all__ = ["DECODER_OPTIMISATIONS", "OPTIMISATIONS", "Optimisation", "ablate", "ablate_decoder"]


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


def _off_chip(arch: DspChain) -> DspChain:
    return replace(arch, always_on_chip=False)


def _wide_weights(arch: DspChain) -> DspChain:
    return replace(arch, weight_bits=(8,), head_bits=8)


def _all_scores(arch: DspChain) -> DspChain:
    if arch.compression is None:
        return arch
    return replace(arch, compression=replace(arch.compression, attention_percent=100))


DECODER_OPTIMISATIONS: Final[dict[str, Callable[[DspChain], DspChain]]] = {
    "always-on-chip decode": _off_chip,
    "weights below 8 bits": _wide_weights,
    "block-sparse attention": _all_scores,
}
"""DSP chains without each optimisation."""


def ablate_decoder(
    graph: WorkloadGraph, arch: DspChain, cycles: int, *, compress: bool
) -> tuple[Optimisation, ...]:
    """Return what every optimisation that `arch` uses is worth to a decoder of `cycles`.

    `compress` is that of the run. Wider weights that the machine cannot hold are left out.
    """
    found = []
    for name, without in DECODER_OPTIMISATIONS.items():
        machine = without(arch)
        try:
            done = simulate_graph(graph, machine, compress=compress).result.cycles
        except ValueError:  # the weights outgrow the memory: there is no such run
            continue
        if done != cycles:
            found.append(Optimisation(name=name, cycles_without=done, worth=done / cycles))
    return tuple(found)


def ablate(graph: WorkloadGraph, arch: NMArray, cycles: int) -> tuple[Optimisation, ...]:
    """Return what every optimisation is worth to `graph`, which takes `cycles` on `arch`."""
    found = []
    for name, without in OPTIMISATIONS.items():
        machines = without(arch)
        least = min(simulate(map_graph(graph, m).schedule, m).cycles for m in machines)
        found.append(Optimisation(name=name, cycles_without=least, worth=least / cycles))
    return tuple(found)
