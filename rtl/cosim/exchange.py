"""Files between the process that compares and the simulator that plays.

Port words are hexadecimal text: wide ones exceed what JSON numbers carry.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amaranth.lib import data

from rtl.cosim.play import Observation, Stimulus, feed

__all__ = ["read_observations", "read_stimuli", "write_observations", "write_stimuli"]


def _hexadecimal(words: Iterable[int]) -> list[str]:
    return [f"{word:x}" for word in words]


def _words(texts: Iterable[str]) -> tuple[int, ...]:
    return tuple(int(text, 16) for text in texts)


def write_stimuli(path: Path, stimuli: Iterable[Stimulus]) -> None:
    """Write the stimuli to a file."""
    content = [
        {
            **asdict(stimulus),
            "feeds": {
                name: (_hexadecimal(each.words), each.delays)
                for name, each in stimulus.feeds.items()
            },
        }
        for stimulus in stimuli
    ]
    path.write_text(json.dumps(content), encoding="utf-8")


def read_stimuli(path: Path) -> list[Stimulus]:
    """Return the stimuli of a file."""

    def restored(content: dict[str, Any]) -> Stimulus:
        feeds = content["feeds"].items()
        named = {name: feed(_words(texts), delays) for name, (texts, delays) in feeds}
        return Stimulus(**{**content, "feeds": named, "out_delays": tuple(content["out_delays"])})

    return [restored(content) for content in json.loads(path.read_bytes())]


def write_observations(path: Path, seen: Sequence[tuple[Observation, int]]) -> None:
    """Write observations, each with the word of the counters port."""
    content = [
        {
            "outputs": _hexadecimal(observation.outputs),
            "accept": dict(observation.accept),
            "emit": observation.emit,
            "counters": f"{word:x}",
        }
        for observation, word in seen
    ]
    path.write_text(json.dumps(content), encoding="utf-8")


def read_observations(path: Path, counters: data.StructLayout) -> list[Observation]:
    """Return the observations of a file; `counters` is the layout of the unit's counters port."""

    def count(word: int, name: str) -> int:
        item = counters[name]
        return word >> item.offset & ((1 << item.width) - 1)

    return [
        Observation(
            outputs=_words(content["outputs"]),
            accept={name: tuple(cycles) for name, cycles in content["accept"].items()},
            emit=tuple(content["emit"]),
            counters={name: count(int(content["counters"], 16), name) for name, _ in counters},
        )
        for content in json.loads(path.read_bytes())
    ]
