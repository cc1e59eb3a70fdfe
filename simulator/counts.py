"""Counted events: what happened, how often; never what it costs.

A key is (component, action, variant). Memories count bits moved, `mac` counts multiplier uses
and `vector` element operations. The variant says what became of the event: `full`, `gated`
(the slot was spent, the energy saved), `skipped` (no slot spent) or `metadata` (index bits).
"""

from collections.abc import Iterable, Mapping

__all__ = ["VARIANTS", "Counts", "Event", "add", "scale", "total"]

Event = tuple[str, str, str]
Counts = Mapping[Event, int]
VARIANTS = ("full", "gated", "skipped", "metadata")


def add(parts: Iterable[Counts]) -> dict[Event, int]:
    """Return the sum of several counts, keys sorted."""
    out: dict[Event, int] = {}
    for part in parts:
        for key, value in part.items():
            out[key] = out.get(key, 0) + value
    return dict(sorted(out.items()))


def scale(counts: Counts, times: int) -> dict[Event, int]:
    """Return `counts` of `times` executions."""
    return {key: value * times for key, value in counts.items()}


def total(counts: Counts, component: str, action: str | None = None) -> int:
    """Return the sum over variants (and actions, unless one is named) of a component."""
    return sum(v for (c, a, _), v in counts.items() if c == component and action in (None, a))
