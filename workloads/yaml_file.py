"""YAML files of the user: read safely and validated, every mistake one sentence with its line."""

import difflib
import json
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml

from workloads.paths import absence
from workloads.wanted import owner, wanted

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["YamlFile", "among", "parse_yaml", "read_yaml"]

Kind = TypeVar("Kind")

MOST: Final = 1 << 50
"""Largest number of a file: products of some stay within the 64 bits of counts."""

_INT: Final = re.compile(r"[-+]?(0x[0-9a-fA-F]+|[0-9][0-9_]*)$")
_FLOAT: Final = re.compile(
    r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """Safe YAML with the numbers of YAML 1.2: 1e9 and 19.2e9 are numbers, 2:8 is a text."""


def _number(_loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = str(node.value).replace("_", "").lower()
    if "x" in text:
        return int(text, 16)
    if _INT.match(text):
        return int(text)
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    # 19.2e9 is a round number of something: a whole number wherever one is wanted.
    return int(value) if "e" in text and value.is_integer() else value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith((":int", ":float"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in (("int", _INT), ("float", _FLOAT)):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, [*"-+.0123456789"])
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def among(given: object, known: Iterable[str], what: str = "known") -> str:
    """Return "known: a, b" and, if one is spelt alike, which may have been meant.

    >>> among("rowz", ["rows", "cols"])
    "known: rows, cols (did you mean 'rows'?)"
    """
    names = list(known)
    close = difflib.get_close_matches(str(given), names, 1)
    return f"{what}: {', '.join(names)}" + (f" (did you mean {close[0]!r}?)" if close else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlFile:
    """A file's plain content and the line of every key; keys of nested parts are dotted."""

    name: str
    content: Any = None
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """Return "file, line n" of `key`, or of the nearest part that holds it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.name}, line {self.lines[key]}" if key else self.name

    def blamed(self, message: str, key: str = "") -> str:
        """Return the part of `key` that a message names first, `key` if it names none."""
        parts = (f"{key}.{word}".removeprefix(".") for word in re.findall(r"\w+", message))
        return next((part for part in parts if part in self.lines), key)

    def mapping(self, wanted: str) -> dict[str, Any]:
        """Return a copy of the content. Raises ValueError saying what is wanted if it is none."""
        if not isinstance(self.content, dict):
            empty = "the file is empty; " if self.content is None else ""
            raise ValueError(f"{self.name}: {empty}{wanted}")
        return dict(self.content)

    def build(self, kind: type[Kind], content: Any) -> Kind:
        """Return `content`, which stands in this file, validated as the dataclass `kind`.

        Raises ValueError naming file, line and key of whatever is unknown, missing, mistyped or
        out of range.
        """
        from pydantic import ValidationError

        validator: TypeAdapter[Kind] = _validator(kind)  # type: ignore[arg-type]  # types hash
        try:
            built = validator.validate_python(content)
        except ValidationError as error:
            # A key that is misspelt is also missing: say what stands there first.
            problems = sorted(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN)
            raise ValueError(self._sentence(kind, problems[0])) from None
        for path, value in _leaves(content):
            # The validator takes truths for 0 and 1.
            if isinstance(value, bool) and "true or false" not in wanted(kind, path):
                raise ValueError(self._mistyped(path, value, wanted(kind, path)))
            if isinstance(value, int | float) and not abs(value) <= MOST:
                raise ValueError(self._mistyped(path, value, f"at most {MOST:,} in size"))
        return built

    def _mistyped(self, path: list[str | int], value: Any, words: str) -> str:
        key = ".".join(map(str, path))
        return f"{self.where(key)}: {key} is {_shown(value)}; it must be {words}"

    def _sentence(self, kind: Any, problem: Any) -> str:
        path = list(problem["loc"])
        while path and path[-1] in _BRANCHES:
            path.pop()
        key = ".".join(map(str, path))
        where, message = self.where(key), problem["msg"].removeprefix("Value error, ")
        match problem["type"]:
            case unknown if unknown in _UNKNOWN:
                known = (f.name for f in fields(owner(kind, path[:-1])))
                return f"{where}: unknown key {key!r}; {among(path[-1], known)}"
            case "missing" | "missing_argument":
                return f"{where}: key {key!r} is missing"
            case "value_error":
                return f"{self.where(self.blamed(message, key))}: {message}"
        return self._mistyped(path, problem["input"], wanted(kind, path))


@lru_cache
def _validator(kind: Any) -> "TypeAdapter[Any]":
    """Return the validator of a dataclass, built once: that takes longer than its use."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


_UNKNOWN: Final = ("unexpected_keyword_argument", "extra_forbidden", "invalid_key")
_BRANCHES: Final = ("bool", "int", "float", "str")
"""A union names the branch it tried behind the key; that is no part of the file."""


def _leaves(content: Any, *path: str | int) -> Iterator[tuple[list[str | int], Any]]:
    """Yield everything in plain content that has no parts, and where it stands."""
    if isinstance(content, dict | list | tuple):
        parts = content.items() if isinstance(content, dict) else enumerate(content)
        for part, value in parts:
            yield from _leaves(value, *path, part)
    else:
        yield list(path), content


def _shown(value: Any) -> str:
    """Return a value as a file has it, cut short if it is long.

    >>> _shown(None), _shown("rows")
    ('null', "'rows'")
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)


def _key_lines(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    lines: dict[str, int] = {}
    pairs: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(index), value, value) for index, value in enumerate(node.value)]
    for part, key, value in pairs:
        path = f"{prefix}{part}"
        if path in lines:
            twice = f"key {path!r} stands on line {lines[path]} too"
            raise yaml.constructor.ConstructorError(problem=twice, problem_mark=key.start_mark)
        lines[path] = key.start_mark.line + 1
        lines |= _key_lines(value, f"{path}.")
    return lines


def parse_yaml(text: str, name: str) -> YamlFile:
    """Return the content of `text`.

    Raises ValueError with file and line if it is not YAML or has a key twice.
    """
    try:
        lines = _key_lines(yaml.compose(text, Loader=_Loader))
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ValueError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    return YamlFile(name=name, content=content, lines=lines)


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
