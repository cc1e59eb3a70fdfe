"""How many points of a design-space sweep a second: ResNet-50 inference on N:M arrays.

Run as `python benchmarks/sweep.py [POINTS [JOBS]]`, by default 10,000 distinct points in 2
processes. Every point is mapped by the greedy mapper, timed exactly, priced and stored; the store
is a temporary file. The seconds count all of it, the start of the processes included.
"""

import sys
import tempfile
import time
from pathlib import Path

from sparseloom.sweeps import sweep

POINTS = 10_000
JOBS = 2

SPEC = {
    "name": "N:M arrays for ResNet-50",
    "workloads": ["resnet50"],
    "sparsities": ["dense", "2:8"],
    "archs": [
        {
            "base": "sat-vcu1525",
            "parameters": {
                "rows": [8, 12, 16, 20, 24, 28, 32, 40, 48, 64],
                "cols": [8, 12, 16, 20, 24, 28, 32, 40, 48, 64],
                "act_buffer.capacity_bytes": [1 << 18, 1 << 19, 1 << 20, 1 << 21],
                "weight_buffer.capacity_bytes": [1 << 18, 1 << 19, 1 << 20],
                "dram.bandwidth_bytes_per_s": [19_200_000_000, 38_400_000_000, 76_800_000_000],
                "vector_lanes": [16, 32],
            },
        }
    ],
    "mapper": "greedy",
    "objectives": ["cycles", "energy_j"],
}
"""A space of 14,400 points, of which as many as asked for are drawn."""


def main() -> None:
    """Print points, seconds and points a second."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else JOBS
    spec = {**SPEC, "sampler": {"kind": "random", "points": points}}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = sweep(spec, Path(folder) / "points.db", jobs=jobs)
        seconds = time.perf_counter() - began
    print(
        f"{done.computed:,} points ({done.failed} failed), mapper {SPEC['mapper']}, {jobs} "
        f"processes: {seconds:.1f} s, {done.computed / seconds:.1f} points/s"
    )


if __name__ == "__main__":
    main()
