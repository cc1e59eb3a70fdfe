"""Instruction set of DspChain: layout, assembly, program files, execution."""

from simulator.dsp_isa.assembly import assemble, disassemble
from simulator.dsp_isa.code import Code, Loop, count, decode, encode, size_words, walk
from simulator.dsp_isa.execute import Execution, duration, execute, execute_file, program_steps
from simulator.dsp_isa.files import ProgramFile, read_program, write_program
from simulator.dsp_isa.layout import (
    LINE_BYTES,
    LINE_ELEMENTS,
    ROW_ENTRY,
    TABLE_ROWS,
    Base,
    Buffer,
    Instruction,
    MiscOp,
    Module,
)
from simulator.dsp_isa.values import Registers, Values, run_values

__all__ = [
    "LINE_BYTES",
    "LINE_ELEMENTS",
    "ROW_ENTRY",
    "TABLE_ROWS",
    "Base",
    "Buffer",
    "Code",
    "Execution",
    "Instruction",
    "Loop",
    "MiscOp",
    "Module",
    "ProgramFile",
    "Registers",
    "Values",
    "assemble",
    "count",
    "decode",
    "disassemble",
    "duration",
    "encode",
    "execute",
    "execute_file",
    "program_steps",
    "read_program",
    "run_values",
    "size_words",
    "walk",
    "write_program",
]
