"""YAML files of the user: read safely, with the line of every key for error messages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workloads.paths import absence

__all__ = ["YamlFile", "parse_yaml", "read_yaml"]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlFile:
    """A file's plain content and the line of every key; keys of nested parts are dotted."""

    name: str
    content: Any
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """Return "file, line n" of `key`, or of the nearest part that holds it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.name}, line {self.lines[key]}" if key else self.name


def _key_lines(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    lines: dict[str, int] = {}
    pairs: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(index), value, value) for index, value in enumerate(node.value)]
    for name, key, value in pairs:
        path = f"{prefix}{name}"
        lines[path] = key.start_mark.line + 1
        lines |= _key_lines(value, f"{path}.")
    return lines


def parse_yaml(text: str, name: str) -> YamlFile:
    """Return the content of `text`. Raises ValueError with file and line if it is not YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ValueError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    return YamlFile(name=name, content=content, lines=_key_lines(node))


def read_yaml(path: Path, name: str | None = None) -> YamlFile:
    """Return the content of a file. Raises ValueError, naming it, if it is missing or not YAML."""
    name = name or str(path)
    if why := absence(path):
        raise ValueError(f"File {name!r} {why}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not valid YAML: {error}") from None
    return parse_yaml(text, name)
