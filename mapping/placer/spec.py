"""Placement files: YAML (built in or the user's) becomes a problem on a device."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from mapping.placer.device import Device, load_device
from mapping.placer.problem import Caps, Chain, Grid, Net, Objective, Problem, Unit
from mapping.placer.sites import Part, SitesProblem
from workloads.canonical import Spec
from workloads.paths import named
from workloads.yaml_file import YamlFile, among, read_yaml

__all__ = ["SPECS", "load_problem", "summary"]

_FOLDER: Final = Path(__file__).parent / "specs"
MOST_UNITS: Final = 10_000
"""Units of one entry."""

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
        sides = (1 if self.count is None else self.count, *(self.grid or (1, 1)))
        if min(sides) < 1 or math.prod(sides) > MOST_UNITS:
            raise ValueError(
                f"Unit {self.name!r}: count and grid must be 1 to {MOST_UNITS:,} units"
            )

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


def load_problem(
    source: str | Path | YamlFile, *, device: str | None = None, more: Iterable[str] = ()
) -> Problem | SitesProblem:
    """Return the problem of a built-in name or a YAML file, on another device if one is given.

    `more` are kinds that the caller knows beside ours. Raises ValueError naming file, line and
    key for anything unknown, mistyped or out of range.
    """
    read = source if isinstance(source, YamlFile) else read_spec(source)
    kinds = ", ".join((*FILES, *more))
    content = read.mapping(f"a placement is a mapping with key 'problem': {kinds}")
    kind = content.get("problem")
    if not isinstance(kind, str) or kind not in FILES:
        raise ValueError(
            f"{read.where('problem')}: key 'problem' must be one of {kinds}, not {kind!r}"
        )
    file: SlotsFile | SitesFile = read.build(FILES[kind], content)
    if device is None:
        with _told(read, "device"):
            load_device(file.device)
    table = load_device(device or file.device)
    if isinstance(file, SlotsFile):
        return _slots(read, file, table)
    keys = ("unit", "count", "parts", "nets", "objective")
    with _told(read):
        return SitesProblem(
            name=_name(read), device=table, **{key: getattr(file, key) for key in keys}
        )


def read_spec(source: str | Path, *, more: Iterable[str] = ()) -> YamlFile:
    """Return the file of a built-in name or of a path, not validated yet.

    `more` are names that the caller knows beside ours.
    """
    if str(source) in SPECS:
        return read_yaml(_FOLDER / f"{source}.yaml", str(source))
    if Path(source).suffix not in (".yaml", ".yml"):
        known = among(source, (*SPECS, *more))
        raise ValueError(f"Unknown placement {named(source)}; {known}; or give a .yaml file")
    return read_yaml(Path(source))


@contextmanager
def _told(file: YamlFile, key: str = "") -> Iterator[None]:
    """Say the file, and the line of `key`, in front of a sentence about it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file.where(key)}: {error}") from None


def _name(file: YamlFile) -> str:
    return Path(file.name).stem


def _slots(read: YamlFile, file: SlotsFile, table: Device) -> Problem:
    nets = [net for index, entry in enumerate(file.nets) for net in _nets(file, index, entry, read)]
    nets += [
        net for index, mesh in enumerate(file.meshes) for net in _mesh(file, index, mesh, read)
    ]
    wires = table.crossing_wires if file.crossing_wires is None else file.crossing_wires
    with _told(read):
        return Problem(
            name=_name(read),
            device=table,
            grid=file.grid,
            units=tuple(unit for entry in file.units for unit in entry.units()),
            nets=tuple(nets),
            caps=file.caps,
            crossing_wires=wires,
            registers_per_crossing=file.registers_per_crossing,
            objective=file.objective,
        )


def _nets(file: SlotsFile, index: int, entry: Net, read: YamlFile) -> Iterator[Net]:
    names = [name for unit in file.units for name in unit.names()]
    ends = []
    for key in ("source", "sink"):
        pattern = getattr(entry, key)
        ends.append([name for name in names if fnmatchcase(name, pattern)])
        if not ends[-1]:
            where = read.where(f"nets.{index}.{key}")
            raise ValueError(f"{where}: no unit is called {pattern!r}")
    for source in ends[0]:
        for sink in ends[1]:
            yield Net(source=source, sink=sink, bits=entry.bits)


def _mesh(file: SlotsFile, index: int, mesh: MeshEntry, read: YamlFile) -> Iterator[Net]:
    entry = next((unit for unit in file.units if unit.name == mesh.unit and unit.grid), None)
    if entry is None or entry.grid is None:
        grids = ", ".join(unit.name for unit in file.units if unit.grid) or "none"
        where = read.where(f"meshes.{index}.unit")
        raise ValueError(f"{where}: {mesh.unit!r} is no grid of units; grids: {grids}")
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
    return str(read_spec(name).content["summary"])
