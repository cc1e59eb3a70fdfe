"""NMArray: an R x C systolic array of unified sparse PEs (SAT, arXiv 2309.13015)."""

from dataclasses import dataclass
from enum import StrEnum

from simulator.arch.memory import BufferParams, DramParams, MemoryMode
from workloads.canonical import Spec

__all__ = ["Dataflow", "NMArray"]

MAX_GROUP = 64
"""Largest group length the PE's operand multiplexer is built for."""


class Dataflow(StrEnum):
    """Which operand stays in the PE: accumulator, weights or activations."""

    OS = "os"
    WS = "ws"
    IS = "is"


@dataclass(frozen=True, slots=True, kw_only=True)
class NMArray(Spec):
    """Parameters of the N:M array; timing, RTL, cost and legal mappings all read them here.

    A PE holds a group of up to `max_m` candidates along the reduction and multiplies the N kept
    values of that group by the candidates their indices select, `macs_per_pe` a cycle. N, M and
    the dataflow are run-time settings up to these limits; `dataflow` binds the mapper to one.
    """

    rows: int
    cols: int
    max_m: int = 1
    macs_per_pe: int = 1
    dataflow: Dataflow | None = None
    overlap: bool = False
    clock_hz: int = 1_000_000_000
    vector_lanes: int = 1
    act_buffer: BufferParams
    weight_buffer: BufferParams
    out_buffer: BufferParams
    dram: DramParams
    memory: MemoryMode = MemoryMode.MODELLED

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "max_m", "macs_per_pe", "clock_hz", "vector_lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"NMArray {name} must be at least 1, not {getattr(self, name)}")
        if self.max_m > MAX_GROUP:
            raise ValueError(f"NMArray max_m must be at most {MAX_GROUP}, not {self.max_m}")
        if self.macs_per_pe > self.max_m:
            raise ValueError(
                f"NMArray macs_per_pe must be at most max_m = {self.max_m}, not {self.macs_per_pe}"
            )

    @property
    def operand_bits(self) -> int:
        """Width of activations and weights (int8)."""
        return 8

    @property
    def acc_bits(self) -> int:
        """Width of accumulators and partial sums (int32, wrapping)."""
        return 32

    @property
    def index_bits(self) -> int:
        """Width of the in-group index of a kept value; 0 when groups hold one position."""
        return (self.max_m - 1).bit_length()

    @property
    def pes(self) -> int:
        """Number of processing elements."""
        return self.rows * self.cols

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products the whole array can start in one cycle."""
        return self.pes * self.macs_per_pe
