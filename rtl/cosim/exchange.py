"""Files between the process that compares and the simulator that plays.

Port words are hexadecimal text: wide ones exceed what JSON numbers carry.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from rtl import shapes
from rtl.cosim.play import Observation
from rtl.cosim.stimulus import Stimulus

__all__ = ["read_observations", "read_stimuli", "write_observations", "write_stimuli"]

WORDS = ("jobs", "side", "top", "outputs")


def _to_json(record: Stimulus | Observation) -> dict[str, Any]:
    content = asdict(record)
    return {k: [f"{v:x}" for v in content[k]] if k in WORDS else content[k] for k in content}


def _from_json(content: dict[str, Any]) -> dict[str, Any]:
    def restored(name: str, value: Any) -> Any:
        if name in WORDS:
            return tuple(int(word, 16) for word in value)
        return tuple(value) if isinstance(value, list) else value

    return {name: restored(name, value) for name, value in content.items()}


def write_stimuli(path: Path, stimuli: Iterable[Stimulus]) -> None:
    """Write the stimuli to a file."""
    path.write_text(json.dumps([_to_json(stimulus) for stimulus in stimuli]), encoding="utf-8")


def read_stimuli(path: Path) -> list[Stimulus]:
    """Return the stimuli of a file."""
    return [Stimulus(**_from_json(content)) for content in json.loads(path.read_bytes())]


def write_observations(path: Path, seen: Sequence[tuple[Observation, int]]) -> None:
    """Write observations, each with the word of the counters port."""
    content = [{**_to_json(observation), "word": f"{word:x}"} for observation, word in seen]
    path.write_text(json.dumps(content), encoding="utf-8")


def _counters(word: int) -> dict[str, int]:
    layout = shapes.counters()
    return {
        name: word >> item.offset & ((1 << item.width) - 1)
        for name, item in ((name, layout[name]) for name, _ in layout)
    }


def read_observations(path: Path) -> list[Observation]:
    """Return the observations of a file, their counters unpacked."""
    names = {field.name for field in fields(Observation)}
    found = []
    for content in json.loads(path.read_bytes()):
        record = Observation(**_from_json({k: v for k, v in content.items() if k in names}))
        found.append(replace(record, counters=_counters(int(content["word"], 16))))
    return found
