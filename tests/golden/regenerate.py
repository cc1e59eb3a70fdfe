"""Write the golden figures anew: `python tests/golden/regenerate.py`, then read the diff."""

import json
import sys
from pathlib import Path

from cost_models import price
from mapping import simulate_graph
from simulator.arch.load import load_arch
from simulator.simulate import VERSION
from workloads.sparsity import parse
from workloads.zoo import build

PATH = Path(__file__).with_name("figures.json")

PUBLISHED = "published"
"""In place of a sparsity: what the machine's published run left out."""

CASES = [
    ("resnet18", {}, "dense", "systolic"),
    ("resnet50", {}, "dense", "sat-vcu1525"),
    ("resnet50", {}, "2:8", "sat-vcu1525"),
    ("mobilenet-v2", {}, "2:4", "sat-vcu1525"),
    ("vit-b16", {}, "balanced:16:0.25", "sat-vcu1525"),
    ("bert-base", {}, "unstructured:0.3", "sat-vcu1525"),
    ("resnet9", {}, "2:8", "nm-tiny"),
    ("llama2-7b", {"prefill": 128}, "2:8", "sat-vcu1525"),
    ("opt-6.7b", {"prefill": 16, "decode": 4}, "1:4", "sat-vcu1525"),
    ("resnet50", {}, "2:4", "stc-like"),
    ("vit-b16", {}, "1:4", "stc-flexible"),
    ("mobilenet-v2", {}, "2:8", "stc-dual"),
    ("resnet50", {}, "unstructured:0.3", "dstc-like"),
    ("bert-base", {}, "unstructured:0.2", "sigma-like"),
    ("resnet18", {}, "dense", "dense-tpu"),
    ("llama2-7b", {"prefill": 128, "decode": 20}, PUBLISHED, "flightllm-vhk158"),
    ("opt-6.7b", {"prefill": 100, "decode": 4}, "4:16", "flightllm-u280"),
    ("resnet18", {}, "unstructured:0.3", "sparten-like"),
    ("mobilenet-v2", {}, "balanced:32:0.125", "s4-like"),
]


def figures(network: str, options: dict[str, int], sparsity: str, arch: str) -> dict[str, object]:
    """Return what must not move: exact cycles, counts and causes, and the energy."""
    machine = load_arch(arch)
    compress = sparsity == PUBLISHED
    graph = build(network, **options)
    graph = graph if compress else graph.sparsify(parse(sparsity))
    result = simulate_graph(graph, machine, compress=compress).result
    return {
        "cycles": result.cycles,
        "causes": {cause: cycles for cause, cycles, _ in sorted(result.bottlenecks())},
        "counts": {"/".join(key): value for key, value in result.counts.items()},
        "energy_pj": price(result).energy_pj,
    }


def name(case: tuple[str, dict[str, int], str, str]) -> str:
    """Return a case's key in the file."""
    network, options, sparsity, arch = case
    return " ".join([network, *(f"{k}={v}" for k, v in options.items()), sparsity, arch])


def main() -> None:
    """Recompute every case."""
    meta = {"version": VERSION, "seed": 0, "regenerate": "python tests/golden/regenerate.py"}
    cases = {name(case): figures(*case) for case in CASES}
    PATH.write_text(json.dumps({"_meta": meta, **cases}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
