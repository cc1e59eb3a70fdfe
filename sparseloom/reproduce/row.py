"""One published figure beside ours, and the sections that gather them."""

from dataclasses import dataclass
from typing import Any, Final

from sparseloom.studies.tables import Table
from workloads.canonical import Spec

__all__ = ["TOLERANCE", "Row", "Section"]

TOLERANCE: Final = 0.05
"""Relative error up to which a figure counts as reproduced, unless a row asks for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Spec):
    """A published figure and ours in `unit`; `note` says how they compare, and why not if not.

    `uncorrected` is ours without an assumed correction, if there is one.
    """

    what: str
    published: float
    ours: float
    unit: str
    source: str
    note: str = ""
    uncorrected: float | None = None
    tolerance: float = TOLERANCE

    @property
    def error(self) -> float:
        """Relative error of ours."""
        return self.ours / self.published - 1

    @property
    def matches(self) -> bool:
        """Whether the error is within the tolerance."""
        return abs(self.error) <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Return a plain JSON object, error and verdict included."""
        names = ("what", "published", "uncorrected", "ours", "unit", "error", "matches", "source")
        return {name: getattr(self, name) for name in (*names, "note")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Spec):
    """Figures of one source, with the tables behind them and sentences to the reader."""

    name: str
    title: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...] = ()
    sentences: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain JSON object."""
        return {
            "name": self.name,
            "title": self.title,
            "rows": [row.to_json() for row in self.rows],
            "tables": [
                {"title": t.title, "columns": list(t.columns), "rows": [list(r) for r in t.rows]}
                for t in self.tables
            ],
            "sentences": list(self.sentences),
        }
