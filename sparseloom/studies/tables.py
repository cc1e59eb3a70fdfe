"""Tables of a training study: a title, columns and plain cells, for terminals and notebooks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparseloom.ablation import Optimisation
from sparseloom.studies.sensitivity import Effect
from sparseloom.studies.training import BDWP, Network, TrainingStudy, Variant
from workloads.canonical import Spec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cell", "Table", "by_network", "by_optimisation", "by_setting", "by_variant"]

Cell = str | int | float
"""A float is a ratio, an int a count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Spec):
    """Rows of plain cells under named columns, the first of which labels the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_dataframe(self) -> "pd.DataFrame":
        """Return the table as a pandas frame, labelled by the first column."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.columns)).set_index(self.columns[0])


def by_network(study: TrainingStudy) -> Table:
    """Return dense and BDWP 2:8 cycles of every network, the speed-up and its bound."""
    found = [study.speedup(network) for network in study.networks]
    rows: list[tuple[Cell, ...]] = [
        (str(row.network), row.dense_cycles, row.cycles, row.speedup, row.bound) for row in found
    ]
    counted = f"average of {len(study.averaged)}"
    return Table(
        title=f"One training step of batch {study.batch}: {BDWP} over dense",
        columns=("network", "dense cycles", "cycles", "speed-up", "bound"),
        rows=(*rows, (counted, "", "", study.average(), study.average_bound())),
    )


def by_variant(study: TrainingStudy, variants: Sequence[Variant], title: str) -> Table:
    """Return the speed-ups of several methods or patterns on every averaged network."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            str(variant),
            *(study.speedup(network, variant).speedup for network in study.averaged),
            study.average(variant),
            study.average_bound(variant),
        )
        for variant in variants
    )
    titles = (network.title for network in study.averaged)
    return Table(title=title, columns=("", *titles, "average", "bound"), rows=rows)


def by_optimisation(worths: Mapping[Network, Sequence[Optimisation]]) -> Table:
    """Return how many times as long every network takes without each optimisation."""
    names = [worth.name for worth in next(iter(worths.values()))]
    return Table(
        title="Times as many cycles without one optimisation",
        columns=("network", *names),
        rows=tuple((str(n), *(worth.worth for worth in found)) for n, found in worths.items()),
    )


def by_setting(effects: Sequence[Effect]) -> Table:
    """Return the average under every other setting, and its change."""
    return Table(
        title="Average speed-up with one assumption changed",
        columns=("assumption", "setting", "average", "change"),
        rows=tuple((e.name, e.setting, e.average, f"{e.change:+.1%}") for e in effects),
    )
