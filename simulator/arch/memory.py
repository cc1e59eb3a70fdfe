"""On-chip buffers and DRAM, shared by every machine."""

from dataclasses import dataclass
from enum import StrEnum

from workloads.canonical import Spec

__all__ = ["BufferParams", "DramParams", "MemoryMode"]


class MemoryMode(StrEnum):
    """How memory enters the cycle count (design: engine and memory)."""

    MODELLED = "modelled"  # the machine's own buffers, bandwidth and latency
    IDEAL = "ideal"  # only array time counts
    STEADY = "steady"  # max of array time and bytes / bandwidth, no fill or drain


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferParams(Spec):
    """One on-chip SRAM; tiles replaced while in use take two slots of it (double buffering)."""

    capacity_bytes: int

    def __post_init__(self) -> None:
        if self.capacity_bytes < 1:
            raise ValueError(f"Buffer capacity_bytes must be at least 1, not {self.capacity_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DramParams(Spec):
    """Main memory behind one in-order DMA engine: transfers serialise, latency overlaps."""

    bandwidth_bytes_per_s: int
    latency_cycles: int = 0

    def __post_init__(self) -> None:
        if self.bandwidth_bytes_per_s < 1:
            raise ValueError(
                f"DRAM bandwidth_bytes_per_s must be at least 1, not {self.bandwidth_bytes_per_s}"
            )
        if self.latency_cycles < 0:
            raise ValueError(f"DRAM latency_cycles must be at least 0, not {self.latency_cycles}")
