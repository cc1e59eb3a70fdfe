"""Roofline: where every operator stands between the machine's compute and bandwidth limits.

Williams, Waterman and Patterson, CACM 2009; work is counted in multiply-accumulates.
"""

from dataclasses import dataclass

from simulator.arch import Accelerator
from simulator.arch.accelerator import seconds
from simulator.result import Result
from workloads.canonical import Spec

__all__ = ["Roofline", "RooflinePoint", "machine_roofline", "roofline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline(Spec):
    """Limits of a machine: MAC/s of all multipliers and bytes/s of main memory."""

    peak_macs_per_s: int
    bandwidth_bytes_per_s: int

    @property
    def ridge_macs_per_byte(self) -> float:
        """Intensity at which bandwidth stops being the limit."""
        return self.peak_macs_per_s / self.bandwidth_bytes_per_s

    def attainable_macs_per_s(self, macs_per_byte: float) -> float:
        """Return the roof over an operator of this intensity."""
        return min(self.peak_macs_per_s, macs_per_byte * self.bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflinePoint(Spec):
    """One operator: effectual MACs a byte moved, effectual and dense-equivalent MAC/s."""

    name: str
    macs_per_byte: float
    effectual_macs_per_s: float
    dense_macs_per_s: float


def machine_roofline(arch: Accelerator) -> Roofline:
    """Return the limits of `arch`."""
    return Roofline(
        peak_macs_per_s=arch.peak_macs_per_cycle * arch.clock_hz,
        bandwidth_bytes_per_s=arch.dram.bandwidth_bytes_per_s,
    )


def roofline(result: Result) -> tuple[RooflinePoint, ...]:
    """Return a point for every operator of `result` that multiplies and moves bytes."""
    points = []
    for row in result.per_op:
        moved = int(row["dram_read_bytes"]) + int(row["dram_write_bytes"])
        cycles, macs = int(row["cycles"]), int(row["macs_effectual"])
        if macs and moved and cycles:
            time = seconds(result.arch, cycles)
            points.append(
                RooflinePoint(
                    name=str(row["name"]),
                    macs_per_byte=macs / moved,
                    effectual_macs_per_s=macs / time,
                    dense_macs_per_s=int(row["macs_dense"]) / time,
                )
            )
    return tuple(points)
