"""Figures of a training study; palette and layout are those of a report's figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cost_models import price
from simulator.result import STALLS, Result
from sparseloom import canvas
from sparseloom.ablation import Optimisation
from sparseloom.studies.sensitivity import Effect
from sparseloom.studies.training import (
    BDWP,
    DENSE,
    PUBLISHED,
    Network,
    TrainingStudy,
    Variant,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["by_network", "by_optimisation", "by_pass", "by_setting", "by_variant", "energy"]

IDEAL: Final = 2.0
"""Speed-up of 2:8 in FF and BP if the three passes had equal products: 3 / (2 N/M + 1)."""

PASSES: Final = {
    "ff": "forward",
    "bp": "activation gradients",
    "wu": "weight gradients",
    "update": "update and selection",
    "select": "update and selection",
}

_GREEN, _ORANGE, _BLUE, _SKY = "#009E73", "#D55E00", "#0072B2", "#56B4E9"


def _vertical(axes: "Axes", x: float, label: str, colour: str, style: str) -> None:
    axes.axvline(x, color=colour, linewidth=1.4, linestyle=style, label=label)


def _values(axes: "Axes", values: Sequence[float]) -> None:
    """Write every bar's value into its foot."""
    for index, value in enumerate(values):
        axes.text(0.03, index, f"{value:.2f}x", va="center", fontsize=8)


def by_network(study: TrainingStudy) -> "Figure":
    """Speed-up of BDWP 2:8 over dense by network, what its products allow, and the published."""
    found = [study.speedup(network) for network in study.networks]
    names = [*(str(row.network) for row in found), f"average of {len(study.averaged)}"]
    values = [*(row.speedup for row in found), study.average()]
    bounds = [*(row.bound for row in found), study.average_bound()]
    figure, axes = canvas.figure(9, 1.3 + 0.34 * len(names))
    colours = [_GREEN if row.network.averaged else "#A6DBC8" for row in found]
    axes.barh(range(len(names)), values, color=[*colours, _BLUE], height=0.72)
    axes.plot(bounds, range(len(names)), "|", color="black", markersize=14, label="its own bound")
    _vertical(axes, PUBLISHED, f"published average {PUBLISHED:.2f}x", _ORANGE, "--")
    _vertical(axes, IDEAL, f"equal products {IDEAL:.2f}x", canvas.GREY, ":")
    _values(axes, values)
    canvas.rows(axes, names)
    axes.set_xlabel(f"speed-up of a training step, {BDWP} over dense (times)")
    canvas.legend(figure, 3)
    return figure


def _pass_causes(result: Result) -> dict[str, dict[str, float]]:
    """Return cycles by cause of every pass."""
    found: dict[str, dict[str, float]] = {}
    peak = result.arch.peak_macs_per_cycle
    for phase in dict.fromkeys(result.per_op["phase"].tolist()):
        rows = result.per_op[result.per_op["phase"] == phase]
        busy, macs = int(rows["array_busy"].sum()), int(rows["macs_effectual"].sum())
        causes = canvas.split(busy, macs, peak)
        causes |= {cause: float(rows[f"stall_{cause}"].sum()) for cause in STALLS}
        into = found.setdefault(PASSES[phase], dict.fromkeys(canvas.CAUSES, 0.0))
        for cause, cycles in causes.items():
            into[cause] += cycles
    return found


def by_pass(study: TrainingStudy, network: Network, variant: Variant = BDWP) -> "Figure":
    """Cycles of every pass of one network by cause, dense and sparse."""
    runs = {v: _pass_causes(study.results[network, v]) for v in (DENSE, variant)}
    stacks = [
        (f"{name}, {v}", runs[v][name]) for name in dict.fromkeys(PASSES.values()) for v in runs
    ]
    figure, axes = canvas.figure(9, 1.2 + 0.3 * len(stacks))
    for index, (_, causes) in enumerate(stacks):
        parts = [(causes[c] / 1e6, colour) for c, (_, colour) in canvas.CAUSES.items()]
        canvas.stack(axes, index, parts)
    canvas.rows(axes, [name for name, _ in stacks])
    axes.set_xlabel(f"million cycles of one training step of {network}, batch {study.batch}")
    canvas.thousands(axes)
    canvas.causes_key(figure, axes, [causes for _, causes in stacks])
    return figure


def by_optimisation(worths: Mapping[Network, Sequence[Optimisation]]) -> "Figure":
    """Cycles without one optimisation over cycles with all, by network."""
    names = [worth.name for worth in next(iter(worths.values()))]
    figure, axes = canvas.figure(9, 1.2 + 0.55 * len(worths))
    height = 0.8 / len(names)
    for place, (name, colour) in enumerate(zip(names, (_ORANGE, _SKY, _BLUE), strict=True)):
        values = [found[place].worth for found in worths.values()]
        y = [index + (place - 1) * height for index in range(len(worths))]
        axes.barh(y, values, height=0.9 * height, color=colour, label=f"without {name}")
        for at, value in zip(y, values, strict=True):
            axes.text(value, at, f" {value:.2f}x", va="center", fontsize=7.5)
    axes.axvline(1, color=canvas.GREY, linewidth=1)
    canvas.rows(axes, [str(network) for network in worths])
    axes.set_xlabel(f"cycles without it over cycles with all three, {BDWP} (times)")
    canvas.legend(figure, 3)
    return figure


def by_variant(study: TrainingStudy, variants: Sequence[Variant]) -> "Figure":
    """Average speed-up of methods or patterns, beside what their products allow."""
    values = [study.average(variant) for variant in variants]
    bounds = [study.average_bound(variant) for variant in variants]
    figure, axes = canvas.figure(9, 1.2 + 0.34 * len(variants))
    axes.barh(range(len(variants)), values, color=_GREEN, height=0.72)
    axes.plot(bounds, range(len(variants)), "|", color="black", markersize=14, label="their bound")
    _values(axes, values)
    canvas.rows(axes, [str(variant) for variant in variants])
    axes.set_xlabel(f"speed-up over dense, average of {len(study.averaged)} networks (times)")
    canvas.legend(figure, 1)
    return figure


def energy(study: TrainingStudy) -> "Figure":
    """Dynamic energy of a step by component, as a share of the dense step's."""
    figure, axes = canvas.figure(9, 1.2 + 0.6 * len(study.averaged))
    names: list[str] = []
    used: dict[str, tuple[str, str]] = {}
    for network in study.averaged:
        whole = price(study.results[network, DENSE]).energy_pj
        for variant in (DENSE, BDWP):
            parts = price(study.results[network, variant]).by_component()
            used |= {c: canvas.COMPONENTS[c] for c in canvas.COMPONENTS if c in parts}
            shares = [(100 * parts.get(c, 0.0) / whole, x[1]) for c, x in canvas.COMPONENTS.items()]
            canvas.stack(axes, len(names), shares)
            names.append(f"{network}, {variant}")
    canvas.rows(axes, names)
    axes.set_xlabel("dynamic energy of a training step (% of the dense step)")
    canvas.key(figure, axes, list(used.values()), 8)
    return figure


def by_setting(study: TrainingStudy, effects: Sequence[Effect]) -> "Figure":
    """The average speed-up with one assumption changed at a time, largest change on top."""
    base = study.average()
    figure, axes = canvas.figure(9, 1.2 + 0.27 * len(effects))
    for index, effect in enumerate(effects):
        colour = _GREEN if effect.average > base else _ORANGE
        axes.barh(index, effect.average - base, left=base, color=colour, height=0.72)
        side = "left" if effect.average >= base else "right"
        text = f" {effect.average:.2f}x "
        axes.text(effect.average, index, text, va="center", ha=side, fontsize=7.5)
    _vertical(axes, base, f"as assumed {base:.2f}x", "black", "-")
    _vertical(axes, PUBLISHED, f"published {PUBLISHED:.2f}x", _ORANGE, "--")
    canvas.rows(axes, [f"{effect.name}: {effect.setting}" for effect in effects])
    ends = [base, PUBLISHED, *(effect.average for effect in effects)]
    axes.set_xlim(min(ends) - 0.06, max(ends) + 0.06)
    axes.set_xlabel(f"average speed-up of {BDWP} over dense (times)")
    canvas.legend(figure, 2)
    return figure
