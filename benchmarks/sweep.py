"""How many points of a design-space sweep a second: ResNet-50 inference on N:M arrays.

Run as `python benchmarks/sweep.py [POINTS]`, by default 10,000 distinct points. Every point is
mapped by the greedy mapper, timed exactly, priced and stored; the store is a temporary file.
Seconds count all of it, the start of processes included. Wall time means something on an idle
machine only, so processor time stands beside it: what the calling process takes no second worker
takes over, and what a cluster adds is the processor time of more points less that of fewer.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseloom.sweeps import sweep
from sparseloom.sweeps.executors import executor, in_any_order

POINTS = 10_000
SHORT = (50, 250)
"""Points of the two runs that tell a cluster's cost a point from its cost to start."""
POINT_S = 0.05
TASK = 10
"""Seconds of a point on the cluster, and points of a task: as many as a sweep gives it then."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of a sweep: wall, and processor time of this process and of its workers."""

    wall: float
    here: float
    workers: float

    @property
    def processor(self) -> float:
        """Processor time of all processes."""
        return self.here + self.workers


def _processor(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run(points: int, jobs: int) -> Spent:
    """Return what a sweep of `points` takes in `jobs` processes."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before, began = [_processor(who) for who in kinds], time.perf_counter()
    spec = {**SPEC, "sampler": {"kind": "random", "points": points}}
    with tempfile.TemporaryDirectory() as folder:
        done = sweep(spec, Path(folder) / "points.db", jobs=jobs)
    assert (done.computed, done.failed) == (points, 0)
    wall = time.perf_counter() - began
    here, workers = (_processor(who) - b for who, b in zip(kinds, before, strict=True))
    return Spent(wall=wall, here=here, workers=workers)


def burn(batch: Sequence[float]) -> None:
    """Take so many seconds of processor time for every point of a task, and no more."""
    for seconds in batch:
        ends = time.process_time() + seconds
        while time.process_time() < ends:
            pass


def cluster_s(points: int) -> float:
    """Return the processor seconds of `points` on a Dask cluster, start and end included."""
    from distributed import LocalCluster

    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before = sum(map(_processor, kinds))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as dask,
        executor(2, dask.scheduler_address) as (pool, workers),
    ):
        for _ in in_any_order(pool, workers, burn, [[POINT_S] * TASK] * (points // TASK)):
            pass
    return sum(map(_processor, kinds)) - before


def main() -> None:
    """Print points a second, what a second process is worth, and what a cluster adds."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    two, one = run(points, 2), run(points, 1)
    for jobs, spent in ((2, two), (1, one)):
        print(
            f"{points:,} points, mapper {SPEC['mapper']}, {jobs} processes: {spent.wall:.1f} s, "
            f"{points / spent.wall:.1f} points/s; {1e3 * spent.processor / points:.1f} ms of "
            f"processor time a point, {spent.here / spent.processor:.1%} in the calling process"
        )
    print(
        f"second process: {one.wall / two.wall:.2f}x by wall time, "
        f"{one.processor / max(two.processor / 2, two.here):.2f}x by processor time"
    )
    few, more = map(cluster_s, SHORT)
    adds = (more - few) / (SHORT[1] - SHORT[0]) - POINT_S
    print(f"Dask adds {1e3 * adds:.2f} ms a point: {adds / POINT_S:.1%} of {1e3 * POINT_S:.0f} ms")


if __name__ == "__main__":
    main()
