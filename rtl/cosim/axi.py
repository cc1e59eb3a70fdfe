"""Run the exported machine under Verilator and cocotb against an AXI4 RAM that is not ours."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cocotb_tools.runner import Verilator
from numpy.typing import NDArray

from rtl.cosim.machine import MachineRun
from rtl.cosim.verilated import build, run_bench
from rtl.export import ExportPaths, export_machine
from rtl.machine import shapes
from rtl.machine.program import MachineProgram, load_bits
from simulator.arch import NMArray

__all__ = ["AxiMachine", "build_axi"]

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AxiMachine:
    """A machine's exported Verilog, compiled for cocotb."""

    arch: NMArray
    paths: ExportPaths
    runner: Verilator

    def run(
        self,
        program: MachineProgram,
        memory: Words,
        *,
        limit_cycles: int = 10**6,
        pause_seed: int | None = None,
    ) -> MachineRun:
        """Run a program on a memory image uint64[beats]; cycles are those with that RAM.

        With `pause_seed` all five channels pause at random. Raises ToolError if the machine breaks
        the protocol or is not done after `limit_cycles`.
        """
        directory, layout = self.paths.verilog.parent, shapes.load_word(self.arch)
        files = {name: directory / f"{name}.json" for name in ("given", "seen")}
        given = {
            "words": [f"{load_bits(layout, word):x}" for word in program.words],
            "memory": memory.tobytes().hex(),
            "limit_cycles": limit_cycles,
            "pause_seed": pause_seed,
        }
        files["given"].write_text(json.dumps(given), encoding="utf-8")
        files["seen"].unlink(missing_ok=True)
        run_bench(self.runner, self.paths, "rtl.cosim.axi_bench", files)
        seen = json.loads(files["seen"].read_bytes())
        after = np.frombuffer(bytes.fromhex(seen["memory"]), np.uint64)
        return MachineRun(memory=after, cycles=seen["cycles"])


def build_axi(arch: NMArray, directory: Path) -> AxiMachine:
    """Export the machine into `directory` and compile it there.

    Raises ToolError when a tool is missing or fails.
    """
    paths = export_machine(arch, directory.resolve())
    return AxiMachine(arch=arch, paths=paths, runner=build(paths))
