"""Design files: workloads, machines to choose from, and what a device and its board allow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mapping.placer.device import Device, Resource, load_device
from mapping.placer.problem import Caps
from sparseloom.sweeps.spec import (
    Machines,
    SweepSpec,
    Workload,
    check_entries,
    machine_entries,
    parameters_written_out,
    written_out,
)
from workloads.canonical import Spec
from workloads.yaml_file import YamlFile, read_yaml

__all__ = ["DESIGNS", "PROBLEM", "DesignSpec", "Limits", "load_design"]

PROBLEM: Final = "design"
"""What the key `problem` of a design file says."""

_FOLDER: Final = Path(__file__).parent / "specs"
DESIGNS: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""Names of the built-in design files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Spec):
    """What all machines may take: shares of the device, and bandwidth and power if they are given.

    as_reference: resources of which there may be as much as the reference takes, instead of a
    share of the device.
    """

    caps: Caps = field(default_factory=Caps)
    as_reference: tuple[Resource, ...] = ()
    bandwidth_bytes_per_s: int | None = None
    power_w: float | None = None

    def __post_init__(self) -> None:
        for name in ("bandwidth_bytes_per_s", "power_w"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Budget {name} must be above 0, not {value:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignSpec(Spec):
    """A choice to make: every machine of `archs` is a candidate, `reference` is one more.

    Every workload runs with every sparsity. At most `machines` of the candidates are built, and
    share the workloads.
    """

    problem: str = PROBLEM
    name: str = "design"
    summary: str = ""
    device: str
    workloads: tuple[Workload, ...]
    sparsities: tuple[str, ...] = ("dense",)
    archs: tuple[Machines, ...]
    reference: Machines
    budget: Limits = field(default_factory=Limits)
    machines: int = 1
    mapper: str = "exhaustive"

    def __post_init__(self) -> None:
        if self.machines < 1:
            raise ValueError(f"A design has at least 1 of machines, not {self.machines}")
        if any(len(values) != 1 for values in self.reference.parameters.values()):
            raise ValueError("The reference is one machine: each of its parameters has one value")
        self.sweep()  # raises for what no sweep can be

    def sweep(self) -> SweepSpec:
        """Return the points to simulate, the reference's last."""
        return SweepSpec(
            name=self.name,
            workloads=self.workloads,
            sparsities=self.sparsities,
            archs=(*self.archs, self.reference),
            mapper=self.mapper,
        )

    def table(self) -> Device:
        """Return the table of the device."""
        return load_device(self.device)


def load_design(source: str | Path | YamlFile, *, device: str | None = None) -> DesignSpec:
    """Return the design of a built-in name or a YAML file, on another device if one is given.

    Raises ValueError naming file, line and key of whatever is unknown, mistyped or out of range.
    """
    file = source if isinstance(source, YamlFile) else read_yaml(_path(source), str(source))
    content = written_out(file, "a design is a mapping with workloads, archs, reference and budget")
    given = content.get("reference")
    content["reference"] = parameters_written_out(
        file, "reference", {"base": given} if isinstance(given, str) else given
    )
    if given is None:
        del content["reference"]
    settings = {"name": Path(file.name).stem, **content}
    spec = file.build(DesignSpec, {**settings, **({"device": device} if device else {})})
    machines = {**machine_entries(spec.archs), "reference": spec.reference}
    check_entries(file, spec.sparsities, machines)
    try:
        spec.table()
    except ValueError as error:
        where = f"{file.where('device')}: " if device is None else ""
        raise ValueError(f"{where}{error}") from None
    return spec


def _path(source: str | Path) -> Path:
    return _FOLDER / f"{source}.yaml" if str(source) in DESIGNS else Path(source)
