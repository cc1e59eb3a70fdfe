"""What a machine takes of an UltraScale+ FPGA: DSPs and LUTs by synthesis of its RTL, UltraRAMs.

Synthesis is open-source and before placement, and the RTL is general: three dataflows and every N:M
up to a limit at run time. So the figures compare machines of one kind; a vendor's tools, or an
array for one pattern, would take fewer LUTs.
"""

from dataclasses import dataclass
from typing import Final

from simulator.arch import Accelerator, NMArray, Precision
from workloads.canonical import Spec

__all__ = ["SOURCES", "FpgaResources", "fpga_resources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaResources(Spec):
    """Resources of one machine; BRAM counts RAMB18 halves."""

    dsp: int
    bram: int
    uram: int
    lut: int


_YOSYS: Final = "synthesis of the generated RTL (Yosys 0.23, synth_xilinx -family xcup)"
SOURCES: Final = {
    "dsp": f"{_YOSYS}: DSP48E2 of PEs and of the multipliers of WUVE and vector unit",
    "lut": f"{_YOSYS}: PEs, edges and control of the array, SORE, WUVE and vector unit, without "
    "DMA and buffers' control. assumed: an int8 machine's vector lane takes what an fp16 one does",
    "uram": "assumed: every buffer in UltraRAMs of 36 KiB (UG573)",
    "bram": "assumed: none, as buffers are UltraRAMs",
}
"""Where each figure comes from."""

URAM_BYTES: Final = 288 * 1024 // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pe:
    """A PE that was synthesised: what it does at most, and its LUTs."""

    precision: Precision
    max_m: int
    lut: int
    macs: int = 1
    latency: int = 1

    def does(self, arch: NMArray) -> bool:
        """Whether it can do what a PE of `arch` does."""
        return (
            self.precision is arch.precision
            and self.macs == arch.macs_per_pe
            and self.max_m >= arch.max_m
            and self.latency >= arch.issue_slots
        )


_INT8, _FP16 = Precision.INT8, Precision.FP16

_PES: Final = (
    _Pe(precision=_INT8, max_m=1, lut=169),
    _Pe(precision=_INT8, max_m=2, lut=197),
    _Pe(precision=_INT8, max_m=4, lut=366),
    _Pe(precision=_INT8, max_m=8, lut=452),
    _Pe(precision=_INT8, max_m=16, lut=1453),
    _Pe(precision=_INT8, max_m=32, lut=1297),
    _Pe(precision=_INT8, max_m=4, macs=2, lut=382),
    _Pe(precision=_INT8, max_m=8, macs=2, lut=809),
    _Pe(precision=_INT8, max_m=16, macs=2, lut=1209),
    _Pe(precision=_INT8, max_m=8, macs=4, lut=1112),
    _Pe(precision=_INT8, max_m=16, macs=4, lut=1972),
    _Pe(precision=_FP16, max_m=1, latency=4, lut=1409),
    _Pe(precision=_FP16, max_m=2, latency=4, lut=1457),
    _Pe(precision=_FP16, max_m=4, latency=4, lut=1914),
    _Pe(precision=_FP16, max_m=8, latency=4, lut=1889),
    _Pe(precision=_FP16, max_m=16, latency=4, lut=3520),
    _Pe(precision=_FP16, max_m=32, latency=4, lut=4286),
    _Pe(precision=_FP16, max_m=8, latency=8, lut=1994),
    _Pe(precision=_FP16, max_m=16, latency=8, lut=3625),
)
"""Synthesised PEs; `latency` is adder_latency and interleave (benchmarks/resources.py)."""

ROW_LUTS: Final = 541
ROW_BITS: Final = 256
COLUMN_LUTS: Final = 61
CONTROL_LUTS: Final = 235
"""LUTs of a row's edge of so many operand bits, of a column's, and of the control: the largest of
an int8 array with groups of 8 and an fp16 one with groups of 16, from 2 x 2, 8 x 2 and 2 x 8."""

SORE_LUTS: Final = {8: 3540, 16: 7075}
"""LUTs of a selector of LANES lanes by its max_m."""

WUVE_LUTS: Final = 17672
WUVE_DSPS: Final = 24
VECTOR_LUTS: Final = 13270
VECTOR_DSPS: Final = 4
LANES: Final = 4
"""What the units take with so many lanes."""


def fpga_resources(arch: Accelerator) -> FpgaResources:
    """Return what a machine takes.

    A part that was not synthesised counts as the smallest one that was and does as much. Raises
    ValueError for machines other than an NMArray, and for parts larger than any synthesised.
    """
    if not isinstance(arch, NMArray):
        raise ValueError(
            f"FPGA resources are known of nm_array machines, not of a {type(arch).__name__}"
        )
    group_bits = arch.max_m * arch.operand_bits
    luts = arch.pes * _pe_luts(arch) + arch.cols * COLUMN_LUTS + CONTROL_LUTS
    luts += arch.rows * -(-ROW_LUTS * group_bits // ROW_BITS)
    luts += -(-VECTOR_LUTS * arch.vector_lanes // LANES)
    dsps = arch.pes * arch.macs_per_pe + -(-VECTOR_DSPS * arch.vector_lanes // LANES)
    if arch.training:
        sore, wuve = arch.training.sore, arch.training.wuve
        luts += -(-_sore_luts(sore.max_m) * sore.lanes // LANES)
        luts += -(-WUVE_LUTS * wuve.lanes // LANES)
        dsps += -(-WUVE_DSPS * wuve.lanes // LANES)
    buffers = (arch.act_buffer, arch.weight_buffer, arch.out_buffer)
    urams = sum(-(-buffer.capacity_bytes // URAM_BYTES) for buffer in buffers)
    return FpgaResources(dsp=dsps, bram=0, uram=urams, lut=luts)


def _pe_luts(arch: NMArray) -> int:
    able = [pe.lut for pe in _PES if pe.does(arch)]
    if not able:
        raise ValueError(
            f"No {arch.precision} PE with max_m {arch.max_m}, macs_per_pe {arch.macs_per_pe} and "
            f"{arch.issue_slots} sums in flight was synthesised"
        )
    return min(able)


def _sore_luts(max_m: int) -> int:
    able = [luts for group, luts in SORE_LUTS.items() if group >= max_m]
    if not able:
        raise ValueError(
            f"No SORE with max_m {max_m} was synthesised; the largest has {max(SORE_LUTS)}"
        )
    return min(able)
