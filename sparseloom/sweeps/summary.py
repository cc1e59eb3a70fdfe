"""What a sweep found: tables, the Pareto front, the best point under the constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sparseloom.sweeps.metrics import METRICS
from sparseloom.sweeps.store import Row, Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Group", "Summary", "pareto_front", "summarise", "to_dataframe", "workload_label"]

IDENTITY: Final = ("workload", "phase", "method", "sparsity", "arch", "mapper", "minimise")
"""Columns every point has beside its machine parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The points of one workload: all finished, those within the constraints, the front of these.

    Rows are plain mappings of parameters and metrics together; `best` holds, for each objective,
    the best row within the constraints, None if there is none; of equals it is the one that is
    best in the other objectives. `meets` says of each constraint how many rows keep it, and the
    value that comes nearest to it.
    """

    workload: str
    rows: Sequence[Mapping[str, Any]]
    allowed: Sequence[Mapping[str, Any]]
    front: Sequence[Mapping[str, Any]]
    best: Mapping[str, Mapping[str, Any] | None]
    meets: Mapping[str, tuple[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A sweep and its groups, one a workload, in the order of the specification."""

    name: str
    digest: str
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    finished: int
    failures: Mapping[str, int] = field(default_factory=dict)
    groups: tuple[Group, ...]


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows no other row beats: float[points, objectives], smaller is better.

    A row is beaten when another is nowhere worse and somewhere better; equal rows all stay.

    >>> pareto_front(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
    [True, True, False]
    """
    order = np.lexsort(values.T[::-1])
    front: NDArray[np.float64] = np.empty((0, values.shape[1]))
    keep = np.zeros(len(values), dtype=bool)
    for index in order:  # nothing behind in this order beats what lies in front of it
        row = values[index]
        beaten = ((front <= row).all(axis=1) & (front < row).any(axis=1)).any()
        if not beaten:
            keep[index] = True
            front = np.vstack([front, row])
    return keep


def workload_label(row: Mapping[str, Any]) -> str:
    """Return the name of a point's workload with its options and phase."""
    options = [f"{k.removeprefix('workload.')} {v}" for k, v in row.items() if "workload." in k]
    parts = [str(row["workload"]), *options]
    if row["phase"] != "infer":
        parts.append(f"{row['phase']} {row['method'] or ''}".strip())
    return ", ".join(parts)


def _signed(name: str, value: float) -> float:
    return -value if METRICS[name].more_is_better else value


def _allows(constraints: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> bool:
    for limit in constraints:
        value = row[limit["metric"]]
        if limit["at_most"] is not None and value > limit["at_most"]:
            return False
        if limit["at_least"] is not None and value < limit["at_least"]:
            return False
    return True


def _formula(limit: Mapping[str, Any]) -> str:
    if limit["at_most"] is not None:
        return f"{limit['metric']} <= {limit['at_most']:g}"
    return f"{limit['metric']} >= {limit['at_least']:g}"


def _best(
    name: str, objectives: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    order = (name, *(other for other in objectives if other != name))
    return min(rows, key=lambda row: [_signed(o, row[o]) for o in order], default=None)


def _meets(limit: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    values = [row[limit["metric"]] for row in rows]
    nearest = max(values) if limit["at_most"] is None else min(values)
    return sum(_allows([limit], row) for row in rows), nearest


def _group(label: str, rows: list[dict[str, Any]], spec: Mapping[str, Any]) -> Group:
    objectives, constraints = spec["objectives"], spec["constraints"]
    allowed = [row for row in rows if _allows(constraints, row)]
    values = np.array([[_signed(o, row[o]) for o in objectives] for row in allowed])
    keep = pareto_front(values.reshape(len(allowed), len(objectives)))
    front = [row for row, kept in zip(allowed, keep, strict=True) if kept]
    first = objectives[0]
    return Group(
        workload=label,
        rows=rows,
        allowed=allowed,
        front=sorted(front, key=lambda row: _signed(first, row[first])),
        best={o: _best(o, objectives, allowed) for o in objectives},
        meets={_formula(limit): _meets(limit, rows) for limit in constraints},
    )


def _joined(row: Row) -> dict[str, Any]:
    return {"digest": row.digest, **row.point, **(row.metrics or {})}


def summarise(store: Store, sweep: str | None = None) -> Summary:
    """Return what `sweep` (the latest by default) found so far.

    Raises ValueError for a store without sweeps and an unknown sweep.
    """
    sweeps = store.sweeps()
    if not sweeps:
        raise ValueError(f"Store {str(store.path)!r} holds no sweep yet")
    digest = sweep or next(reversed(sweeps))
    if digest not in sweeps:
        known = ", ".join(key[:12] for key in sweeps)
        raise ValueError(f"Store {str(store.path)!r} has no sweep {digest!r}; known: {known}")
    spec = sweeps[digest]
    grouped: dict[str, list[dict[str, Any]]] = {}
    failures: dict[str, int] = {}
    for row in store.rows(digest):
        if row.metrics is None:
            failures[row.error or ""] = failures.get(row.error or "", 0) + 1
        else:
            grouped.setdefault(workload_label(row.point), []).append(_joined(row))
    return Summary(
        name=spec["name"],
        digest=digest,
        objectives=tuple(spec["objectives"]),
        constraints=tuple(_formula(limit) for limit in spec["constraints"]),
        finished=sum(map(len, grouped.values())),
        failures=dict(sorted(failures.items(), key=lambda item: -item[1])),
        groups=tuple(_group(label, rows, spec) for label, rows in sorted(grouped.items())),
    )


def to_dataframe(store: Store, sweep: str | None = None) -> "pd.DataFrame":
    """Return one row a finished point: parameters, metrics, error and seconds it took."""
    import pandas as pd

    rows = [
        {**_joined(row), "error": row.error, "evaluation_s": row.seconds}
        for row in store.rows(sweep)
    ]
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values and all(type(value) is int for value in values):
            # A point that failed has none, which would make floats of all others.
            frame[name] = pd.array([row.get(name) for row in rows], dtype="Int64")
    return frame
