"""Figures of an inference study; palette and layout are those of a report's figures."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from mapping.dsp import Library
from simulator.dsp_isa import Module
from sparseloom import canvas
from sparseloom.studies.compression import Gain
from sparseloom.studies.flightllm import PROGRAMS, SPARSITY_GAIN, UTILISATION
from sparseloom.studies.inference import InferenceStudy, Span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "bandwidth_by_mechanism",
    "decode_by_length",
    "energy_by_length",
    "gain_by_prompt",
    "instruction_storage",
    "module_timeline",
]

_GREEN, _ORANGE, _BLUE, _SKY = "#009E73", "#D55E00", "#0072B2", "#56B4E9"
_COLOURS: Final = (_GREEN, _SKY, _BLUE, _ORANGE, "#CC79A7", "#E69F00")

SHOWN: Final = (Module.LD, Module.MV, Module.MM, Module.MISC, Module.ST)
"""Modules of a timeline, from top to bottom, if they work at all."""

KINDS: Final = {
    "norm": ("norms", "#E69F00"),
    "projection": ("projections", _BLUE),
    "attention": ("attention", _ORANGE),
}


def decode_by_length(study: InferenceStudy, lengths: Sequence[int]) -> "Figure":
    """Time of a decode step over its KV length, with and without `sustained`, and published."""
    cycles = [study.cycles("decode", length) for length in lengths]
    figure, axes = canvas.figure(9, 4)
    corrected = f"ours, sustained {study.arch.sustained}"
    axes.step(lengths, [study.ms(n) for n in cycles], _GREEN, where="pre", label=corrected)
    raw = [study.uncorrected_ms(n) for n in cycles]
    axes.step(lengths, raw, _SKY, where="pre", label="ours, uncorrected")
    there = {n: row.ms for (phase, n), row in PROGRAMS.items() if phase == "decode"}
    axes.plot(list(there), list(there.values()), "x", color=_ORANGE, label="published")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("KV length (tokens)")
    axes.set_ylabel("decode step (ms)")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    canvas.legend(figure, 3)
    return figure


def _kind(span: Span) -> str:
    if "norm" in span.node:
        return "norm"
    return "attention" if span.node.endswith("attn") else "projection"


def module_timeline(spans: Sequence[Span], clock_hz: int) -> "Figure":
    """What every module does when in one layer of a program, by kind of operator."""
    begin = min(span.start for span in spans)
    modules = [module for module in SHOWN if any(span.module is module for span in spans)]
    figure, axes = canvas.figure(9, 1.3 + 0.5 * len(modules))
    scale = 1e6 / clock_hz
    for index, module in enumerate(modules):
        mine = [span for span in spans if span.module is module]
        bars = [((span.start - begin) * scale, (span.end - span.start) * scale) for span in mine]
        colours = [KINDS[_kind(span)][1] for span in mine]
        axes.broken_barh(bars, (index - 0.36, 0.72), facecolors=colours)
    canvas.rows(axes, [str(module) for module in modules])
    axes.set_xlabel("microseconds since the layer's first instruction, uncorrected")
    canvas.key(figure, axes, list(KINDS.values()), 3)
    return figure


def instruction_storage(library: Library) -> "Figure":
    """Bytes of instructions for every length: one program each, or one a bucket, shared."""
    sizes = {
        f"a program for every length and core ({library.naive_programs:,})": library.naive_bytes,
        f"one for every bucket, shared ({library.programs:,})": library.adaptive_bytes,
    }
    figure, axes = canvas.figure(9, 1.8)
    for index, (size, colour) in enumerate(zip(sizes.values(), (_ORANGE, _GREEN), strict=True)):
        axes.barh(index, 1e-9 * size, color=colour, height=0.72)
        axes.text(1e-9 * size, index, f" {1e-9 * size:,.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(sizes)), list(sizes), fontsize=8)
    axes.set_ylim(1.6, -0.6)
    axes.set_xlim(0, 1.12e-9 * library.naive_bytes)
    axes.set_xlabel(f"instruction storage (GB): {library.reduction:.0f} times less")
    return figure


def energy_by_length(energy: Mapping[int, Mapping[str, float]]) -> "Figure":
    """Dynamic energy of one generated token by component, over the length of the prompt."""
    used = [c for c in canvas.COMPONENTS if any(parts.get(c) for parts in energy.values())]
    figure, axes = canvas.figure(9, 1.2 + 0.4 * len(energy))
    for index, parts in enumerate(energy.values()):
        stack = [(1e3 * parts.get(c, 0.0), canvas.COMPONENTS[c][1]) for c in used]
        canvas.stack(axes, index, stack)
    canvas.rows(axes, [f"after {length} tokens" for length in energy])
    axes.set_xlabel("dynamic energy of a token (mJ)")
    canvas.key(figure, axes, [canvas.COMPONENTS[c] for c in used], 7)
    return figure


def bandwidth_by_mechanism(shares: Mapping[str, float], sustained: float) -> "Figure":
    """Useful share of the bandwidth with each mechanism alone, none and both."""
    figure, axes = canvas.figure(9, 1.3 + 0.4 * len(shares))
    index = range(len(shares))
    raw = [100 * share for share in shares.values()]
    axes.barh(index, raw, color="#A6DBC8", height=0.72, label="ours, uncorrected")
    corrected = [sustained * share for share in raw]
    axes.barh(index, corrected, color=_GREEN, height=0.72, label=f"ours, sustained {sustained}")
    for at, values in enumerate(zip(corrected, raw, strict=True)):
        axes.text(0.5, at, "{:.1f} to {:.1f} %".format(*values), va="center", fontsize=8)
    places = [list(shares).index(name) for name in ("neither", "both")]
    marks = [100 * share for share in UTILISATION]
    axes.plot(marks, places, "|", color="black", markersize=20, label="published")
    canvas.rows(axes, list(shares))
    axes.set_xlabel("useful share of the bandwidth of a decode step (%)")
    canvas.legend(figure, 3)
    return figure


def gain_by_prompt(gains: Sequence[Gain]) -> "Figure":
    """Speed-up over the dense model by prompt length, a line for each compression.

    Dashes show the sparse operators of the first alone.
    """
    lines = [list(same) for _, same in groupby(gains, str)]
    figure, axes = canvas.figure(9, 4)
    first = [gain.prompt for gain in lines[0]]
    label = f"{lines[0][0]}: sparse operators"
    axes.plot(first, [gain.sparse for gain in lines[0]], "--", color=_COLOURS[0], label=label)
    for line, colour in zip(lines, _COLOURS, strict=False):
        at, values = [gain.prompt for gain in line], [gain.speedup for gain in line]
        axes.plot(at, values, color=colour, label=str(line[0]))
    axes.axhline(SPARSITY_GAIN, color="black", linewidth=1, label=f"published {SPARSITY_GAIN}x")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0.9)
    axes.set_xlabel("prompt (tokens)")
    axes.set_ylabel("speed-up over the dense model (times)")
    canvas.legend(figure, 2)
    return figure
