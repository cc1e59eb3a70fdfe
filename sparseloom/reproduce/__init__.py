"""Published figures beside ours: the error, the source, and why where they do not match."""

from collections.abc import Callable, Sequence
from typing import Final

from sparseloom.reproduce import flightllm, sat, scale_sim
from sparseloom.reproduce.row import Row, Section

__all__ = ["SECTIONS", "Row", "Section", "reproduce"]

OnStep = Callable[[str], None]

SECTIONS: Final[dict[str, Callable[[OnStep], Section]]] = {
    "scale-sim": scale_sim.section,
    "sat": sat.section,
    "flightllm": flightllm.section,
}
"""What there is to reproduce: a function that runs it and calls back after every step."""


def reproduce(
    names: Sequence[str] = (), *, on_step: OnStep = lambda _name: None
) -> tuple[Section, ...]:
    """Return the named sections, all if none is named.

    Raises ValueError for an unknown one, listing the known.
    """
    for name in names:
        if name not in SECTIONS:
            raise ValueError(f"Unknown section {name!r}; known: {', '.join(SECTIONS)}")
    chosen = dict.fromkeys(names) or SECTIONS
    return tuple(SECTIONS[name](on_step) for name in chosen)
