"""Published figures beside ours: the error, the source, and why where they do not match."""

from collections.abc import Callable, Sequence
from typing import Final

from sparseloom.reproduce import (
    eyeriss_v2,
    flightllm,
    sat,
    scale_sim,
    sigma_tpu,
    tensor_cores,
)
from sparseloom.reproduce.row import Row, Section

__all__ = ["SECTIONS", "Row", "Section", "reproduce"]

OnStep = Callable[[str], None]

SECTIONS: Final[dict[str, Callable[[OnStep], Section]]] = {
    "scale-sim": scale_sim.section,
    "eyeriss-v2": eyeriss_v2.section,
    "sigma-tpu": sigma_tpu.section,
    "tensor-cores": tensor_cores.section,
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
