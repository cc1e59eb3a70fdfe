"""Machine files: presets and the user's own YAML become validated parameters.

A file names its `machine` and gives `parameters`, each a value or {value, source}; `base` takes
another preset's parameters first. Every preset number carries its source.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, overload

from simulator.arch.accelerator import MACHINES, Accelerator, kind
from workloads.canonical import Spec
from workloads.paths import absence, named
from workloads.yaml_file import read_yaml

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
    return _validate(replace(file, lines=lines), _merge(file.values, overrides))


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
    if str(source) in PRESETS:
        return _read(preset_file(str(source)), str(source))
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"Unknown arch {named(source)}; known presets: {', '.join(PRESETS)}; "
            "or give a .yaml file"
        )
    if why := absence(path):
        raise ValueError(f"Arch file {str(path)!r} {why}")
    return _read(path, str(path))


def _read(path: Path, name: str) -> ArchFile:
    file = read_yaml(path, name)
    content, lines = file.content, file.lines
    if not isinstance(content, dict) or not isinstance(content.get("parameters", {}), dict):
        raise ValueError(f"{name}: a machine file is a mapping with keys {', '.join(_KEYS)}")
    for key in content:
        if key not in _KEYS:
            line = lines.get(str(key), 1)
            raise ValueError(f"{name}, line {line}: unknown key {key!r}; known: {', '.join(_KEYS)}")
    return _resolve(content, name, lines)


def _resolve(content: dict[str, Any], name: str, lines: dict[str, int]) -> ArchFile:
    base = content.get("base")
    if base is not None and base not in PRESETS:
        raise ValueError(
            f"{name}, line {lines['base']}: unknown base {base!r}; known: {', '.join(PRESETS)}"
        )
    below = read_arch_file(base) if base else None
    machine = str(content.get("machine", below.machine if below else None))
    if machine not in MACHINES:
        line = lines.get("machine", 1)
        raise ValueError(
            f"{name}, line {line}: unknown machine {machine!r}; known: {', '.join(MACHINES)}"
        )
    values, sources = _split(content.get("parameters", {}), "")
    own = {key: f"set in {name}" for key in _leaves(values) if name not in PRESETS}
    return ArchFile(
        name=name,
        machine=machine,
        summary=str(content.get("summary", below.summary if below else "")),
        values=_merge(below.values, values) if below else values,
        sources={**(below.sources if below else {}), **own, **sources},
        lines={k.removeprefix("parameters."): v for k, v in lines.items()},
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


def _validate(file: ArchFile, values: dict[str, Any]) -> Accelerator:
    from pydantic import TypeAdapter, ValidationError

    machine = MACHINES[file.machine]
    try:
        return TypeAdapter(machine).validate_python(values)
    except ValidationError as error:
        raise ValueError(_sentence(file, machine, error.errors()[0])) from None


def _owner(machine: type, loc: tuple[Any, ...]) -> Any:
    """Return the dataclass that the last part of `loc` would be a field of."""
    owner: Any = machine
    for part in loc[:-1]:
        kind = next(f.type for f in fields(owner) if f.name == part)
        owner = next(t for t in (kind, *get_args(kind)) if is_dataclass(t))  # it may be optional
    return owner


def _sentence(file: ArchFile, machine: type, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    line = file.lines.get(key)
    where = f"{file.name}, line {line}" if line else file.name
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = ", ".join(f.name for f in fields(_owner(machine, problem["loc"])))
        return f"{where}: unknown key {key!r}; known: {known}"
    if problem["type"] == "missing_argument" or problem["type"] == "missing":
        return f"{where}: parameter {key!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: {key} is {problem['input']!r}: {message[:1].lower()}{message[1:]}"
