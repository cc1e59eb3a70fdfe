"""Figures of the grid study; palette and layout are those of a report's figures."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sparseloom import canvas
from sparseloom.studies.grid import DeltaRun, Energy, GridPoint, crossing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "by_balance",
    "by_density",
    "by_depth",
    "by_energy",
    "by_layer",
    "by_mode",
    "by_threshold",
]

COLOURS: Final = ("#009E73", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS: Final = ("o", "s", "^", "D", "v", "P")

Point = Any


def _grouped(points: Sequence[Point]) -> dict[str, list[Point]]:
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.label, []).append(point)
    return groups


def _lines(
    axes: "Axes",
    points: Sequence[Point],
    x: Callable[[Point], float],
    y: Callable[[Point], float],
) -> None:
    """Draw one line for every label."""
    for index, (label, line) in enumerate(_grouped(points).items()):
        axes.plot(
            [x(p) for p in line],
            [y(p) for p in line],
            label=label,
            color=COLOURS[index % 6],
            marker=MARKERS[index % 6],
            markersize=4,
        )
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _plain(axis: Any) -> None:
    """Write a logarithmic axis in plain numbers."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def by_density(points: Sequence[GridPoint]) -> "Figure":
    """Speed-up over dense by density of the weights, and what the densities allow."""
    figure, axes = canvas.figure(9, 4.4)
    _lines(axes, points, lambda p: p.x, lambda p: p.speedup)
    densities = sorted({p.x for p in points})
    axes.plot(densities, [1 / d for d in densities], "--", color="black", label="1 / density")
    axes.plot(densities, [1 / d**2 for d in densities], ":", color="black", label="1 / density²")
    axes.set_yscale("log", base=2)
    _plain(axes.yaxis)
    axes.set_ylim(0.9, 2 * max(p.speedup for p in points))
    axes.set_xlabel("density of the weights (of both operands, where both are skipped)")
    axes.set_ylabel("speed-up over dense (times)")
    canvas.legend(figure, 3)
    return figure


def by_mode(points: Sequence[GridPoint]) -> "Figure":
    """Speed-up of every mode on the zeros it is made for, and products over effectual products."""
    figure, axes = canvas.figure(9, 1.2 + 0.34 * len(points))
    rows = range(len(points))
    axes.barh(rows, [p.speedup for p in points], color=COLOURS[0], height=0.72)
    axes.plot([p.possible for p in points], rows, "|", color="black", ms=14, label="possible")
    for index, point in enumerate(points):
        axes.text(point.possible, index, f"  {point.speedup:.2f}x", va="center", fontsize=8)
    canvas.rows(axes, [p.label for p in points])
    axes.set_xlim(0.9, 1.5 * max(p.possible for p in points))
    axes.set_xscale("log", base=2)
    _plain(axes.xaxis)
    axes.set_xlabel("speed-up over dense (times)")
    canvas.legend(figure, 1)
    return figure


def by_depth(points: Sequence[GridPoint]) -> "Figure":
    """PE cycles by cause over the depth of the FIFOs, in percent of the shallowest grid's."""
    figure, axes = canvas.figure(9, 1.2 + 0.34 * len(points))
    whole = max(p.result.cycles for p in points)
    parts = {"compute": ("multiplying", COLOURS[0])} | {
        cause: canvas.CAUSES[cause] for cause in ("fifo", "imbalance", "vacant", "pipeline")
    }
    for index, point in enumerate(points):
        scale = 100 * point.result.cycles / whole
        stack = [(scale * point.share(cause), colour) for cause, (_, colour) in parts.items()]
        canvas.stack(axes, index, stack)
    canvas.rows(axes, [p.label for p in points])
    axes.set_xlabel(f"cycles of a PE by cause (% of those with {points[0].label})")
    canvas.key(figure, axes, list(parts.values()), 5)
    return figure


def by_balance(points: Sequence[GridPoint]) -> "Figure":
    """Speed-up with and without greedy balance, by how much features differ in density."""
    figure, axes = canvas.figure(9, 3.6)
    _lines(axes, points, lambda p: p.x, lambda p: p.speedup)
    reference = points[: len({p.x for p in points})]
    axes.plot(
        [p.x for p in reference],
        [p.possible for p in reference],
        "--",
        color="black",
        label="possible",
    )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("deviation of the logarithm of a feature's density")
    axes.set_ylabel("speed-up over dense (times)")
    canvas.legend(figure, 3)
    return figure


def by_energy(points: Sequence[Energy]) -> "Figure":
    """Dynamic energy and time of one product by density, and where curves cross the plain array."""
    figure, axes = canvas.figure(9, 6.2)
    axes.remove()
    above, below = figure.subplots(2, 1, sharex=True)
    groups = _grouped(points)
    plain = next(iter(groups.values()))
    x = [p.density for p in plain]
    sides: tuple[tuple[Any, str, Callable[[Energy], float], str], ...] = (
        (above, "dynamic energy (µJ)", lambda p: p.energy_j * 1e6, "grid that gates"),
        (below, "time (thousand cycles)", lambda p: p.cycles / 1e3, "grid that skips"),
    )
    for axes, label, value, other in sides:
        axes.spines[["top", "right"]].set_visible(False)
        _lines(axes, points, lambda p: p.density, value)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        met = crossing(x, [value(p) for p in groups[other]], [value(p) for p in plain])
        if met is not None:
            axes.axvline(met, color=canvas.GREY, linestyle="--", linewidth=1)
            place = axes.get_xaxis_transform()
            axes.text(met, 0.04, f"{met:.2f} ", ha="right", fontsize=8.5, transform=place)
    below.set_xlabel("density of both operands")
    handles, labels = above.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return figure


def by_threshold(runs: Sequence[DeltaRun]) -> "Figure":
    """What is sent, what it saves and what it costs in accuracy, by threshold."""
    figure, axes = canvas.figure(9, 3.6)
    thresholds = [run.threshold for run in runs]
    lines = (
        ("activations sent (%)", [100 * run.density for run in runs]),
        ("time (% of whole frames)", [100 / run.speedup for run in runs]),
        ("largest error of a frame (%)", [100 * run.error for run in runs]),
    )
    for (label, values), colour, marker in zip(lines, COLOURS, MARKERS, strict=False):
        axes.plot(thresholds, values, label=label, color=colour, marker=marker, markersize=4)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threshold of a difference (int8)")
    axes.set_ylabel("%")
    canvas.legend(figure, 3)
    return figure


def by_layer(point: GridPoint) -> "Figure":
    """Products that zeros of weights, of activations and of both leave, layer by layer."""
    rows = point.result.per_op[point.result.per_op["macs_dense"] > 0]
    figure, axes = canvas.figure(9, 3.8)
    x = range(len(rows))
    for (label, key), colour, marker in zip(
        (("a weight", "macs_weight"), ("an activation", "macs_act"), ("both", "macs_effectual")),
        COLOURS,
        MARKERS,
        strict=False,
    ):
        shares = 100 * rows[key] / rows["macs_dense"]
        axes.plot(x, shares, label=label, color=colour, marker=marker, markersize=3.5, lw=1.1)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_ylim(0, 103)
    axes.set_xlabel("products of the network, in order")
    axes.set_ylabel("multiply-accumulates with it (%)")
    canvas.legend(figure, 3)
    return figure
