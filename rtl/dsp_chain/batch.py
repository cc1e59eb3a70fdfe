"""The DSP slice and the packed arithmetic on it, compiled: millions of operands a second."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import numpy as np
from amaranth.hdl import Module, Shape
from amaranth.lib.wiring import Out
from numpy.typing import NDArray

from rtl.cxxrtl import compiled, mangled
from rtl.dsp_chain import shapes
from rtl.dsp_chain.chain import OverflowAdjust
from rtl.dsp_chain.dsp import Dsp
from rtl.unit import Unit
from simulator.arch.dsp_cells import DspSlice

__all__ = ["OPERANDS", "RESULTS", "SliceBank", "SliceBatch", "build"]

OPERANDS: Final = ("wide", "added", "narrow", "addend", "cascade")
RESULTS: Final = ("sum", "first", "second", "wide_out", "narrow_out")
"""The slice's sum, its halves taken apart, and its operand cascades."""

PRODUCTS: Final = 16
"""Products whose sum the halves must hold."""

Ints = NDArray[np.int64]


class SliceBank(Unit):
    """A slice followed by an overflow-adjust unit that adds nothing.

    Latency: `DspSlice.latency` cycles for the sum, one more for its halves, one for the operand
    cascades; `cascade` and `addend` act in the last cycle of the sum's. Throughput: one slot a
    cycle. Back-pressure: none. Reset: that of the slice.
    """

    def __init__(self, dsp: DspSlice) -> None:
        self.dsp = dsp
        ports = {name: port for name, port in shapes.dsp(dsp).items() if name != "advance"}
        half = Out(shapes.partial(PRODUCTS))
        super().__init__({**ports, "first": half, "second": half})

    def delay(self, result: str) -> int:
        """Return the cycles from operands to a result."""
        delays = {"sum": self.dsp.latency, "wide_out": 1, "narrow_out": 1}
        return delays.get(result, self.dsp.latency + 1)

    def lead(self, operand: str) -> int:
        """Return the cycles by which a multiplied operand comes before this one."""
        return self.dsp.latency - 1 if operand in ("addend", "cascade") else 0

    def elaborate(self, platform: object) -> Module:
        """Build the bank."""
        m = Module()
        m.submodules.dsp = dsp = Dsp(self.dsp)
        m.submodules.adjust = adjust = OverflowAdjust(self.dsp, PRODUCTS)
        m.d.comb += [dsp.advance.eq(1), adjust.advance.eq(1), adjust.sum.eq(dsp.sum)]
        m.d.comb += [getattr(dsp, name).eq(getattr(self, name)) for name in OPERANDS]
        m.d.comb += [
            self.sum.eq(dsp.sum),
            self.wide_out.eq(dsp.wide_out),
            self.narrow_out.eq(dsp.narrow_out),
            self.first.eq(adjust.result[0]),
            self.second.eq(adjust.result[1]),
        ]
        return m


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceBatch:
    """A compiled bank."""

    bank: SliceBank
    library: ctypes.CDLL

    def run(self, operands: Mapping[str, Ints]) -> dict[str, Ints]:
        """Return every result int64[slots] for operands int64[slots], both aligned by slot.

        Operands that are not given are 0.
        """
        slots = max(operand.size for operand in operands.values())
        columns = np.zeros((len(OPERANDS), slots), np.int64)
        for name, operand in operands.items():
            columns[OPERANDS.index(name)] = operand
        results = np.zeros((len(RESULTS), slots), np.int64)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (columns, results)]
        self.library.run(ctypes.c_int64(slots), *pointers)
        return dict(zip(RESULTS, results, strict=True))


DRIVER = """
extern "C" void run(int64_t slots, const int64_t *x, int64_t *y) {
    cxxrtl_design::p_top top;
    for (int64_t at = 0; at < slots + $longest; at++) {
$gives
        top.p_clk.set<bool>(false);
        top.step();
        top.p_clk.set<bool>(true);
        top.step();
        top.step();
$takes
    }
}
"""
"""A slot a cycle, until all results are out; the third step brings registers to the ports."""


def _driver(bank: SliceBank) -> str:
    members = bank.signature.members
    widths = {name: Shape.cast(port.shape).width for name, port in members.items()}
    gives, takes = [], []
    for row, name in enumerate(OPERANDS):
        lead, mask = bank.lead(name), (1 << widths[name]) - 1
        there = f"at >= {lead} && at - {lead} < slots"
        value = f"({there} ? (uint64_t)x[{row} * slots + at - {lead}] : 0) & {mask}ull"
        gives.append(f"        top.{mangled(name)}.set<uint64_t>({value});")
    for row, name in enumerate(RESULTS):
        late, blank = bank.delay(name) - 1, 64 - widths[name]
        value = f"(int64_t)(top.{mangled(name)}.get<uint64_t>() << {blank}) >> {blank}"
        takes.append(
            f"        if (at >= {late} && at - {late} < slots)"
            f" y[{row} * slots + at - {late}] = {value};"
        )
    longest = max(map(bank.delay, RESULTS))
    return Template(DRIVER).substitute(
        longest=longest, gives="\n".join(gives), takes="\n".join(takes)
    )


def build(directory: Path, dsp: DspSlice) -> SliceBatch:
    """Compile the bank into `directory` and load it.

    Raises RuntimeError when the headers or the compiler are missing or the compiler fails.
    """
    bank = SliceBank(dsp)
    return SliceBatch(bank=bank, library=compiled(bank, _driver(bank), directory, dsp.value))
