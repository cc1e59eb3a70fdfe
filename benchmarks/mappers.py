"""How long the mappers take for whole networks, and how far the greedy one is from the optimum.

Run as `python benchmarks/mappers.py`. Wall-clock seconds after imports, one thread, one run each.
"""

import statistics
import time
from collections.abc import Callable

import sparseloom as sl
from mapping import graph as mapping_graph
from mapping import map_graph
from mapping.integer import integer

ARCH = "sat-vcu1525"


def timed(layers: list[float]) -> Callable[..., object]:
    """Return the integer mapper, noting the seconds of every distinct layer."""

    def mapper(*arguments: object) -> object:
        began = time.perf_counter()
        found = integer(*arguments)  # type: ignore[arg-type]
        layers.append(time.perf_counter() - began)
        return found

    return mapper


def main() -> None:
    """Print one line for each network."""
    machine = sl.arch(ARCH)
    for network in ("resnet18", "resnet50"):
        graph, layers = sl.load(network), []
        mapping_graph.MAPPERS = {**mapping_graph.MAPPERS, "integer": timed(layers)}
        found = {name: map_graph(graph, machine, mapper=name) for name in mapping_graph.MAPPERS}
        best, quick = found["exhaustive"], found["greedy"]
        print(
            f"{network} on {ARCH}: "
            + ", ".join(f"{name} {result.seconds:.3f} s" for name, result in found.items())
            + f"; integer median {statistics.median(layers):.2f} s a layer, "
            f"proved {found['integer'].gap == 0 and found['integer'].cost == best.cost}; "
            f"greedy {quick.cost / best.cost - 1:.1%} above the optimum, gap {quick.gap:.1%}"
        )


if __name__ == "__main__":
    main()
