"""Verilog export of the NMArray and of the machine around it, traceable to their parameters."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl import shapes
from rtl.machine.machine import Machine
from rtl.nm_array import NMArrayCore, ProcessingElement
from simulator.arch import NMArray

__all__ = [
    "ExportPaths",
    "export",
    "export_machine",
    "machine_name",
    "module_name",
    "verilog_text",
]

NAME_DIGITS = 12
"""Hexadecimal digits of the parameters' digest in a module's name; the attribute has all 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPaths:
    """The files of one export and the name of its top module."""

    verilog: Path
    parameters: Path
    module: str


def module_name(arch: NMArray) -> str:
    """Return the top module's name; it carries the start of the parameters' digest."""
    return f"nm_array_{arch.digest()[:NAME_DIGITS]}"


def machine_name(arch: NMArray) -> str:
    """Return the name of the whole machine's top module."""
    return f"nm_machine_{arch.digest()[:NAME_DIGITS]}"


def _pe_name(arch: NMArray) -> str:
    return f"nm_pe_{arch.digest()[:NAME_DIGITS]}"


def _converted(component: wiring.Component, name: str, arch: NMArray) -> str:
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    attribute = f'(* sparseloom_digest = "{arch.digest()}" *)\n'
    head = f"module {name}("
    return text.replace(head, attribute + head, 1)


def verilog_text(arch: NMArray) -> str:
    """Return the Verilog of the array: one PE module and everything that instantiates it."""
    pe_module = _pe_name(arch)
    pe = _converted(ProcessingElement(arch), pe_module, arch)
    top = _converted(NMArrayCore(arch, pe_module=pe_module), module_name(arch), arch)
    return f"{pe}\n{top}"


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


def _parameters_text(arch: NMArray, module: str, signature: wiring.Signature) -> str:
    content = {
        "module": module,
        "digest": arch.digest(),
        "parameters": arch.to_json(),
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
    arch: NMArray, directory: Path, name: str, text: str, signature: wiring.Signature
) -> ExportPaths:
    paths = ExportPaths(
        verilog=directory / f"{name}.v", parameters=directory / f"{name}.json", module=name
    )
    texts = [(paths.verilog, text), (paths.parameters, _parameters_text(arch, name, signature))]
    directory.mkdir(parents=True, exist_ok=True)
    _write(texts)
    return paths


def export(arch: NMArray, directory: Path) -> ExportPaths:
    """Write the array's Verilog and, beside it, its parameters and ports as JSON.

    Creates `directory` if needed; files of the same parameters are replaced.
    """
    signature = wiring.Signature(shapes.nm_array(arch))
    return _exported(arch, directory, module_name(arch), verilog_text(arch), signature)


def export_machine(arch: NMArray, directory: Path) -> ExportPaths:
    """Write the Verilog of the whole machine and, beside it, its parameters and ports as JSON.

    Creates `directory` if needed; files of the same parameters are replaced. Raises ValueError for
    parameters that no machine can be built from.
    """
    name, pe_module = machine_name(arch), _pe_name(arch)
    machine = Machine(arch, pe_module=pe_module)
    pe = _converted(ProcessingElement(arch), pe_module, arch)
    text = f"{pe}\n{_converted(machine, name, arch)}"
    return _exported(arch, directory, name, text, machine.signature)
