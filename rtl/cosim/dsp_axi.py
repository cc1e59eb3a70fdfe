"""Run the exported DSP core under Verilator and cocotb against AXI4 RAMs that are not ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cocotb_tools.runner import Verilator
from numpy.typing import NDArray

from rtl.cosim.dsp_machine import core_settings
from rtl.cosim.verilated import build, run_bench
from rtl.export import ExportPaths, export_machine
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import Registers

__all__ = ["DspAxi", "build_dsp_axi"]

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class DspAxi:
    """A core's exported Verilog, compiled for cocotb."""

    paths: ExportPaths
    runner: Verilator

    def run(
        self,
        words: NDArray[np.uint32],
        registers: Registers,
        memory: Bytes,
        tokens: Mapping[str, int],
        *,
        limit_cycles: int = 10**6,
        pause_seed: int | None = None,
    ) -> tuple[Bytes, int]:
        """Return memory after a program, and the cycles with those RAMs.

        With `pause_seed` all five channels of the data bus pause at random. Raises ToolError if
        the core breaks the protocol or is not done after `limit_cycles`.
        """
        directory = self.paths.verilog.parent
        files = {name: directory / f"{name}.json" for name in ("given", "seen")}
        settings = core_settings(registers, tokens, words.size)
        given = {
            "words": [f"{register | word << 6:x}" for register, word in settings],
            "program": words.astype("<u4").tobytes().hex(),
            "memory": memory.tobytes().hex(),
            "limit_cycles": limit_cycles,
            "pause_seed": pause_seed,
        }
        files["given"].write_text(json.dumps(given), encoding="utf-8")
        files["seen"].unlink(missing_ok=True)
        run_bench(self.runner, self.paths, "rtl.cosim.axi_bench", files)
        seen = json.loads(files["seen"].read_bytes())
        return np.frombuffer(bytes.fromhex(seen["memory"]), np.uint8), seen["cycles"]


def build_dsp_axi(arch: DspChain, directory: Path) -> DspAxi:
    """Export the core into `directory` and compile it there.

    Raises ToolError when a tool is missing or fails.
    """
    paths = export_machine(arch, directory.resolve())
    return DspAxi(paths=paths, runner=build(paths))
