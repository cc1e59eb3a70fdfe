"""How long the placer takes: the built-in specs, and both solvers on programs of several sizes.

Run as `python benchmarks/place.py`. Seconds are wall-clock, one thread; every placement is
checked by `mapping.placer.check` before its line is printed.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mapping.placer import Placement, Problem, SitesProblem, load_device, load_problem, place
from mapping.placer.check import check_sites, check_slots
from mapping.placer.problem import Caps, Chain, Grid, Net, Unit

SOLVERS = ("highs", "cbc")


def mesh(rows: int, columns: int, grid: Grid) -> Problem:
    """Return a mesh of equal tiles, as in `systolic32`, on slots of a U280."""
    tiles = {(r, c): f"t{r}_{c}" for r in range(rows) for c in range(columns)}
    nets = [
        Net(source=name, sink=tiles[there], bits=bits)
        for (r, c), name in tiles.items()
        for there, bits in (((r, c + 1), 256), ((r + 1, c), 384))
        if there in tiles
    ]
    return Problem(
        name=f"{rows} x {columns} tiles, {grid.columns} x {3 * grid.rows} slots",
        device=load_device("u280"),
        grid=grid,
        units=tuple(
            Unit(name=name, kind="tile", lut=10752, bram=24, chains=(Chain(length=16, count=12),))
            for name in tiles.values()
        ),
        nets=tuple(nets),
        caps=Caps(dsp=0.75, bram=0.75, uram=0.75, lut=0.7),
        crossing_wires=15_000,
    )


def report(problem: Problem | SitesProblem, solver: str) -> None:
    """Place, check and print one line."""
    done = place(problem, solver=solver)
    wrong = _check(problem, done)
    if wrong:
        raise RuntimeError(f"{problem.name}: {wrong[0]}")
    print(
        f"{problem.name:35} {done.solver:6} {done.seconds:6.2f} s  {done.placed:3} placed  "
        f"{done.status.value:9} gap {done.gap:.2%}"
    )


def _check(problem: Problem | SitesProblem, done: Placement) -> list[str]:
    if isinstance(problem, SitesProblem):
        return check_sites(problem, done)
    return check_slots(problem, done)


def main() -> None:
    """Print one line for each problem and solver."""
    for name in ("rapidlayout", "systolic32"):
        for solver in SOLVERS:
            report(load_problem(name), solver)
    for rows, columns, grid in (
        (1, 6, Grid(columns=2)),
        (2, 4, Grid(columns=2)),
        (3, 5, Grid(columns=2)),
        (4, 6, Grid(columns=2)),
        (4, 6, Grid(columns=2, rows=2)),
    ):
        for solver in SOLVERS:
            report(mesh(rows, columns, grid), solver)


if __name__ == "__main__":
    main()
