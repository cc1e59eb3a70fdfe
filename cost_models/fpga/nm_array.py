"""What an NMArray takes: PEs, edges, control, SORE, WUVE and vector unit as synthesised."""

from dataclasses import dataclass
from typing import Final

from cost_models.fpga.parts import LANES, VECTOR_UNIT, FpgaResources, buffers, smallest
from simulator.arch import NMArray, Precision

__all__ = ["COLUMN", "CONTROL", "ROW", "ROW_BITS", "SORE", "WUVE", "resources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pe:
    """A PE that was synthesised: what it does at most, and what it takes."""

    precision: Precision
    max_m: int
    takes: FpgaResources
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


def _pe(
    precision: Precision, max_m: int, *, lut: int, ff: int, macs: int = 1, latency: int = 1
) -> _Pe:
    takes = FpgaResources(lut=lut, ff=ff, dsp=macs)
    return _Pe(precision=precision, max_m=max_m, takes=takes, macs=macs, latency=latency)


_PES: Final = (
    _pe(_INT8, 1, lut=169, ff=104),
    _pe(_INT8, 2, lut=197, ff=134),
    _pe(_INT8, 4, lut=366, ff=196),
    _pe(_INT8, 8, lut=452, ff=326),
    _pe(_INT8, 16, lut=1453, ff=600),
    _pe(_INT8, 32, lut=1297, ff=1178),
    _pe(_FP16, 1, lut=1409, ff=579, latency=4),
    _pe(_FP16, 2, lut=1457, ff=633, latency=4),
    _pe(_FP16, 4, lut=1914, ff=743, latency=4),
    _pe(_FP16, 8, lut=1889, ff=969, latency=4),
    _pe(_FP16, 16, lut=3520, ff=1435, latency=4),
    _pe(_FP16, 32, lut=4286, ff=2397, latency=4),
    _pe(_INT8, 4, lut=382, ff=206, macs=2),
    _pe(_INT8, 8, lut=808, ff=337, macs=2),
    _pe(_INT8, 16, lut=1206, ff=612, macs=2),
    _pe(_INT8, 8, lut=1112, ff=360, macs=4),
    _pe(_INT8, 16, lut=1972, ff=637, macs=4),
    _pe(_FP16, 8, lut=1994, ff=1289, latency=8),
    _pe(_FP16, 16, lut=3625, ff=1755, latency=8),
)
"""Synthesised PEs; `latency` is adder_latency and interleave (benchmarks/resources.py)."""

ROW: Final = FpgaResources(lut=544, ff=4668)
ROW_BITS: Final = 256
COLUMN: Final = FpgaResources(lut=61, ff=244)
CONTROL: Final = FpgaResources(lut=235)
"""A row's edge of so many operand bits, a column's, and the control: the largest of an int8 array
with groups of 8 and an fp16 one with groups of 16, from 2 x 2, 8 x 2 and 2 x 8. Skew makes rows'
flip-flops more with every row, so control has none beside them."""

SORE: Final = {8: FpgaResources(lut=3540, ff=1456), 16: FpgaResources(lut=7075, ff=2804)}
"""A selector of LANES lanes by its max_m."""

WUVE: Final = FpgaResources(lut=17672, ff=4314, dsp=24)
"""A vector engine of LANES lanes."""


def resources(arch: NMArray) -> FpgaResources:
    """Return what the machine takes; raises ValueError for parts larger than any synthesised."""
    group_bits = arch.max_m * arch.operand_bits
    found = (
        _element(arch).times(arch.pes)
        + ROW.times(group_bits, ROW_BITS).times(arch.rows)
        + COLUMN.times(arch.cols)
        + CONTROL
        + VECTOR_UNIT.times(arch.vector_lanes, LANES)
        + buffers(arch.act_buffer, arch.weight_buffer, arch.out_buffer)
    )
    if not arch.training:
        return found
    sore, wuve = arch.training.sore, arch.training.wuve
    return found + _sore(sore.max_m).times(sore.lanes, LANES) + WUVE.times(wuve.lanes, LANES)


def _element(arch: NMArray) -> FpgaResources:
    part = (
        f"{arch.precision} PE with max_m {arch.max_m}, macs_per_pe {arch.macs_per_pe} and "
        f"{arch.issue_slots} sums in flight"
    )
    return smallest((pe.takes for pe in _PES if pe.does(arch)), part)


def _sore(max_m: int) -> FpgaResources:
    able = (takes for group, takes in SORE.items() if group >= max_m)
    return smallest(able, f"SORE with max_m {max_m}")
