"""Machine files: presets and the user's own YAML become validated parameters.

A file names its `machine` and gives `parameters`, each a value or {value, source}; `base` takes
another preset's parameters first. Every preset number carries its source.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from simulator.arch.accelerator import MACHINES, Accelerator, kind
from workloads.canonical import Spec
from workloads.paths import named
from workloads.yaml_file import YamlFile, among, read_yaml

__all__ = ["PRESETS", "ArchFile", "load_arch", "preset_file", "read_arch_file"]

Machine = TypeVar("Machine", bound=Accelerator)

_FOLDER = Path(__file__).parent / "presets"
PRESETS: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
_KEYS = ("machine", "summary", "base", "parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchFile(Spec):
    """A machine file as read: plain values, their sources and lines by dotted key."""

    name: str
    machine: str
    summary: str
    values: dict[str, Any]
    sources: dict[str, str]
    lines: dict[str, int]


@overload
def load_arch(source: Machine, **overrides: Any) -> Machine: ...


@overload
def load_arch(source: str | Path | Accelerator, **overrides: Any) -> Accelerator: ...


def load_arch(source: str | Path | Accelerator, **overrides: Any) -> Accelerator:
    """Return the machine of a preset name, a YAML file or parameters, with fields overridden.

    Overrides take field names; a nested field takes a mapping (`dram={"latency_cycles": 0}`).
    Raises ValueError naming file, line and key for anything unknown, mistyped or out of range.
    """
    if isinstance(source, Accelerator):
        values: dict[str, Any] = _plain(source)
        file = ArchFile(
            name="arch", machine=kind(source), summary="", values=values, sources={}, lines={}
        )
    else:
        file = read_arch_file(source)
    # A key overridden here is no longer the file's: its line would mislead.
    lines = {k: v for k, v in file.lines.items() if k not in _paths(overrides)}
    return YamlFile(name=file.name, lines=lines).build(
        MACHINES[file.machine], _merge(file.values, overrides)
    )


def _paths(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in overrides.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def preset_file(name: str) -> Path:
    """Return the file of a preset."""
    return _FOLDER / f"{name}.yaml"


def read_arch_file(source: str | Path) -> ArchFile:
    """Read a preset or a machine file, without validating its parameters yet."""
    if not isinstance(source, str | Path):
        raise ValueError(f"An arch is a preset's name, a .yaml file or parameters, not {source!r}")
    if str(source) in PRESETS:
        return _read(preset_file(str(source)), str(source))
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"Unknown arch {named(source)}; {among(source, PRESETS, 'known presets')}; "
            "or give a .yaml file"
        )
    return _read(path, str(path))


def _read(path: Path, name: str) -> ArchFile:
    file = read_yaml(path, name)
    wanted = f"a machine file is a mapping with keys {', '.join(_KEYS)}"
    content = file.mapping(wanted)
    for key in content:
        if key not in _KEYS:
            raise ValueError(f"{file.where(str(key))}: unknown key {key!r}; {among(key, _KEYS)}")
    if not isinstance(content.get("parameters", {}), dict):
        raise ValueError(f"{file.where('parameters')}: parameters is a mapping of keys to values")
    if content.keys().isdisjoint(("machine", "base")):
        raise ValueError(
            f"{name}: key 'base' is missing (a preset to start from), or 'machine' "
            f"({', '.join(MACHINES)}) with all its parameters"
        )
    return _resolve(content, file)


def _resolve(content: dict[str, Any], file: YamlFile) -> ArchFile:
    name, base = file.name, content.get("base")
    if base is not None and base not in PRESETS:
        raise ValueError(f"{file.where('base')}: unknown base {base!r}; {among(base, PRESETS)}")
    below = read_arch_file(base) if base else None
    machine = str(content.get("machine", below.machine if below else None))
    if machine not in MACHINES:
        raise ValueError(
            f"{file.where('machine')}: unknown machine {machine!r}; {among(machine, MACHINES)}"
        )
    values, sources = _split(content.get("parameters", {}), "")
    own = {key: f"set in {name}" for key in _leaves(values) if name not in PRESETS}
    return ArchFile(
        name=name,
        machine=machine,
        summary=str(content.get("summary", below.summary if below else "")),
        values=_merge(below.values, values) if below else values,
        sources={**(below.sources if below else {}), **own, **sources},
        lines={k.removeprefix("parameters."): v for k, v in file.lines.items()},
    )


def _split(parameters: dict[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, entry in parameters.items():
        if isinstance(entry, dict) and set(entry) == {"value", "source"}:
            values[key], sources[f"{prefix}{key}"] = entry["value"], str(entry["source"])
        elif isinstance(entry, dict):
            values[key], nested = _split(entry, f"{prefix}{key}.")
            sources |= nested
        else:
            values[key] = entry
    return values, sources


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _merge(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(out.get(key), dict):
            out[key] = _merge(out[key], value)
        else:
            out[key] = _plain(value) if is_dataclass(value) else value
    return out


def _plain(spec: Any) -> dict[str, Any]:
    return {
        f.name: _plain(value) if is_dataclass(value) else value
        for f in fields(spec)
        for value in [getattr(spec, f.name)]
    }
