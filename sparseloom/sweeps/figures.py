"""Figures of a sweep: the front of two objectives, and every point across its dimensions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sparseloom.canvas import figure, svg_url
from sparseloom.sweeps.metrics import METRICS
from sparseloom.sweeps.summary import IDENTITY, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_front", "draw_group", "draw_parallel"]

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
"""Okabe and Ito's colours, which stay distinct for colour-blind readers."""

Record = Mapping[str, Any]


def _axis_label(name: str) -> str:
    metric = METRICS[name]
    named = metric.unit and metric.unit != metric.label
    return f"{metric.label} ({metric.unit})" if named else metric.label


def _log(axes: "Axes", name: str, values: Sequence[float], which: str) -> None:
    """Use a logarithmic axis where values spread over more than a factor of 5."""
    if min(values) > 0 and max(values) > 5 * min(values):
        getattr(axes, f"set_{which}scale")("log")


def draw_front(group: Group, objectives: Sequence[str]) -> "Figure":
    """Scatter all points by the first two objectives; the front is a line through its points."""
    x, y = objectives[:2]
    drawn, axes = figure(8.0, 4.6)
    allowed = {row["digest"] for row in group.allowed}
    kinds = sorted({row["sparsity"] for row in group.rows})
    for colour, kind in zip(PALETTE, kinds, strict=False):
        rows = [row for row in group.rows if row["sparsity"] == kind]
        inside = [row for row in rows if row["digest"] in allowed]
        outside = [row for row in rows if row["digest"] not in allowed]
        axes.scatter([r[x] for r in inside], [r[y] for r in inside], s=26, color=colour, label=kind)
        axes.scatter(
            [r[x] for r in outside], [r[y] for r in outside], s=22, facecolors="none",
            edgecolors=colour, linewidths=0.8,
        )  # fmt: skip
    axes.plot(
        [row[x] for row in group.front],
        [row[y] for row in group.front],
        color="#333333",
        linewidth=1,
        zorder=0,
        label="Pareto front",
    )
    for name, which in ((x, "x"), (y, "y")):
        _log(axes, name, [row[name] for row in group.rows], which)
    axes.set_xlabel(_axis_label(x))
    axes.set_ylabel(_axis_label(y))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    beyond = " (hollow: beyond a constraint)" if len(allowed) < len(group.rows) else ""
    axes.set_title(f"{group.workload}: {len(group.rows)} points{beyond}", fontsize=10, loc="left")
    drawn.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    return drawn


def _dimensions(rows: Sequence[Record], objectives: Sequence[str]) -> list[str]:
    """Return what differs between points, the objectives behind."""
    skip = {"digest", *METRICS, *(n for n in IDENTITY if n != "sparsity" and n != "arch")}
    names = [name for name in rows[0] if name not in skip and "workload." not in name]
    varied = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    return [*varied, *objectives]


def _places(rows: Sequence[Record], name: str) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return each row's height in [0, 1] on an axis, and the axis' ticks."""
    values = [row.get(name) for row in rows]
    if name in METRICS:
        numbers = np.array(values, dtype=float)
        if (numbers > 0).all():
            numbers = np.log(numbers)
        low, high = numbers.min(), numbers.max()
        span = high - low or 1.0
        ends = [(0.0, f"{min(values):.3g}"), (1.0, f"{max(values):.3g}")]  # type: ignore[type-var]
        return (numbers - low) / span, ends if high > low else ends[:1]
    try:
        kinds = sorted(set(values))  # type: ignore[type-var]
    except TypeError:
        kinds = sorted(set(values), key=str)
    step = 1 / max(len(kinds) - 1, 1)
    place = {value: index * step for index, value in enumerate(kinds)}
    return (
        np.array([place[value] for value in values]),
        [(place[value], f"{value:,}" if isinstance(value, int) else str(value)) for value in kinds],
    )


def draw_parallel(group: Group, objectives: Sequence[str]) -> "Figure":
    """Draw every point as a line across its dimensions, coloured by the first objective."""
    from matplotlib import colormaps

    names = _dimensions(group.rows, objectives)
    drawn, axes = figure(max(8.0, 1.5 * len(names)), 4.6)
    places, ticks = zip(*(_places(group.rows, name) for name in names), strict=True)
    heights = np.array(places).T
    shade = heights[:, names.index(objectives[0])]
    front = {row["digest"] for row in group.front}
    for row, line, tone in zip(group.rows, heights, shade, strict=True):
        best = row["digest"] in front
        axes.plot(
            line,
            color=colormaps["viridis_r"](tone),
            linewidth=2.0 if best else 0.6,
            alpha=1.0 if best else 0.45,
            zorder=2 if best else 1,
        )
    for at, marks in enumerate(ticks):
        axes.axvline(at, color="#999999", linewidth=0.8, zorder=0)
        for height, text in marks:
            axes.annotate(text, (at, height), xytext=(4, 3), textcoords="offset points", fontsize=7)
    labels = [METRICS[n].label if n in METRICS else n.replace(".", "\n") for n in names]
    axes.set_xticks(range(len(names)), labels, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(names) - 0.4)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(
        f"{group.workload}: darker is more {METRICS[objectives[0]].label}, "
        "thick lines are the Pareto front",
        fontsize=10,
        loc="left",
    )
    return drawn


def draw_group(group: Group, objectives: Sequence[str]) -> dict[str, str]:
    """Return the figures of one workload as data URIs of SVG, by title."""
    found = {}
    if len(objectives) > 1:
        found["Pareto front"] = svg_url(draw_front(group, objectives))
    found["All points"] = svg_url(draw_parallel(group, objectives))
    return found
