"""Solved problems, kept for the next run: in this process, and in a folder if one is given.

An entry is the choice a mapper made and the bound it proved, never a cost to be trusted: whoever
finds one lowers it anew, and a choice whose exact cost is not the stored one is no entry. Damaged,
foreign and outdated files therefore only cost time, and a folder that cannot be written to only a
warning.
"""

import collections.abc as abc
import json
import os
import tempfile
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from mapping.exhaustive import exact_cost
from mapping.objective import Goal, Number
from mapping.problem import Problem, TileShape
from mapping.stream import map_stream
from mapping.types import Mapping
from simulator.arch import Dataflow, NMArray
from simulator.nm_tile import NMSetting
from simulator.plan import Stream, StreamPlan
from simulator.recent import Recent
from simulator.schedule import Block
from simulator.simulate import VERSION
from workloads.canonical import Spec, digest

__all__ = ["Cache", "CacheWarning", "Key"]

MOST_ENTRIES: Final = 4096
"""Entries a process keeps; the ones not asked for the longest go first."""

UNREADABLE: Final = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RecursionError,
)
"""What reading a damaged or foreign file may raise."""

Program = tuple[Block, abc.Mapping[str, int], StreamPlan]


@lru_cache(maxsize=64)
def _of_products(arch: NMArray) -> NMArray:
    """Return `arch` with what no product depends on at its least."""
    return replace(arch, vector_lanes=1, training=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Spec):
    """What a mapper's choice depends on."""

    mapper: str
    arch: NMArray
    problem: Problem
    goal: Goal

    @classmethod
    def of(cls, mapper: str, arch: NMArray, problem: Problem, goal: Goal) -> "Key":
        """Return the key of a problem; operators that differ in nothing that matters share it."""
        machine = arch if problem.select else _of_products(arch)
        return cls(mapper=mapper, arch=machine, problem=problem, goal=goal)


class CacheWarning(UserWarning):
    """Choices are not kept, since their folder cannot be written to."""


class Cache:
    """Mappings by problem, and programs of streams; `folder` None keeps them in memory only.

    Warns once, by `CacheWarning`, if the folder cannot be written to.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._solved: Recent[Key, Mapping] = Recent(MOST_ENTRIES)
        self._streams: Recent[abc.Hashable, Program] = Recent(MOST_ENTRIES)
        self._warned = False

    def find(self, key: Key) -> Mapping | None:
        """Return the mapping of `key`, None if it is not known."""
        found = self._solved.get(key)
        if found is None and self.folder:
            found = _read(_path(self.folder, key), key)
            if found:
                self._solved.put(key, found)
        return found

    def keep(self, key: Key, mapping: Mapping) -> None:
        """Keep `mapping`, in the folder if it is proved."""
        self._solved.put(key, mapping)
        if self.folder and mapping.bound == mapping.cost and not self._warned:
            try:
                _write(_path(self.folder, key), mapping)
            except OSError as error:
                self._warned = True
                warnings.warn(
                    f"Cache folder {str(self.folder)!r} cannot be written: {error.strerror}; "
                    "choices are not kept there",
                    CacheWarning,
                    stacklevel=2,
                )

    def stream(self, arch: NMArray, stream: Stream) -> Program:
        """Return what `map_stream` returns, one for all machines alike but for their array."""
        key = (stream, arch.act_buffer, arch.dram, arch.clock_hz, arch.vector_lanes, arch.training)
        found = self._streams.get(key)
        if found is None:
            found = map_stream(arch, stream)
            self._streams.put(key, found)
        return found


def _path(folder: Path, key: Key) -> Path:
    return folder / f"{digest([VERSION, key])}.json"


def _write(path: Path, mapping: Mapping) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"digest": mapping.digest(), "mapping": mapping.to_json()}, file)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _read(path: Path, key: Key) -> Mapping | None:
    """Return the mapping in a file, None if there is none that is whole and holds for `key`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = _parsed(content["mapping"])
        whole = found.digest() == content["digest"]
    except UNREADABLE:
        return None
    return found if whole and _cost(key, found) == found.cost else None


def _cost(key: Key, found: Mapping) -> Number:
    problem = key.problem.packed(found.packed) if found.packed > 1 else key.problem
    return exact_cost(key.arch, key.goal, problem, found.setting, found.shape)


def _parsed(content: dict[str, Any]) -> Mapping:
    """Return the mapping of a file's content; raise ValueError, TypeError or KeyError."""
    plain = {name: value for name, value in content.items() if name != "type"}
    setting = {name: plain["setting"][name] for name in ("dataflow", "kept", "group", "indexed")}
    setting["dataflow"] = Dataflow(setting["dataflow"])
    shape = {name: plain["shape"][name] for name in ("units", "m", "k", "n", "order")}
    return Mapping(**{**plain, "setting": NMSetting(**setting), "shape": TileShape(**shape)})
