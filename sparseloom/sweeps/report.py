"""What `report STORE` shows: tables on the terminal, a page, and the points as CSV and Parquet."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sparseloom.sweeps.metrics import METRICS
from sparseloom.sweeps.store import Store
from sparseloom.sweeps.summary import IDENTITY, Group, Summary, to_dataframe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SweepTable", "meanings", "sweep_tables", "to_json", "write_report"]

COLUMNS: Final = {
    "digest": ("", "key of the point in the store"),
    "arch": ("", "preset or machine file whose parameters the others replace"),
    "sparsity": ("", "structure of the weights"),
    "phase": ("", "infer, or train: one training step"),
    "method": ("", "training method"),
    "mapper": ("", "how operators were mapped"),
    "minimise": ("", "what mappings were chosen to minimise"),
    "error": ("", "why there is no result"),
    "evaluation_s": ("s", "time it took to simulate the point"),
}
"""Unit and meaning of columns that are neither metrics nor parameters."""

FRONT_ROWS: Final = 20
"""Most points of a front that a table shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTable:
    """A table of texts with a title; columns after the first are numbers or names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _parameters(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns in which points differ, machine and sparsity included."""
    names = [
        name
        for name in rows[0]
        if name not in ("digest", *METRICS) and "workload" not in name and name != "mapper"
    ]
    varied = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    return sorted(varied, key=lambda name: (name not in IDENTITY, names.index(name)))


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _best(group: Group, summary: Summary) -> SweepTable:
    if not group.allowed:
        return _unmet(group)
    names = _parameters(group.rows)
    found = [(o, row) for o, row in group.best.items() if row is not None]
    limits = f" with {', '.join(summary.constraints)}" if summary.constraints else ""
    return SweepTable(
        title=f"Best of each objective{limits}",
        columns=("objective", "value", "equally good", *names),
        rows=tuple(
            (
                o,
                _text(row[o]),
                _text(sum(other[o] == row[o] for other in group.allowed) - 1),
                *(_text(row.get(name)) for name in names),
            )
            for o, row in found
        ),
    )


def _unmet(group: Group) -> SweepTable:
    return SweepTable(
        title=f"None of {len(group.rows):,} points meets all constraints",
        columns=("constraint", "points that meet it", "nearest value"),
        rows=tuple(
            (formula, _text(count), _text(value)) for formula, (count, value) in group.meets.items()
        ),
    )


def _front(group: Group, summary: Summary) -> SweepTable:
    names, objectives = _parameters(group.rows), summary.objectives
    shown = group.front[:FRONT_ROWS]
    more = f", the first {len(shown)}" if len(shown) < len(group.front) else ""
    met = " that meet all constraints" if summary.constraints else ""
    return SweepTable(
        title=f"Pareto front: {len(group.front)} of {len(group.allowed):,} points{met}{more}",
        columns=(*objectives, *names),
        rows=tuple(tuple(_text(row.get(name)) for name in (*objectives, *names)) for row in shown),
    )


def sweep_tables(summary: Summary) -> list[tuple[str, list[SweepTable]]]:
    """Return the tables of every workload; without a front if no point meets the constraints."""
    return [
        (g.workload, [_best(g, summary), *([_front(g, summary)] if g.allowed else [])])
        for g in summary.groups
    ]


def meanings(columns: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return (name, unit, meaning) of each column that is a metric or a point's identity."""
    metrics = ((n, METRICS[n].unit, METRICS[n].label) for n in columns if n in METRICS)
    others = ((n, *COLUMNS[n]) for n in columns if n in COLUMNS)
    return [*others, *metrics]


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain JSON values."""
    return {
        "name": summary.name,
        "sweep": summary.digest,
        "finished": summary.finished,
        "failed": sum(summary.failures.values()),
        "failures": dict(summary.failures),
        "objectives": list(summary.objectives),
        "constraints": list(summary.constraints),
        "workloads": [
            {
                "workload": group.workload,
                "points": len(group.rows),
                "allowed": len(group.allowed),
                "best": {name: row and dict(row) for name, row in group.best.items()},
                "front": [dict(row) for row in group.front],
            }
            for group in summary.groups
        ],
    }


def _page(summary: Summary) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from sparseloom.sweeps.figures import draw_group

    environment = Environment(
        loader=PackageLoader("sparseloom"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [
        {
            "label": group.workload,
            "figures": [
                {"title": title, "url": url}
                for title, url in draw_group(group, summary.objectives).items()
            ],
            "tables": tables,
        }
        for group, (_, tables) in zip(summary.groups, sweep_tables(summary), strict=True)
    ]
    return environment.get_template("sweep.html.j2").render(
        s=summary, groups=groups, meanings=meanings([*COLUMNS, *METRICS])
    )


def _parquet(frame: "pd.DataFrame") -> bytes | None:
    """Return the frame as Parquet, None where the library for it is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return None
    buffer = io.BytesIO()
    # A parameter may be a number at one point and a word at another.
    mixed = [n for n in frame.columns if frame[n].map(type).nunique() > 1 and frame[n].dtype == "O"]
    frame.astype(dict.fromkeys(mixed, "string")).to_parquet(buffer, index=False)
    return buffer.getvalue()


def write_report(store: Store, summary: Summary, folder: Path) -> tuple[Path, ...]:
    """Write report.html, points.csv and, where pyarrow is installed, points.parquet."""
    from sparseloom.outputs import write_files

    frame = to_dataframe(store, summary.digest)
    files: dict[str, str | bytes] = {
        "report.html": _page(summary),
        "points.csv": frame.to_csv(index=False),
    }
    parquet = _parquet(frame)
    if parquet is not None:
        files["points.parquet"] = parquet
    return write_files(files, folder)
