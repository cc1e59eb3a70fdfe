"""How fast exact dual-skip timing of a large random product is, beside a bare AND + popcount.

Run as `python benchmarks/pe_grid.py`. The product is 4096 x 4096 x 512 with 20 % of the activations
and 40 % of the weights, on a 32 x 32 grid with chunks of 64 and FIFOs of 4. The bare pass walks the
same tiles and words in the same order and only adds up their matches. Times are wall-clock seconds
after compilation, the best of several alternating runs, one thread; peak memory is the process's.
Then whole networks on `sparten-like`, whose masks are drawn, packed, timed and scheduled.
"""

import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mapping import map_graph
from simulator.arch import BufferParams, DramParams
from simulator.arch.load import load_arch
from simulator.arch.pe_grid import PEGrid
from simulator.simulate import simulate
from simulator.units.pe_chunks import PackedMask, pack_mask
from simulator.units.pe_grid import time_product
from simulator.units.pe_kernel import compiled, popcount
from workloads.graph import WorkloadGraph
from workloads.sparsity import Dense, Unstructured
from workloads.zoo import build

REPEATS = 15
M, K, N = 4096, 4096, 512
ACT_DENSITY, WEIGHT_DENSITY = 0.2, 0.4


@compiled
def count_matches(
    act: NDArray[np.uint64], weight: NDArray[np.uint64], rows: int, cols: int
) -> np.int64:
    """Count the matches of all tiles: the timing kernel without its recurrence."""
    chunks, across = act.shape[0], weight.shape[1] // cols
    column = np.zeros(cols, np.uint64)
    matches = np.int64(0)
    for tile in range(act.shape[1] // rows * across):
        side, top = tile // across * rows, tile % across * cols
        for i in range(chunks):
            for c in range(cols):
                column[c] = weight[i, top + c]
            for r in range(rows):
                word, own = act[i, side + r], np.int32(0)
                for c in range(cols):
                    own = np.int32(own + np.int32(popcount(word & column[c])))
                matches += own
    return matches


def sparten_like() -> PEGrid:
    """Return the grid."""
    buffer = BufferParams(capacity_bytes=1 << 20)
    return PEGrid(
        rows=32,
        cols=32,
        chunk=64,
        fifo_depth=4,
        act_buffer=buffer,
        weight_buffer=buffer,
        out_buffer=buffer,
        dram=DramParams(bandwidth_bytes_per_s=10**11),
    )


def run_workload(graph: WorkloadGraph) -> object:
    """Map and simulate a workload on the preset."""
    machine = load_arch("sparten-like")
    return simulate(map_graph(graph, machine).schedule, machine)


def seconds(action: Callable[[], object]) -> float:
    """Return the time of one run."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Print time, words a second of both passes, their ratio and peak memory."""
    grid, rng = sparten_like(), np.random.default_rng(0)
    act_mask, weight_mask = rng.random((M, K)) < ACT_DENSITY, rng.random((N, K)) < WEIGHT_DENSITY
    packing = seconds(lambda: pack_mask(act_mask, grid.chunk))
    act, weight = pack_mask(act_mask, grid.chunk), pack_mask(weight_mask, grid.chunk)
    words = M * N * K // grid.chunk

    def exact(act: PackedMask = act) -> object:
        return time_product(grid, act, weight)

    def bare() -> object:
        return count_matches(act.words, weight.words, grid.rows, grid.cols)

    timing = time_product(grid, act, weight)
    assert bare() == timing.effectual
    runs = np.array([(seconds(exact), seconds(bare)) for _ in range(REPEATS)])
    united = min(seconds(lambda: time_product(grid, act, weight, union=True)) for _ in range(3))
    (spent, floor), peak = runs.min(axis=0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{timing.cycles} cycles, {timing.effectual / timing.cycles:.0f} MACs a cycle")
    print(f"pack the activations   {packing:.3f} s")
    print(f"exact timing           {spent:.3f} s, {words / spent / 1e9:.2f} G words/s")
    print(f"bare AND + popcount    {floor:.3f} s, {words / floor / 1e9:.2f} G words/s")
    print(f"exact / bare           {spent / floor:.2f}")
    print(f"with busy cycles       {united:.3f} s")
    print(f"peak memory            {peak / 1024:.0f} MiB")
    for network, options in (("resnet50", {}), ("llama2-7b", {"prefill": 128})):
        for sparsity in (Dense(), Unstructured(0.3)):
            workload = build(network, **options).sparsify(sparsity)
            spent = seconds(lambda graph=workload: run_workload(graph))
            print(f"{network}, weights {sparsity}: map and simulate in {spent:.2f} s")


if __name__ == "__main__":
    main()
