"""What a machine takes of an UltraScale+ FPGA: DSPs, LUTs and flip-flops by synthesis, UltraRAMs.

The figures are those of the generated RTL in open-source synthesis, which shares no multiplier
between products and does no placement: they compare machines, and are above what a vendor's tools
or a PE made for one pattern would take.
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
    ff: int

    def __add__(self, other: "FpgaResources") -> "FpgaResources":
        """Return both together."""
        return FpgaResources(
            dsp=self.dsp + other.dsp,
            bram=self.bram + other.bram,
            uram=self.uram + other.uram,
            lut=self.lut + other.lut,
            ff=self.ff + other.ff,
        )

    def __mul__(self, count: int) -> "FpgaResources":
        """Return `count` times as much."""
        return FpgaResources(
            dsp=self.dsp * count,
            bram=self.bram * count,
            uram=self.uram * count,
            lut=self.lut * count,
            ff=self.ff * count,
        )


SOURCES: Final = {
    "dsp": "synthesis of the generated RTL: one DSP48E2 a multiplier (two for fp32 ones)",
    "lut": "synthesis of the generated RTL (Yosys 0.23, synth_xilinx -family xcup): PEs, edges and "
    "control of the array, lanes of SORE, WUVE and vector unit; DMA and buffers' control left out",
    "uram": "assumed: every buffer in UltraRAMs of 36 KiB (UG573), as wide as they are",
    "bram": "assumed: none, buffers are UltraRAMs",
}
"""Where every figure comes from."""

URAM_BYTES: Final = 288 * 1024 // 8


def _logic(lut: int, ff: int, dsp: int = 0) -> FpgaResources:
    return FpgaResources(dsp=dsp, bram=0, uram=0, lut=lut, ff=ff)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pe:
    """A PE that was synthesised: its parameters, LUTs and flip-flops."""

    precision: Precision
    max_m: int
    macs: int = 1
    latency: int = 1
    interleave: int = 1
    lut: int
    ff: int

    def does(self, arch: NMArray) -> bool:
        """Whether it can do what a PE of `arch` does."""
        return self.precision is arch.precision and all(
            mine >= wanted
            for mine, wanted in (
                (self.max_m, arch.max_m),
                (self.macs, arch.macs_per_pe),
                (self.latency, arch.adder_latency),
                (self.interleave, arch.interleave),
            )
        )


_INT8, _FP16 = Precision.INT8, Precision.FP16

_PES: Final = (
    _Pe(precision=_INT8, max_m=1, lut=169, ff=104),
    _Pe(precision=_INT8, max_m=2, lut=197, ff=134),
    _Pe(precision=_INT8, max_m=4, lut=366, ff=196),
    _Pe(precision=_INT8, max_m=8, lut=452, ff=326),
    _Pe(precision=_INT8, max_m=32, lut=1297, ff=1178),
)
_ROW: Final = _logic(0, 0)
_COLUMN: Final = _logic(0, 0)
_CONTROL: Final = _logic(0, 0)
_SORE_LANE: Final = _logic(0, 0)
_WUVE_LANE: Final = _logic(0, 0)
_VECTOR_LANE: Final = _logic(0, 0)


def fpga_resources(arch: Accelerator) -> FpgaResources:
    """Return what a machine takes: PEs, edges and control, vector lanes, SORE, WUVE and buffers.

    A PE that was not synthesised counts as the smallest one that was and does as much. Raises
    ValueError for machines other than an NMArray, and for PEs larger than any synthesised.
    """
    if not isinstance(arch, NMArray):
        raise ValueError(
            f"FPGA resources are known of nm_array machines, not of a {type(arch).__name__}"
        )
    found = _pe(arch) * arch.pes + _ROW * arch.rows + _COLUMN * arch.cols + _CONTROL
    found += _VECTOR_LANE * arch.vector_lanes
    if arch.training:
        found += _SORE_LANE * arch.training.sore.lanes + _WUVE_LANE * arch.training.wuve.lanes
    buffers = (arch.act_buffer, arch.weight_buffer, arch.out_buffer)
    urams = sum(-(-buffer.capacity_bytes // URAM_BYTES) for buffer in buffers)
    return found + FpgaResources(dsp=0, bram=0, uram=urams, lut=0, ff=0)


def _pe(arch: NMArray) -> FpgaResources:
    able = [pe for pe in _PES if pe.does(arch)]
    if not able:
        raise ValueError(
            f"No {arch.precision} PE with max_m {arch.max_m}, macs_per_pe {arch.macs_per_pe}, "
            f"adder_latency {arch.adder_latency} and interleave {arch.interleave} was synthesised"
        )
    pe = min(able, key=lambda pe: pe.lut)
    return _logic(pe.lut, pe.ff, dsp=arch.macs_per_pe)
