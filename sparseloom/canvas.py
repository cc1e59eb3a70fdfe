"""What figures of reports and studies share: sizes, keys and colours.

Colours are the Okabe-Ito palette, which stays distinct for colour-blind readers.
"""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CAUSES",
    "COMPONENTS",
    "GREY",
    "causes_key",
    "figure",
    "key",
    "legend",
    "rows",
    "short",
    "split",
    "stack",
    "svg",
    "svg_url",
    "thousands",
    "unit",
]

CAUSES: Final = {
    "useful": ("multiplying", "#009E73"),
    "idle": ("idle multipliers", "#A6DBC8"),
    "pipeline": ("fill, load, drain", "#56B4E9"),
    "bandwidth": ("operand transfers", "#D55E00"),
    "latency": ("DRAM latency", "#F0E442"),
    "store": ("write-back", "#CC79A7"),
    "vector": ("vector work", "#0072B2"),
    "fifo": ("empty FIFOs", "#E69F00"),
    "imbalance": ("imbalance", "#000000"),
    "vacant": ("empty chunks", "#BBBBBB"),
}
"""Cycles by cause. Cycles that multiply are split in two: what the effectual products take when
every multiplier works, and the rest, in which some idle for lack of shape or of non-zeros."""

COMPONENTS: Final = {
    "dram": ("DRAM", "#D55E00"),
    "act_buffer": ("activation buffer", "#56B4E9"),
    "weight_buffer": ("weight buffer", "#0072B2"),
    "mv_buffer": ("matrix buffer", "#999933"),
    "out_buffer": ("output buffer", "#CC79A7"),
    "mac": ("multipliers", "#009E73"),
    "vector": ("vector unit", "#E69F00"),
    "wuve": ("update engine", "#000000"),
    "sore": ("selector", "#F0E442"),
    "delta": ("delta encoder", "#BBBBBB"),
}
GREY: Final = "#777777"


def short(name: str, width: int = 34) -> str:
    """Return `name` with its middle cut out if it is longer than `width`."""
    if len(name) <= width:
        return name
    half = (width - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def unit(value: float) -> tuple[float, str]:
    """Return the SI scale at most as large as `value`, and its prefix."""
    for scale, prefix in ((1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= scale:
            return scale, prefix
    return 1e-12, "p"


def figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """Return an empty figure of that many inches and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)  # no window system, no global state
    axes = drawn.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def legend(figure: "Figure", columns: int) -> None:
    """Put the labelled artists above the axes."""
    figure.legend(
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        columnspacing=1.3,
        handlelength=1.6,
    )


def rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a horizontal bar chart, the first on top."""
    axes.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def stack(axes: "Axes", index: int, parts: Sequence[tuple[float, str]]) -> None:
    """Draw row `index` as (length, colour) parts behind each other."""
    left = 0.0
    for value, colour in parts:
        axes.barh(index, value, left=left, color=colour, height=0.72)
        left += value


def key(figure: "Figure", axes: "Axes", entries: Sequence[tuple[str, str]], columns: int) -> None:
    """Put a legend of (label, colour) entries above the axes."""
    for label, colour in entries:
        axes.barh([0], [0], color=colour, label=label)
    legend(figure, columns)


def split(compute: float, macs_effectual: int, peak: int) -> dict[str, float]:
    """Return multiplying cycles as what a full array needs, and the rest."""
    useful = macs_effectual / peak
    return {"useful": useful, "idle": compute - useful}


def causes_key(figure: "Figure", axes: "Axes", stacks: Sequence[Mapping[str, float]]) -> None:
    """Put the legend of the causes that `stacks` are drawn of above the axes."""
    used = [entry for cause, entry in CAUSES.items() if any(stack.get(cause) for stack in stacks)]
    key(figure, axes, used, 7)


def thousands(axes: "Axes") -> None:
    """Write the numbers of the x axis out, with thousands separators."""
    from matplotlib.ticker import StrMethodFormatter

    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def svg(figure: "Figure") -> str:
    """Return a figure as SVG text; the same figure gives the same bytes."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with (
        mpl.rc_context({"svg.hashsalt": "sparseloom", "svg.fonttype": "path"}),
        warnings.catch_warnings(),
    ):
        # A letter that the font has not is drawn as a box; names are the user's own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def svg_url(figure: "Figure") -> str:
    """Return a figure as a data URL of its SVG."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode("ascii")
