"""How long whole models take to map and simulate, beside numpy doing their dense products.

Run as `python benchmarks/first_light.py [MODEL.onnx]`; the model defaults to the PP-OCRv4
recogniser of the rapidocr-onnxruntime wheel, if that is installed. Times are wall-clock seconds
after imports, the best of three, one thread. The ratio divides them by the time numpy's float32
matrix product would need for the workload's dense multiply-accumulates at the speed it reaches
in the same run, so that it compares between machines.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import sparseloom as sl
from simulator.result import Result
from workloads.graph import WorkloadGraph
from workloads.pruning import sparsify

REPEATS = 3
SIZE = 768


def best_seconds(action: Callable[[], object]) -> float:
    """Return the shortest of a few timings."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


def numpy_macs_per_s() -> float:
    """Return what numpy's float32 matrix product reaches on this machine."""
    a = np.ones((SIZE, SIZE), dtype=np.float32)
    a @ a
    return SIZE**3 / best_seconds(lambda: a @ a)


def simulated(graph: WorkloadGraph) -> Result:
    """Map and simulate one workload on the demo's machine."""
    return sl.simulate(graph, "sat-vcu1525")


def demo_model() -> Path | None:
    """Return the recogniser of the demo's wheel, None without the wheel."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0], "models").glob("*rec*.onnx"), None)


def main() -> None:
    """Print one line for each workload."""
    speed = numpy_macs_per_s()
    print(f"numpy float32 matrix product: {speed / 1e9:.1f} GMAC/s")
    graphs = {
        "resnet50": sl.load("resnet50"),
        "resnet50 2:8": sparsify(sl.load("resnet50"), sl.NofM(2, 8)),
        "llama2-7b prefill 512": sl.load("llama2-7b", prefill=512),
    }
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else demo_model()
    if path:
        began = time.perf_counter()
        graphs[path.stem] = sparsify(sl.load(path), sl.NofM(2, 8))
        print(f"{path.stem}: load and prune 2:8 in {time.perf_counter() - began:.2f} s")
    for name, graph in graphs.items():
        simulated(graph)  # first use of a library pays its own start-up
        seconds = best_seconds(lambda graph=graph: simulated(graph))
        ratio = seconds / (graph.macs / speed)
        print(f"{name}: map and simulate in {seconds:.3f} s, {ratio:.4f} of numpy's product time")


if __name__ == "__main__":
    main()
