"""Figures of a report, drawn from a run's document as self-contained SVG."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sparseloom import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw"]

Document = Mapping[str, Any]
Op = Mapping[str, Any]

_ROWS: Final = 40
"""Most operators a figure shows; the others are pooled in one row or left to the table."""


def _busiest(ops: Sequence[Op]) -> tuple[list[Op], list[Op]]:
    """Return the operators to show, in the order they run, and the others."""
    running = [op for op in ops if op["cycles"]]
    shown = {
        op["name"] for op in sorted(running, key=lambda op: (-op["cycles"], op["name"]))[:_ROWS]
    }
    return (
        [op for op in running if op["name"] in shown],
        [op for op in running if op["name"] not in shown],
    )


def _op_causes(op: Op, peak: int) -> dict[str, float]:
    waits = {c: op.get(f"stall_{c}", 0) for c in canvas.CAUSES}
    compute = op["cycles"] - sum(waits.values())
    return {**waits, **canvas.split(compute, op["macs_effectual"], peak)}


def cycles_by_layer(document: Document) -> "Figure | None":
    """Cycles of every operator, stacked by cause.

    Multiplying is what the effectual products take on a full array, idle multipliers the rest
    of the time in which the array multiplies: the shape fills few of them, or weights are zero.
    """
    shown, others = _busiest(document["ops"])
    if not shown:
        return None
    names = [op["name"] for op in shown]
    peak = document["peak_macs_per_cycle"]
    stacks = [_op_causes(op, peak) for op in shown]
    if others:
        names.append(f"{len(others)} other operators")
        pooled = [_op_causes(op, peak) for op in others]
        stacks.append({cause: sum(stack[cause] for stack in pooled) for cause in canvas.CAUSES})
    figure, axes = canvas.figure(9, 1.2 + 0.21 * len(names))
    for index, stack in enumerate(stacks):
        canvas.stack(axes, index, [(stack[c], colour) for c, (_, colour) in canvas.CAUSES.items()])
    canvas.rows(axes, names)
    axes.set_xlabel("cycles")
    axes.ticklabel_format(axis="x", style="plain")
    canvas.thousands(axes)
    canvas.causes_key(figure, axes, stacks)
    return figure


def speedup_by_layer(document: Document) -> "Figure | None":
    """Speed-up of every operator with products over the baseline, and what its zeros allow."""
    if "baseline_cycles" not in document:
        return None
    shown, _ = _busiest([op for op in document["ops"] if op["macs_dense"]])
    if not shown:
        return None
    figure, axes = canvas.figure(9, 1.2 + 0.21 * len(shown))
    bars = [op["speedup"] for op in shown]
    ideal = [op["macs_dense"] / max(op["macs_effectual"], 1) for op in shown]
    index = range(len(shown))
    axes.barh(index, bars, color="#009E73", height=0.72, label="this run")
    axes.plot(ideal, index, "|", color="black", markersize=9, label="one over the density")
    axes.axvline(1, color=canvas.GREY, linewidth=1)
    axes.axvline(
        document["speedup"], color="#D55E00", linewidth=1.4, linestyle="--", label="whole run"
    )
    canvas.rows(axes, [op["name"] for op in shown])
    axes.set_xlim(0, 1.08 * max(*bars, 1.0, min(max(ideal), 4 * max(bars))))
    axes.set_xlabel(f"speed-up over {document['baseline']} (times)")
    canvas.legend(figure, 3)
    return figure


def _run_causes(document: Document, prefix: str) -> dict[str, float]:
    causes = {b["cause"]: b["cycles"] for b in document[f"{prefix}bottlenecks"]}
    macs, peak = document[f"{prefix}macs_effectual"], document["peak_macs_per_cycle"]
    return {**canvas.split(causes.pop("compute"), macs, peak), **causes}


def causes_of_run(document: Document) -> "Figure | None":
    """Cycles of the whole run by cause, beside the baseline's if there is one."""
    runs = [(document["sparsity"], _run_causes(document, ""))]
    if "baseline_bottlenecks" in document:
        runs.insert(0, (f"{document['baseline']} (baseline)", _run_causes(document, "baseline_")))
    figure, axes = canvas.figure(9, 1.1 + 0.4 * len(runs))
    for index, (_, causes) in enumerate(runs):
        canvas.stack(
            axes, index, [(causes.get(c, 0), colour) for c, (_, colour) in canvas.CAUSES.items()]
        )
    canvas.rows(axes, [name for name, _ in runs])
    axes.set_xlabel("cycles")
    canvas.thousands(axes)
    canvas.causes_key(figure, axes, [causes for _, causes in runs])
    return figure


def energy(document: Document) -> "Figure | None":
    """Energy by component, beside the baseline's if there is one."""
    runs = [(document["sparsity"], document["energy"]["by_component_j"])]
    if "baseline_energy_by_component_j" in document:
        name = f"{document['baseline']} (baseline)"
        runs.insert(0, (name, document["baseline_energy_by_component_j"]))
    scale, prefix = canvas.unit(max(sum(parts.values()) for _, parts in runs))
    figure, axes = canvas.figure(9, 1.1 + 0.4 * len(runs))
    used = [c for c in canvas.COMPONENTS if any(c in parts for _, parts in runs)]
    for index, (_, parts) in enumerate(runs):
        canvas.stack(
            axes, index, [(parts.get(c, 0.0) / scale, canvas.COMPONENTS[c][1]) for c in used]
        )
    canvas.rows(axes, [name for name, _ in runs])
    axes.set_xlabel(f"dynamic energy ({prefix}J)")
    canvas.key(figure, axes, [canvas.COMPONENTS[c] for c in used], 6)
    return figure


def roofline(document: Document) -> "Figure | None":
    """Effectual and dense-equivalent throughput of every operator under the machine's roof."""
    limits = document["roofline"]
    points = limits["points"]
    if not points:
        return None
    figure, axes = canvas.figure(9, 4.4)
    x = [point["macs_per_byte"] for point in points]
    peak, bandwidth = limits["peak_macs_per_s"] / 1e9, limits["bandwidth_bytes_per_s"] / 1e9
    low, high = min(*x, peak / bandwidth) / 2, max(*x, peak / bandwidth) * 2
    axes.loglog(
        [low, peak / bandwidth, high],
        [low * bandwidth, peak, peak],
        color="black",
        linewidth=1.4,
        label=f"roof: {bandwidth:,.1f} GB/s, {peak:,.1f} GMAC/s",
    )
    if any(point["dense_macs_per_s"] != point["effectual_macs_per_s"] for point in points):
        dense = [point["dense_macs_per_s"] / 1e9 for point in points]
        axes.loglog(x, dense, "o", mfc="none", mec="#0072B2", ms=6, label="dense-equivalent")
    effectual = [point["effectual_macs_per_s"] / 1e9 for point in points]
    axes.loglog(x, effectual, "o", color="#D55E00", ms=4, label="effectual")
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("effectual multiply-accumulates a byte of DRAM traffic")
    axes.set_ylabel("throughput (GMAC/s)")
    canvas.legend(figure, 3)
    return figure


FIGURES: Final[Mapping[str, tuple[str, Callable[[Document], "Figure | None"]]]] = {
    "causes": ("Where the cycles go", causes_of_run),
    "speedup": ("Speed-up by layer", speedup_by_layer),
    "cycles": ("Cycles by layer and cause", cycles_by_layer),
    "energy": ("Energy by component", energy),
    "roofline": ("Roofline", roofline),
}
"""Figures of a report in order: name to (title, function of the document)."""


def draw(document: Document) -> list[dict[str, str]]:
    """Return the figures that `document` has data for: name, title, caption and data URL.

    The same document draws the same bytes.
    """
    drawn = []
    for name, (title, function) in FIGURES.items():
        figure = function(document)
        if figure is not None:
            caption = " ".join((function.__doc__ or "").split())
            drawn.append(
                {"name": name, "title": title, "caption": caption, "url": canvas.svg_url(figure)}
            )
    return drawn
