"""Read a YAML file into a frozen type; what is wrong is one sentence with line and key."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

__all__ = ["build", "read"]

Location = tuple[str | int, ...]


def read(path: Path, name: str) -> tuple[dict[str, Any], dict[Location, int]]:
    """Return the mapping that the file `path` holds, and the line of every key and list entry.

    Raises ValueError naming `name` and the line for text that is not YAML or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ValueError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name}: the file must be a mapping of keys")
    return content, dict(_lines(node))


def _lines(node: yaml.Node | None, path: Location = ()) -> Iterator[tuple[Location, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*path, yaml.safe_load(key.value) if key.value.isdigit() else key.value)
            yield at, key.start_mark.line + 1
            yield from _lines(value, at)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index))


def build(kind: Any, content: dict[str, Any], lines: dict[Location, int], name: str) -> Any:
    """Return `content` validated as the dataclass `kind`; raises ValueError with one sentence."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(_sentence(kind, problem, lines, name)) from None


def _sentence(kind: Any, problem: Any, lines: dict[Location, int], name: str) -> str:
    at: Location = problem["loc"]
    line = next((lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in lines), None)
    where = f"{name}, line {line}" if line else name
    key = ".".join(str(part) for part in at)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = ", ".join(f.name for f in fields(_owner(kind, at[:-1])))
        return f"{where}: unknown key {key!r}; known: {known}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{where}: key {key!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: {key} is {problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _owner(kind: Any, path: Location) -> Any:
    """Return the dataclass that `path` leads to."""
    for part in path:
        if isinstance(part, int):
            continue  # an entry of a list has the type of the list's items
        kind = next(f.type for f in fields(kind) if f.name == part)
        while not is_dataclass(kind):
            kind = get_args(kind)[0]
    return kind
