"""A sweep's specification: workloads x sparsities x machine parameters, objectives, constraints."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from mapping import MAPPERS, Objective
from simulator.arch.load import load_arch
from sparseloom.sweeps.metrics import METRICS
from workloads.canonical import Spec
from workloads.sparsity import parse
from workloads.wanted import owner, wanted
from workloads.yaml_file import YamlFile, among, read_yaml

__all__ = [
    "EXAMPLE",
    "Constraint",
    "Machines",
    "Sampler",
    "SamplerKind",
    "SweepSpec",
    "Workload",
    "check_entries",
    "machine_entries",
    "parameters_written_out",
    "read_spec",
    "written_out",
]

EXAMPLE: Final = """\
# Which array, how much bandwidth and which pattern for ResNet-18? About 10 seconds.
name: resnet18 on SAT-like arrays
workloads:
  - resnet18
  - {source: resnet9, options: {image: 32, batch: 8}}
sparsities: [dense, "2:8"]
archs:
  - base: sat-vcu1525
    parameters:
      rows: [8, 16, 32]
      cols: [16, 32]
      dram.bandwidth_bytes_per_s: {start: 19200000000, stop: 76800000000, factor: 2}
objectives: [multipliers, cycles, energy_j]
constraints:
  - {metric: bandwidth_bytes_per_s, at_most: 40000000000}
"""

MOST_VALUES: Final = 100_000
"""Values of one parameter's range."""

Scalar = bool | int | float | str | None


class SamplerKind(StrEnum):
    """How points are picked: all, independently, evenly in every dimension, or by evolution."""

    GRID = "grid"
    RANDOM = "random"
    LATIN_HYPERCUBE = "latin-hypercube"
    NSGA2 = "nsga2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(Spec):
    """A source with its options, run for inference or as one training step."""

    source: str
    options: dict[str, Scalar] = field(default_factory=dict, hash=False)
    phase: str = "infer"
    method: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines(Spec):
    """A preset or machine file, and the values each of its parameters (dotted keys) takes."""

    base: str
    parameters: dict[str, tuple[Scalar, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint(Spec):
    """A limit on a metric; points beyond it are kept, but are no candidates for the best."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        _known("metric", self.metric)
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"Constraint on {self.metric} takes either at_most or at_least")

    def __str__(self) -> str:
        """Return the constraint as a formula."""
        if self.at_most is not None:
            return f"{self.metric} <= {self.at_most:g}"
        return f"{self.metric} >= {self.at_least:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler(Spec):
    """How many points of the space are tried and which; a grid tries all of them."""

    kind: SamplerKind = SamplerKind.GRID
    points: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind is SamplerKind.GRID and self.points:
            raise ValueError("Sampler grid takes no points: it tries all of them")
        if self.kind is not SamplerKind.GRID and self.points < 1:
            raise ValueError(f"Sampler {self.kind} needs points of at least 1, not {self.points}")
        if self.seed < 0:
            raise ValueError(f"Sampler seed must be at least 0, not {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec(Spec):
    """Everything a sweep runs; two equal specifications run the same points.

    `mapper` maps every operator at the least cost under the mapping objective `minimise`;
    `objectives` are the metrics that points are compared by.
    """

    name: str = "sweep"
    workloads: tuple[Workload, ...]
    sparsities: tuple[str, ...] = ("dense",)
    archs: tuple[Machines, ...]
    mapper: str = "exhaustive"
    minimise: str = "cycles"
    objectives: tuple[str, ...] = ("cycles", "energy_j")
    constraints: tuple[Constraint, ...] = ()
    sampler: Sampler = field(default_factory=Sampler)

    def __post_init__(self) -> None:
        for name in ("workloads", "sparsities", "archs", "objectives"):
            if not getattr(self, name):
                raise ValueError(f"A sweep needs at least one entry in {name}")
        for objective in self.objectives:
            _known("entry of objectives", objective)
        if self.mapper not in MAPPERS:
            raise ValueError(f"Unknown mapper {self.mapper!r}; {among(self.mapper, MAPPERS)}")
        try:
            Objective.of(self.minimise)
        except ValueError as error:
            raise ValueError(f"minimise: {error}") from None


def _known(what: str, name: str) -> None:
    if name not in METRICS:
        raise ValueError(f"Unknown {what} {name!r}; {among(name, METRICS)}")


def _values(file: YamlFile, key: str, given: Any) -> list[Any]:
    """Return the values of a parameter: a list, one value, or a range with step or factor."""
    if isinstance(given, list):
        if not given:
            raise ValueError(f"{file.where(key)}: {key} has no values")
        return given
    if not isinstance(given, Mapping):
        return [given]
    by = {"step", "factor"} & set(given)
    if set(given) != {"start", "stop", *by} or len(by) != 1:
        raise ValueError(
            f"{file.where(key)}: a range is {{start, stop, step}} or {{start, stop, factor}}, "
            f"not {{{', '.join(map(str, given))}}}"
        )
    numbers = [given["start"], given["stop"], given[by.pop()]]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ValueError(f"{file.where(key)}: a range takes numbers, not {numbers}")
    return _range(file, key, *numbers, grows="factor" in given)


def _range(
    file: YamlFile, key: str, start: float, stop: float, change: float, *, grows: bool
) -> list[float]:
    steps = math.isfinite(start) and (start > 0 and change > 1 if grows else change > 0)
    if not (steps and start <= stop < math.inf):
        raise ValueError(
            f"{file.where(key)}: the range from {start} to {stop} by {change} has no end"
        )
    values = [start]
    while (following := values[-1] * change if grows else values[-1] + change) <= stop:
        if len(values) == MOST_VALUES:
            raise ValueError(f"{file.where(key)}: {key} has more than {MOST_VALUES:,} values")
        values.append(following)
    return values


def _entries(file: YamlFile, content: Mapping[str, Any], key: str, name: str) -> list[Any]:
    """Return a list of mappings in which a plain string stands for {name: string}."""
    given = content[key]
    if not isinstance(given, list):
        raise ValueError(f"{file.where(key)}: {key} is a list")
    return [{name: item} if isinstance(item, str) else item for item in given]


def parameters_written_out(file: YamlFile, at: str, entry: Any) -> Any:
    """Return a machine's entry, which stands at key `at`, with the values of every parameter."""
    if not isinstance(entry, dict) or not isinstance(entry.get("parameters"), dict):
        return entry
    values = {
        str(key): _values(file, f"{at}.parameters.{key}", value)
        for key, value in entry["parameters"].items()
    }
    return {**entry, "parameters": values}


def written_out(file: YamlFile, wanted: str) -> dict[str, Any]:
    """Return the content with every short form of workloads, archs and values written out.

    Raises ValueError saying what is wanted if it is no mapping.
    """
    content = file.mapping(wanted)
    for key, name in (("workloads", "source"), ("archs", "base")):
        if key in content:
            content[key] = _entries(file, content, key, name)
    for index, entry in enumerate(content.get("archs", ())):
        content["archs"][index] = parameters_written_out(file, f"archs.{index}", entry)
    return content


def read_spec(source: str | Path | Mapping[str, Any]) -> SweepSpec:
    """Return the sweep of a YAML file, or of a mapping of the same form.

    Raises ValueError naming file, line and key of whatever is unknown, mistyped or out of range.
    """
    if isinstance(source, Mapping):
        file = YamlFile(name="sweep", content=dict(source))
    else:
        file = read_yaml(Path(source))
    content = written_out(file, "a sweep is a mapping with workloads and archs")
    spec = file.build(SweepSpec, content)
    check_entries(file, spec.sparsities, machine_entries(spec.archs))
    return spec


def machine_entries(archs: tuple[Machines, ...]) -> dict[str, Machines]:
    """Return the machines in a file's `archs` by their key."""
    return {f"archs.{index}": machines for index, machines in enumerate(archs)}


def check_entries(
    file: YamlFile, sparsities: tuple[str, ...], machines: Mapping[str, Machines]
) -> None:
    """Raise ValueError, naming the line in `file`, for a sparsity, machine or key that is none.

    `machines` are those of the file by their key in it.
    """
    for index, text in enumerate(sparsities):
        _checked(file, f"sparsities.{index}", parse, text)
    for key, entry in machines.items():
        arch = _checked(file, f"{key}.base", load_arch, entry.base)
        for name in entry.parameters:
            _checked(file, f"{key}.parameters.{name}", _parameter, type(arch), name)


def _checked(file: YamlFile, key: str, check: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return check(*arguments)
    except ValueError as error:
        raise ValueError(f"{file.where(key)}: {error}") from None


def _parameter(kind: type, name: str) -> None:
    path = name.split(".")
    try:
        wanted(kind, path)
    except LookupError:
        known = (field.name for field in fields(owner(kind, path[:-1])))
        raise ValueError(f"unknown parameter {name!r}; {among(path[-1], known)}") from None
