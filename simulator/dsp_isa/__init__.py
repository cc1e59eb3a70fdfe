"""Instruction set of DspChain: layout, assembly, program files, execution."""

from simulator.dsp_isa.assembly import assemble, disassemble
from simulator.dsp_isa.code import Code, Loop, count, decode, encode, size_words, walk
from simulator.dsp_isa.execute import Execution, duration, execute, execute_file, program_steps
from simulator.dsp_isa.files import ProgramFile, read_program, write_program
from simulator.dsp_isa.layout import Base, Buffer, Instruction, MiscOp, Module

__all__ = [
    "Base",
    "Buffer",
    "Code",
    "Execution",
    "Instruction",
    "Loop",
    "MiscOp",
    "Module",
    "ProgramFile",
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
    "size_words",
    "walk",
    "write_program",
]
