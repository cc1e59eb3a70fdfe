"""Every floating-point unit compiled to native code: about a million operand pairs a second.

The bank of units is compiled by `rtl.cxxrtl` and called through ctypes.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from rtl.cxxrtl import compiled, mangled
from rtl.float.adder import Adder
from rtl.float.converter import Converter
from rtl.float.formats import FP16, FP32
from rtl.float.multiplier import Multiplier
from rtl.unit import Unit

__all__ = ["OPERATIONS", "FloatBank", "FloatBatch", "build"]

OPERATIONS = ("sum", "product", "exact_product", "narrowed", "widened")
"""Results of the bank: fp32 sum and product, fp16 product in fp32, a as fp16, fp16 a as fp32."""

Words = NDArray[np.uint32]


class FloatBank(Unit):
    """One unit of each kind on shared operands; fp16 operands are the low halves of a and b.

    Latency: `latency` cycles, for all but the widening converter, which is combinational.
    Throughput: one operand pair a cycle. Back-pressure: none. Reset: none.
    """

    def __init__(self, latency: int) -> None:
        self.latency = latency
        results = {name: Out(FP32.bits) for name in OPERATIONS}
        super().__init__({"a": In(FP32.bits), "b": In(FP32.bits), **results})

    def delay(self, operation: str) -> int:
        """Return the cycles from an operand pair to its result."""
        return 0 if operation == "widened" else self.latency

    def elaborate(self, platform: object) -> Module:
        """Build the bank."""
        m = Module()
        units = {
            "sum": Adder(self.delay("sum")),
            "product": Multiplier(FP32, self.delay("product")),
            "exact_product": Multiplier(FP16, self.delay("exact_product")),
            "narrowed": Converter(FP32, FP16, self.delay("narrowed")),
            "widened": Converter(FP16, FP32, self.delay("widened")),
        }
        for name, unit in units.items():
            m.submodules[name] = unit
            m.d.comb += [unit.advance.eq(1), unit.a.eq(self.a), getattr(self, name).eq(unit.y)]
            if not isinstance(unit, Converter):
                m.d.comb += unit.b.eq(self.b)
        return m


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatBatch:
    """A compiled bank."""

    library: ctypes.CDLL

    def run(self, a: Words, b: Words) -> dict[str, Words]:
        """Return every operation's result bits, uint32[pairs], for operand bits uint32[pairs].

        Raises ValueError unless both operands are uint32 of one length.
        """
        if a.dtype != np.uint32 or b.dtype != np.uint32 or a.ndim != 1 or a.shape != b.shape:
            raise ValueError(
                f"Operands must be uint32 vectors of one length, not {a.dtype}{list(a.shape)} "
                f"and {b.dtype}{list(b.shape)}"
            )
        results = np.zeros((len(OPERATIONS), a.size), np.uint32)
        words = [np.ascontiguousarray(operand).ctypes.data for operand in (a, b)]
        pointers = [ctypes.c_void_p(word) for word in (*words, results.ctypes.data)]
        self.library.run(ctypes.c_size_t(a.size), *pointers)
        return dict(zip(OPERATIONS, results, strict=True))


DRIVER = """
extern "C" void run(size_t pairs, const uint32_t *a, const uint32_t *b, uint32_t *y) {
    cxxrtl_design::p_top top;
    for (size_t at = 0; at < pairs + $latency; at++) {
        top.p_a.set<uint32_t>(at < pairs ? a[at] : 0);
        top.p_b.set<uint32_t>(at < pairs ? b[at] : 0);
        top.p_clk.set<bool>(false);
        top.step();
        top.p_clk.set<bool>(true);
        top.step();
$takes
    }
}
"""
"""An operand pair a cycle, until all results are out."""


def _driver(bank: FloatBank) -> str:
    takes = [
        f"        if (at >= {late} && at - {late} < pairs)"
        f" y[{row} * pairs + at - {late}] = top.{mangled(name)}.get<uint32_t>();"
        for row, name in enumerate(OPERATIONS)
        for late in [max(bank.delay(name) - 1, 0)]
    ]
    return Template(DRIVER).substitute(latency=bank.latency, takes="\n".join(takes))


def build(directory: Path, *, latency: int, compiler: str = "g++") -> FloatBatch:
    """Compile the bank into `directory` and load it.

    Raises RuntimeError when the headers or the compiler are missing or the compiler fails.
    """
    bank = FloatBank(latency)
    return FloatBatch(library=compiled(bank, _driver(bank), directory, "float_bank", compiler))
