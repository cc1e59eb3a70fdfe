"""What there is to choose from: machines, networks, sparsities, mappers, devices and more."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from simulator.arch import Accelerator

__all__ = ["CATALOGUE", "Row"]

Row = dict[str, Any]


def _summary(function: Callable[..., Any], verb: str) -> str:
    """Return the first paragraph of a function's docstring without its verb."""
    paragraph = (inspect.getdoc(function) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).removeprefix(verb).rstrip(".")


def _proof(arch: "Accelerator") -> str:
    """Return how much of `arch` has RTL that agrees with its model."""
    from simulator.arch.accelerator import without_rtl
    from simulator.arch.dsp_chain import DspChain

    if isinstance(arch, DspChain):
        return "RTL of units" if arch.cores > 1 else "RTL of a core"
    return "model only" if without_rtl(arch) else "RTL"


def _archs() -> list[Row]:
    from simulator.arch.load import PRESETS, load_arch, read_arch_file

    rows = []
    for name in PRESETS:
        file = read_arch_file(name)
        assumed = [k for k, s in file.sources.items() if s.startswith(("assumed", "choice"))]
        rows.append(
            {
                "name": name,
                "machine": file.machine,
                "proof": _proof(load_arch(name)),
                "summary": file.summary,
                "assumed": sorted(assumed),
                "sources": dict(sorted(file.sources.items())),
            }
        )
    return rows


def _zoo() -> list[Row]:
    from workloads.zoo import ZOO

    return [
        {
            "name": name,
            "summary": _summary(builder, "Build "),
            "options": list(inspect.signature(builder).parameters),
        }
        for name, builder in ZOO.items()
    ]


def _sparsities() -> list[Row]:
    forms = {
        "dense": "no structure",
        "N:M": "at most N of every M along the reduction, e.g. 2:8",
        "unstructured:D": "the largest magnitudes anywhere, density D, e.g. unstructured:0.25",
        "block:RxC:D": "whole blocks of R by C, density D, e.g. block:4x4:0.5",
        "balanced:B:D": "equally many of every bank of B, density D, e.g. balanced:16:0.25",
    }
    return [{"name": name, "summary": text} for name, text in forms.items()]


def _dataflows() -> list[Row]:
    from simulator.arch import Dataflow

    stationary = {"os": "accumulators stay", "ws": "weights stay", "is": "activations stay"}
    return [{"name": flow.value, "summary": stationary[flow.value]} for flow in Dataflow]


def _mappers() -> list[Row]:
    from mapping import MAPPERS

    return [
        {"name": name, "summary": _summary(mapper, "Return ")} for name, mapper in MAPPERS.items()
    ]


def _devices() -> list[Row]:
    from mapping.placer import DEVICES, load_device

    return [
        {
            "name": name,
            "summary": load_device(name).summary,
            "granularity": load_device(name).granularity.value,
            "totals": load_device(name).totals(),
            "sources": load_device(name).sources,
        }
        for name in DEVICES
    ]


def _placements() -> list[Row]:
    from mapping.placer import SPECS, summary
    from sparseloom.designs import DESIGNS, load_design

    rows = [{"name": name, "summary": summary(name)} for name in SPECS]
    return rows + [{"name": name, "summary": load_design(name).summary} for name in DESIGNS]


CATALOGUE: Final[Mapping[str, Callable[[], list[Row]]]] = {
    "archs": _archs,
    "zoo": _zoo,
    "sparsities": _sparsities,
    "dataflows": _dataflows,
    "mappers": _mappers,
    "devices": _devices,
    "placements": _placements,
}
"""What `list` shows, by the name of the table."""
