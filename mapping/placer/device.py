"""Devices as data: SLRs, clock-region bands, hard columns and their sites, each with a source."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Final

from workloads.canonical import Spec
from workloads.yaml_file import among, read_yaml

__all__ = ["BOARDS", "DEVICES", "Column", "Device", "Granularity", "Resource", "Slr", "load_device"]

_FOLDER: Final = Path(__file__).parent.parent / "devices"
BOARDS: Final = {"vcu1525": "vu9p"}
"""Devices of boards that are not called after theirs."""
DEVICES: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""Names of the device tables."""


class Resource(StrEnum):
    """What a region of the device holds; BRAM counts RAMB18 halves."""

    DSP = "dsp"
    BRAM = "bram"
    URAM = "uram"
    LUT = "lut"


class Granularity(StrEnum):
    """How much of the device's layout its table knows."""

    COLUMNS = "columns"  # every hard column, in order
    HALVES = "halves"  # the columns of either half of an SLR, their order within it unknown
    TOTALS = "totals"  # totals per SLR: one stand-in column for each resource


_LETTERS: Final = {"D": Resource.DSP, "B": Resource.BRAM, "U": Resource.URAM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Spec):
    """A hard column: its resource, its band and its place among all hard columns of the die."""

    index: int
    resource: Resource
    band: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slr(Spec):
    """Sites in a column of one SLR by resource, and LUTs of each of its bands."""

    dsp_sites: int
    bram_sites: int
    uram_sites: int
    luts: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("dsp_sites", "bram_sites", "uram_sites"):
            if getattr(self, name) < 1:
                raise ValueError(f"SLR {name} must be at least 1, not {getattr(self, name)}")

    def sites(self, resource: Resource) -> int:
        """Return the sites in one column of a hard resource."""
        return int(getattr(self, f"{resource.value}_sites"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Spec):
    """A device table.

    `bands` are the columns of clock regions from left to right, each a string of hard columns (D
    DSP, B BRAM, U URAM); `slrs` go from bottom to top, `clock_rows` clock regions high each.
    crossing_wires: wires between two neighbouring SLRs. clb_columns: CLB columns of the die.
    """

    name: str
    summary: str
    granularity: Granularity
    clock_rows: int
    bands: tuple[str, ...]
    slrs: tuple[Slr, ...]
    crossing_wires: int
    clb_columns: int
    sources: dict[str, str]

    def __post_init__(self) -> None:
        for band in self.bands:
            if not band or set(band) - set(_LETTERS):
                raise ValueError(f"A band is a string of D, B and U, not {band!r}")
        for slr in self.slrs:
            if len(slr.luts) != len(self.bands):
                raise ValueError(
                    f"An SLR needs LUTs of {len(self.bands)} bands, not {len(slr.luts)}"
                )
        for key in ("bands", "slrs", "crossing_wires", "clb_columns"):
            if key not in self.sources:
                raise ValueError(f"Device {self.name} names no source of {key}")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Hard columns from left to right."""
        starts = accumulate((len(band) for band in self.bands), initial=0)
        return tuple(
            Column(index=start + offset, resource=_LETTERS[letter], band=band)
            for band, (start, letters) in enumerate(zip(starts, self.bands, strict=False))
            for offset, letter in enumerate(letters)
        )

    def total(self, resource: Resource, slr: int) -> int:
        """Return what one SLR holds of a resource."""
        if resource is Resource.LUT:
            return sum(self.slrs[slr].luts)
        columns = sum(column.resource is resource for column in self.columns)
        return columns * self.slrs[slr].sites(resource)

    def totals(self) -> dict[str, int]:
        """Return what the whole device holds, by resource."""
        return {r.value: sum(self.total(r, s) for s in range(len(self.slrs))) for r in Resource}


@cache
def load_device(name: str) -> Device:
    """Return the table of a device, or of a board's; raises ValueError listing the known ones."""
    name = BOARDS.get(name, name)
    if name not in DEVICES:
        raise ValueError(f"Unknown device {name!r}; {among(name, (*DEVICES, *BOARDS))}")
    file = read_yaml(_FOLDER / f"{name}.yaml", name)
    return file.build(Device, {"name": name, **file.content})
