"""The picture of a choice: every candidate by cycles and one limit, and which was chosen."""

from typing import TYPE_CHECKING

from sparseloom.canvas import GREY, figure, legend, svg
from sparseloom.designs.outcome import Design

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_front", "front_svg"]


def draw_front(design: Design, limit: str | None = None) -> "Figure":
    """Draw cycles over what candidates take of `limit`, by default the one the choice is next to.

    Raises ValueError for a limit that no candidate takes of.
    """
    limits, used = design.budget.limits, design.choice.used
    shown = limit or max(limits, key=lambda name: used[name] / max(limits[name], 1e-9))
    takes = design.reference.candidate.takes
    if shown not in takes:
        raise ValueError(f"Unknown limit {shown!r}; known: {', '.join(takes)}")
    from matplotlib.ticker import EngFormatter

    drawn, axes = figure(8.0, 4.6)
    styles = (
        ("fits", [m for m in design.candidates if not m.lacks], "o", "#0072B2"),
        ("exceeds a limit", [m for m in design.candidates if m.lacks], "x", GREY),
        ("reference", [design.reference], "s", "#E69F00"),
        ("chosen", design.machines, "*", "#D55E00"),
    )
    for size, (label, machines, marker, colour) in zip((26, 26, 70, 160), styles, strict=True):
        axes.scatter(
            [m.candidate.takes[shown] for m in machines],
            [m.cycles for m in machines],
            s=size, marker=marker, color=colour, label=label,
        )  # fmt: skip
    if shown in limits:
        axes.axvline(limits[shown], color=GREY, linestyle="--", label="limit")
    axes.set_xlabel(shown)
    axes.set_ylabel("cycles of all workloads")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.yaxis.set_major_formatter(EngFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    legend(drawn, 5)
    return drawn


def front_svg(design: Design) -> str:
    """Return the picture as SVG text; the same design draws the same bytes."""
    return svg(draw_front(design))
