"""How long the mappers take for whole networks, how good greedy is, and what fusion buys.

Run as `python benchmarks/mappers.py`. Seconds are processor time after imports, one thread, one run
each; with a warm cache the choices come from a folder that another cache has filled.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sparseloom as sl
from mapping import Cache, MapperResult, map_graph
from mapping import graph as mapping_graph
from mapping.integer import integer
from simulator.arch import Accelerator
from simulator.simulate import totals
from workloads.graph import WorkloadGraph

ARCH = "sat-vcu1525"


def timed(layers: list[float]) -> Callable[..., Any]:
    """Return the integer mapper, noting the seconds of every distinct layer."""

    def mapper(*arguments: Any) -> Any:
        began = time.process_time()
        found = integer(*arguments)
        layers.append(time.process_time() - began)
        return found

    return mapper


def mapped(graph: WorkloadGraph, arch: Accelerator, **how: Any) -> tuple[MapperResult, float]:
    """Return a mapped workload and the seconds it took."""
    began = time.process_time()
    found = map_graph(graph, arch, **how)
    return found, time.process_time() - began


def compare(graph: WorkloadGraph, arch: Accelerator) -> str:
    """Return the seconds of every mapper, cold and warm, and greedy's distance to the optimum."""
    layers: list[float] = []
    mapping_graph.MAPPERS = {**mapping_graph.MAPPERS, "integer": timed(layers)}
    found = {name: mapped(graph, arch, mapper=name) for name in mapping_graph.MAPPERS}
    with tempfile.TemporaryDirectory() as folder:
        mapped(graph, arch, cache=Cache(Path(folder)))
        _, warm = mapped(graph, arch, cache=Cache(Path(folder)))
    best, quick, proved = (found[name][0] for name in ("exhaustive", "greedy", "integer"))
    return (
        ", ".join(f"{name} {seconds:.3f} s" for name, (_, seconds) in found.items())
        + f", warm cache {warm:.3f} s; integer median {statistics.median(layers):.2f} s a layer, "
        f"proved {proved.gap == 0 and proved.cost == best.cost}; greedy "
        f"{quick.cost / best.cost - 1:.1%} above the optimum, gap {quick.gap:.1%}"
    )


def fuse(graph: WorkloadGraph, arch: Accelerator) -> str:
    """Return what keeping tensors on chip buys."""
    (apart, _), (fused, seconds) = (mapped(graph, arch, fuse=on) for on in (False, True))
    assert fused.fused
    before, after = totals(apart.schedule, arch), totals(fused.schedule, arch)
    kept = sum(len(chain) - 1 for chain in fused.fused.chains)
    return (
        f"fused in {seconds:.2f} s: {kept} tensors in {len(fused.fused.chains)} chains, "
        f"{before.cycles:,} -> {after.cycles:,} cycles ({1 - after.cycles / before.cycles:.2%} "
        f"fewer), {before.dram_bytes / 1e6:.1f} -> {after.dram_bytes / 1e6:.1f} MB "
        f"({1 - after.dram_bytes / before.dram_bytes:.1%} less), gap {fused.gap:.0%}"
    )


def main() -> None:
    """Print the mappers of two networks and the fusion of three."""
    machine = sl.arch(ARCH)
    for network in ("resnet18", "resnet50"):
        print(f"{network} on {ARCH}: {compare(sl.load(network), machine)}")
    for network in ("resnet18", "resnet50", "vit-b16"):
        print(f"{network} on {ARCH}: {fuse(sl.load(network), machine)}")


if __name__ == "__main__":
    main()
