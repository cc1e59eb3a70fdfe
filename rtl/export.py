"""Verilog export of the units, traceable to their parameters."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amaranth.back import verilog
from amaranth.hdl import Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl import shapes
from rtl.dsp_chain import (
    Dequantiser,
    DequantiserLane,
    Mpe,
    Special,
    SpecialLane,
    Vpu,
    dequantiser_ports,
    mpe_ports,
    special_ports,
)
from rtl.dsp_machine import DspTop, check_dsp_machine
from rtl.dsp_machine.shapes import chain, dequantiser, special
from rtl.flex_dpe import Engine, FlexDpeCore, flex_ports
from rtl.machine.axi_top import AxiTop
from rtl.machine.machine import check_machine
from rtl.nm_array import NMArrayCore, ProcessingElement
from rtl.pe_grid import DeltaEncoder, GridElement, PEGridCore
from rtl.pe_grid.shapes import delta_ports, pe_grid
from rtl.sore import SelectorLane, Sore, sore_ports
from rtl.unit import Unit
from rtl.wuve import UpdateLane, Wuve, wuve_ports
from simulator.arch import NMArray
from simulator.arch.accelerator import Accelerator, WithRtl, with_rtl
from simulator.arch.delta import DeltaParams
from simulator.arch.dequantiser import DequantiserParams
from simulator.arch.dsp_cells import MpeParams
from simulator.arch.dsp_chain import DspChain
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.pe_grid import PEGrid
from simulator.arch.sore import SoreParams
from simulator.arch.special import SpecialParams
from simulator.arch.wuve import WuveParams

__all__ = [
    "ExportPaths",
    "UnitParams",
    "build_unit",
    "export",
    "export_machine",
    "exportable",
    "machine_name",
    "module_name",
    "unit_name",
    "unit_ports",
    "units",
    "verilog_text",
]

UnitParams = (
    NMArray
    | SoreParams
    | WuveParams
    | PEGrid
    | DeltaParams
    | FlexDpe
    | MpeParams
    | DequantiserParams
    | SpecialParams
)
"""Parameters of one unit that has RTL."""

NAME_DIGITS = 12
"""Hexadecimal digits of the parameters' digest in a module's name; the attribute has all 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPaths:
    """The files of one export and the name of its top module."""

    verilog: Path
    parameters: Path
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind of unit: its name, its ports, its component, and any part that has many instances."""

    name: str
    ports: Callable[[Any], dict[str, wiring.Member]]
    core: Callable[..., Unit]
    part_name: str = ""
    part: Callable[[Any], Unit] | None = None


_KINDS: Final[Mapping[type, _Kind]] = {
    NMArray: _Kind(
        name="nm_array",
        ports=shapes.nm_array,
        core=NMArrayCore,
        part_name="nm_pe",
        part=ProcessingElement,
    ),
    SoreParams: _Kind(
        name="sore", ports=sore_ports, core=Sore, part_name="sore_lane", part=SelectorLane
    ),
    WuveParams: _Kind(
        name="wuve", ports=wuve_ports, core=Wuve, part_name="wuve_lane", part=UpdateLane
    ),
    PEGrid: _Kind(
        name="pe_grid", ports=pe_grid, core=PEGridCore, part_name="grid_pe", part=GridElement
    ),
    DeltaParams: _Kind(name="delta_encoder", ports=delta_ports, core=DeltaEncoder),
    FlexDpe: _Kind(
        name="flex_dpe",
        ports=flex_ports,
        core=FlexDpeCore,
        part_name="flex_engine",
        part=Engine,
    ),
    MpeParams: _Kind(
        name="mpe",
        ports=mpe_ports,
        core=Mpe,
        part_name="vpu",
        part=lambda params: Vpu(params.chain),
    ),
    DequantiserParams: _Kind(
        name="dequantiser",
        ports=dequantiser_ports,
        core=Dequantiser,
        part_name="dequantiser_lane",
        part=DequantiserLane,
    ),
    SpecialParams: _Kind(
        name="special",
        ports=special_ports,
        core=Special,
        part_name="special_lane",
        part=SpecialLane,
    ),
}


def units(arch: WithRtl | DspChain) -> tuple[UnitParams, ...]:
    """Return the units of a machine that have RTL.

    Its array or grid, unless that has none, and, if it has them, the delta encoder of a row, SORE
    and WUVE; of a DspChain the matrix engine, the dequantiser and the special-function unit of a
    core.
    """
    match arch:
        case DspChain():
            return (chain(arch), dequantiser(arch), special(arch))
        case PEGrid() if arch.delta_chunks:
            return (*(() if arch.without_rtl else (arch,)), DeltaParams(grid=arch))
        case NMArray() if arch.training:
            return (arch, arch.training.sore, arch.training.wuve)
        case _:
            return (arch,)


def exportable(arch: Accelerator, name: str) -> tuple[tuple[UnitParams, ...], tuple[str, ...]]:
    """Return the units of a machine that have RTL, and notes on what of it is a model only.

    Raises ValueError, calling the machine by `name`, if none has.
    """
    match arch:
        case DspChain():
            try:
                check_dsp_machine(arch)
            except ValueError as error:
                return units(arch), (f"{name} as a whole is a model only. {error}",)
            return units(arch), ()
        case PEGrid() if arch.delta_chunks and arch.without_rtl:
            return units(arch), (f"The grid of {name} is a model only. {arch.without_rtl}",)
    return units(with_rtl(arch, name)), ()


def unit_name(params: UnitParams) -> str:
    """Return the unit's name, such as nm_array or mpe."""
    return _KINDS[type(params)].name


def build_unit(params: UnitParams) -> Unit:
    """Return the unit as a component."""
    return _KINDS[type(params)].core(params)


def unit_ports(params: UnitParams) -> dict[str, wiring.Member]:
    """Return the ports of the unit."""
    return _KINDS[type(params)].ports(params)


def module_name(params: UnitParams) -> str:
    """Return the top module's name; it carries the start of the parameters' digest."""
    return f"{unit_name(params)}_{params.digest()[:NAME_DIGITS]}"


def machine_name(arch: NMArray | DspChain) -> str:
    """Return the name of the whole machine's top module."""
    kind = "nm" if isinstance(arch, NMArray) else "dsp"
    return f"{kind}_machine_{arch.digest()[:NAME_DIGITS]}"


def _converted(component: wiring.Component, name: str, digest: str) -> str:
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    attribute = f'(* sparseloom_digest = "{digest}" *)\n'
    head = f"module {name}("
    return text.replace(head, attribute + head, 1)


def verilog_text(params: UnitParams) -> str:
    """Return the Verilog of the unit: one module of its part, and all that instantiates it."""
    kind, digest = _KINDS[type(params)], params.digest()
    if kind.part is None:
        return _converted(kind.core(params), module_name(params), digest)
    part_module = f"{kind.part_name}_{digest[:NAME_DIGITS]}"
    part = _converted(kind.part(params), part_module, digest)
    top = _converted(kind.core(params, part_module=part_module), module_name(params), digest)
    return f"{part}\n{top}"


def _ports(signature: wiring.Signature) -> dict[str, dict[str, Any]]:
    """Return direction and width of every port of the top module, clock and reset apart."""
    members: Iterator[tuple[Any, Any, Any]] = signature.flatten(signature.create())
    return {
        "__".join(map(str, path)): {
            "direction": "input" if member.flow is In else "output",
            "bits": Shape.cast(member.shape).width,
        }
        for path, member, _ in members
    }


def _parameters_text(
    params: UnitParams | DspChain, module: str, signature: wiring.Signature
) -> str:
    content = {
        "module": module,
        "digest": params.digest(),
        "parameters": params.to_json(),
        "clock": "clk",
        "reset": "rst, synchronous, active high",
        "ports": _ports(signature),
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _write(texts: Sequence[tuple[Path, str]]) -> None:
    """Write all files or none: each is complete before the first takes its name."""
    written: list[Path] = []
    try:
        for path, text in texts:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            written.append(Path(name))
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        for (path, _), temporary in zip(texts, written, strict=True):
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)


def _exported(
    params: UnitParams | DspChain,
    directory: Path,
    name: str,
    text: str,
    signature: wiring.Signature,
) -> ExportPaths:
    paths = ExportPaths(
        verilog=directory / f"{name}.v", parameters=directory / f"{name}.json", module=name
    )
    texts = [(paths.verilog, text), (paths.parameters, _parameters_text(params, name, signature))]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(texts)
    except OSError as error:
        why = error.strerror
        raise ValueError(f"Folder {str(directory)!r} cannot be written: {why}") from error
    return paths


def export(params: UnitParams, directory: Path) -> ExportPaths:
    """Write the unit's Verilog and, beside it, its parameters and ports as JSON.

    Creates `directory` if needed; files of the same parameters are replaced. Raises ValueError if
    it cannot be written.
    """
    signature = wiring.Signature(unit_ports(params))
    return _exported(params, directory, module_name(params), verilog_text(params), signature)


def export_machine(arch: NMArray | DspChain, directory: Path) -> ExportPaths:
    """Write the whole machine's Verilog, an AXI4 master, and its parameters and ports as JSON.

    Creates `directory` if needed; files of the same parameters are replaced. Raises ValueError for
    parameters that no machine can be built from, and if the folder cannot be written.
    """
    name, digest = machine_name(arch), arch.digest()
    suffix = f"_{digest[:NAME_DIGITS]}"
    machine: AxiTop | DspTop
    if isinstance(arch, NMArray):
        check_machine(arch)
        kinds: list[tuple[_Kind, Any]] = [(_KINDS[NMArray], arch)]
        machine = AxiTop(arch, part_module=kinds[0][0].part_name + suffix)
    else:
        check_dsp_machine(arch)
        kinds = [(_KINDS[type(unit)], unit) for unit in (chain(arch), special(arch))]
        modules = [kind.part_name + suffix for kind, _ in kinds]
        machine = DspTop(arch, chain_module=modules[0], lane_module=modules[1])
    parts = [
        _converted(kind.part(params), kind.part_name + suffix, digest)
        for kind, params in kinds
        if kind.part
    ]
    text = "\n".join([*parts, _converted(machine, name, digest)])
    return _exported(arch, directory, name, text, machine.signature)
