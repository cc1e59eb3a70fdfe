"""Placement files: YAML (built in or the user's) becomes a problem on a device."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from mapping.placer.device import DEVICES, load_device
from mapping.placer.problem import Caps, Chain, Grid, Net, Objective, Problem, Unit
from mapping.placer.sites import Part, SitesProblem
from mapping.placer.yaml_file import Location, build, read
from workloads.canonical import Spec
from workloads.paths import absence, named

__all__ = ["SPECS", "load_problem", "summary"]

_FOLDER: Final = Path(__file__).parent / "specs"
SPECS: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""Names of the built-in placement files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEntry(Spec):
    """One unit, `count` equal units name_0 ... or a `grid` [rows, columns] name_0_0 ... of them."""

    name: str
    kind: str | None = None
    count: int | None = None
    grid: tuple[int, int] | None = None
    dsp: int = 0
    bram: int = 0
    uram: int = 0
    lut: int = 0
    chains: tuple[Chain, ...] = ()
    slr: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.grid is not None:
            raise ValueError(f"Unit {self.name!r} has a count or a grid, not both")
        if min(self.count or 1, *(self.grid or (1, 1))) < 1:
            raise ValueError(f"Unit {self.name!r}: count and grid must be at least 1")

    def names(self) -> Iterator[str]:
        """Return the names of the units."""
        if self.grid:
            rows, columns = self.grid
            yield from (f"{self.name}_{r}_{c}" for r in range(rows) for c in range(columns))
        elif self.count:
            yield from (f"{self.name}_{index}" for index in range(self.count))
        else:
            yield self.name

    def units(self) -> Iterator[Unit]:
        """Return the units."""
        same = {
            f.name: getattr(self, f.name) for f in fields(Unit) if f.name not in ("name", "kind")
        }
        return (Unit(name=name, kind=self.kind or self.name, **same) for name in self.names())


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshEntry(Spec):
    """Nets between neighbours of a grid of units: along a row, and from row to row."""

    unit: str
    across_bits: int
    along_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsFile(Spec):
    """A placement file of units on slots. Nets take * in a name for every unit that fits it."""

    problem: str
    summary: str = ""
    device: str
    grid: Grid = field(default_factory=Grid)
    caps: Caps = field(default_factory=Caps)
    crossing_wires: int | None = None
    registers_per_crossing: int = 2
    objective: Objective = field(default_factory=Objective)
    units: tuple[UnitEntry, ...]
    nets: tuple[Net, ...] = ()
    meshes: tuple[MeshEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesFile(Spec):
    """A placement file of many equal units on sites."""

    problem: str
    summary: str = ""
    device: str
    unit: str
    count: int | None = None
    parts: tuple[Part, ...]
    nets: tuple[Net, ...] = ()
    objective: Objective = field(default_factory=Objective)


FILES: Final = {"slots": SlotsFile, "sites": SitesFile}
"""Layouts of a placement file by its key `problem`."""


def load_problem(source: str | Path, *, device: str | None = None) -> Problem | SitesProblem:
    """Return the problem of a built-in name or a YAML file, on another device if one is given.

    Raises ValueError naming file, line and key for anything unknown, mistyped or out of range.
    """
    if device is not None:
        load_device(device)  # before the file: the mistake is not in there
    builtin = str(source) in SPECS
    path = _FOLDER / f"{source}.yaml" if builtin else Path(source)
    if not builtin and path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"Unknown placement {named(source)}; known: {', '.join(SPECS)}; or give a .yaml file"
        )
    if why := absence(path):
        raise ValueError(f"Placement file {str(source)!r} {why}")
    content, lines = read(path, str(source))
    kind = content.get("problem")
    if kind not in FILES:
        where = f"{source}, line {lines['problem',]}" if "problem" in content else f"{source}"
        raise ValueError(f"{where}: key 'problem' must be one of {', '.join(FILES)}, not {kind!r}")
    file = build(FILES[kind], content, lines, str(source))
    chosen = device or file.device
    if device is None and chosen not in DEVICES:
        raise ValueError(
            f"{source}, line {lines['device',]}: unknown device {chosen!r}; "
            f"known: {', '.join(DEVICES)}"
        )
    try:
        if kind == "slots":
            return _slots(path.stem, file, lines, chosen)
        return _sites(path.stem, file, chosen)
    except ValueError as error:
        raise ValueError(f"{source}{error.args[0]}") from None


def _sites(name: str, file: SitesFile, device: str) -> SitesProblem:
    table = load_device(device)
    same = {name: getattr(file, name) for name in ("unit", "count", "parts", "nets", "objective")}
    try:
        return SitesProblem(name=name, device=table, **same)
    except ValueError as error:
        raise ValueError(f": {error}") from None


def _slots(name: str, file: SlotsFile, lines: dict[Location, int], device: str) -> Problem:
    table = load_device(device)
    nets = [
        net for index, entry in enumerate(file.nets) for net in _nets(file, index, entry, lines)
    ]
    nets += [
        net for index, mesh in enumerate(file.meshes) for net in _mesh(file, index, mesh, lines)
    ]
    wires = table.crossing_wires if file.crossing_wires is None else file.crossing_wires
    try:
        return Problem(
            name=name,
            device=table,
            grid=file.grid,
            units=tuple(unit for entry in file.units for unit in entry.units()),
            nets=tuple(nets),
            caps=file.caps,
            crossing_wires=wires,
            registers_per_crossing=file.registers_per_crossing,
            objective=file.objective,
        )
    except ValueError as error:
        raise ValueError(f": {error}") from None


def _nets(file: SlotsFile, index: int, entry: Net, lines: dict[Location, int]) -> Iterator[Net]:
    names = [name for unit in file.units for name in unit.names()]
    ends = []
    for key in ("source", "sink"):
        pattern = getattr(entry, key)
        ends.append([name for name in names if fnmatchcase(name, pattern)])
        if not ends[-1]:
            line = lines["nets", index, key]
            raise ValueError(f", line {line}: no unit is called {pattern!r}")
    for source in ends[0]:
        for sink in ends[1]:
            yield Net(source=source, sink=sink, bits=entry.bits)


def _mesh(
    file: SlotsFile, index: int, mesh: MeshEntry, lines: dict[Location, int]
) -> Iterator[Net]:
    entry = next((unit for unit in file.units if unit.name == mesh.unit and unit.grid), None)
    if entry is None or entry.grid is None:
        grids = ", ".join(unit.name for unit in file.units if unit.grid) or "none"
        line = lines["meshes", index, "unit"]
        raise ValueError(f", line {line}: {mesh.unit!r} is no grid of units; grids: {grids}")
    rows, columns = entry.grid
    for r in range(rows):
        for c in range(columns):
            name = f"{mesh.unit}_{r}_{c}"
            if c + 1 < columns:
                yield Net(source=name, sink=f"{mesh.unit}_{r}_{c + 1}", bits=mesh.across_bits)
            if r + 1 < rows:
                yield Net(source=name, sink=f"{mesh.unit}_{r + 1}_{c}", bits=mesh.along_bits)


def summary(name: str) -> str:
    """Return the one-line summary of a built-in placement file."""
    content, _ = read(_FOLDER / f"{name}.yaml", name)
    return str(content["summary"])
