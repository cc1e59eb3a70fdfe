"""What the keys of a file may hold, by the dataclass it becomes, in the words of who writes it.

A field says more than its type does with the metadata `wanted`.
"""

import collections.abc as abc
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, Final, get_args, get_origin

__all__ = ["owner", "wanted"]

Path = abc.Sequence[str | int]

_ONE: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "null",
}
_MANY: Final = {int: "whole numbers", float: "numbers", str: "texts"}


def owner(kind: Any, path: Path) -> Any:
    """Return the dataclass that `path` leads to; list indices and keys of mappings are passed."""
    for part in path:
        types = {f.name: f.type for f in fields(kind)}
        kind = next(_dataclasses(types.get(str(part))), kind)
    return kind


def wanted(kind: Any, path: Path) -> str:
    """Return what may stand at `path` of a file that becomes the dataclass `kind`.

    Raises LookupError for a path that leads nowhere.

    >>> from dataclasses import make_dataclass
    >>> wanted(make_dataclass("Machine", [("rows", int), ("bits", tuple[int, ...])]), ["bits"])
    'a list of whole numbers'
    """
    said = None
    for part in path:
        kind, said = _inside(kind, part)
    return said or _words(kind)


def _dataclasses(kind: Any) -> abc.Iterator[Any]:
    if is_dataclass(kind):
        yield kind
    for argument in get_args(kind):
        yield from _dataclasses(argument)


def _inside(kind: Any, part: str | int) -> tuple[Any, str | None]:
    """Return what a part of a dataclass, list or mapping is, and what its metadata says."""
    for member in (kind, *get_args(kind)):  # of a union, the one that has parts
        if is_dataclass(member):
            found = next((field for field in fields(member) if field.name == part), None)
            if found is None:
                raise LookupError(part)
            return found.type, found.metadata.get("wanted")
        if get_origin(member) is tuple:
            return get_args(member)[0], None
        if get_origin(member) in (dict, abc.Mapping):
            return get_args(member)[1], None
    raise LookupError(part)


def _words(kind: Any) -> str:
    *most, last = _alternatives(kind)
    return f"{', '.join(most)} or {last}" if most else last


def _alternatives(kind: Any) -> list[str]:
    arguments = get_args(kind)
    if kind in _ONE:
        return [_ONE[kind]]
    if is_dataclass(kind):
        return [f"a mapping ({', '.join(field.name for field in fields(kind))})"]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    if get_origin(kind) is tuple:
        size = "" if Ellipsis in arguments else f"{len(arguments)} "
        return [f"a list of {size}{_several(arguments[0])}"]
    if get_origin(kind) in (dict, abc.Mapping):
        return ["a mapping"]
    return [words for argument in arguments for words in _alternatives(argument)]


def _several(kind: Any) -> str:
    return _MANY.get(kind) or (
        "mappings" if is_dataclass(kind) else f"entries, each {_words(kind)}"
    )
