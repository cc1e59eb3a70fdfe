"""Run the machine compiled to native code: programs of any kind on one build.

The machine and its memory go through Yosys to C++ (CXXRTL) and are called through ctypes.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import numpy as np
from amaranth.back import rtlil  # type: ignore[attr-defined]  # missing from the stubs
from amaranth.hdl import Shape
from numpy.typing import NDArray

from rtl.cosim.native import compiled, translated
from rtl.machine import shapes
from rtl.machine.program import MachineProgram
from rtl.machine.shapes import UNITS
from rtl.machine.system import MEMORY_BEATS, System
from rtl.nm_array import ProcessingElement
from simulator.arch import NMArray

__all__ = ["MachineModel", "MachineRun", "build"]

Words = NDArray[np.uint64]

CHUNK_BITS = 32
PE_NAME = "machine_pe"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MachineRun:
    """What a run did: memory afterwards, cycles in all, of every operator, and busy by unit."""

    memory: Words
    cycles: int
    op_cycles: Mapping[str, int] = field(default_factory=dict)
    busy: Mapping[str, int] = field(default_factory=dict)


DRIVER = """
static void clock(cxxrtl_design::p_top &top) {
    top.p_clk.set<bool>(false);
    top.step();
    top.p_clk.set<bool>(true);
    top.step();
}

extern "C" uint64_t run(const uint32_t *words, size_t count, uint64_t *memory, size_t beats,
                        size_t ops, uint64_t limit, uint64_t *op_cycles, uint64_t *busy) {
    static cxxrtl_design::p_top top;
    top.p_rst.set<bool>(true);
    clock(top);
    top.p_rst.set<bool>(false);
    top.p_load__enable.set<bool>(true);
    for (size_t at = 0; at < count; at++) {
        for (size_t i = 0; i < $chunks; i++) top.p_load.data[i] = words[at * $chunks + i];
        clock(top);
    }
    top.p_load__enable.set<bool>(false);
    top.p_host__write.set<bool>(true);
    for (size_t at = 0; at < beats; at++) {
        top.p_host__address.set<uint32_t>(at);
        top.p_host__data.set<uint64_t>(memory[at]);
        clock(top);
    }
    top.p_host__write.set<bool>(false);
    top.p_start.set<bool>(true);
    clock(top);
    top.p_start.set<bool>(false);
    uint64_t cycles = 0;
    do clock(top);
    while (!top.p_done.get<bool>() && ++cycles < limit);
    bool done = top.p_done.get<bool>();
    for (size_t op = 0; op < ops; op++) {
        top.p_op__index.set<uint32_t>(op);
        clock(top);
        op_cycles[op] = top.p_op__cycles.get<uint64_t>();
    }
$busy
    for (size_t at = 0; at < beats; at++) {
        top.p_host__address.set<uint32_t>(at);
        clock(top);
        memory[at] = top.p_host__seen.get<uint64_t>();
    }
    return done ? top.p_cycles.get<uint64_t>() : 0;
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineModel:
    """A compiled machine with its memory."""

    arch: NMArray
    library: ctypes.CDLL

    def run(self, program: MachineProgram, memory: Words, *, limit: int = 10**7) -> MachineRun:
        """Load and run a program on a memory image uint64[beats].

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
            packed = (
                word.bank
                | word.address << layout["address"].offset
                | word.word << layout["word"].offset
            )
            row[:] = np.frombuffer(packed.to_bytes(4 * chunks, "little"), np.uint32)
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


def build(arch: NMArray, directory: Path, *, compiler: str = "g++") -> MachineModel:
    """Compile the machine with its memory into `directory` and load it.

    Raises RuntimeError when the headers or the compiler are missing or the compiler fails.
    """
    texts = [
        rtlil.convert(ProcessingElement(arch), name=PE_NAME, emit_src=False),
        rtlil.convert(System(arch, pe_module=PE_NAME), name="top", emit_src=False),
    ]
    busy = "\n".join(
        f"    busy[{i}] = top.p_{unit}__busy.get<uint64_t>();" for i, unit in enumerate(UNITS)
    )
    driver = Template(DRIVER).substitute(chunks=_chunks(arch), busy=busy)
    # Memories are loaded before they are read, so only the look-up tables need their contents.
    commands = ["hierarchy -top top", "delete t:$meminit_v2 top.machine.vector.* %d"]
    source = translated(texts, commands) + driver
    return MachineModel(arch=arch, library=compiled(source, directory / "machine", compiler))
