"""NMArray: an R x C systolic array of unified sparse PEs (SAT, arXiv 2309.13015)."""

from dataclasses import dataclass
from enum import StrEnum

from simulator.arch.memory import BufferParams, DramParams, MemoryMode
from simulator.arch.training_units import TrainingUnits
from workloads.canonical import Spec

__all__ = ["Dataflow", "NMArray", "Precision"]

MAX_GROUP = 64
"""Largest group length the PE's operand multiplexer is built for."""

MAX_LATENCY = 16
MAX_INTERLEAVE = 16
"""Largest adder pipeline and number of sums a PE keeps in flight."""


class Dataflow(StrEnum):
    """Which operand stays in the PE: accumulator, weights or activations."""

    OS = "os"
    WS = "ws"
    IS = "is"


class Precision(StrEnum):
    """Operands and accumulators: int8 into wrapping int32, or fp16 into fp32 (IEEE 754)."""

    INT8 = "int8"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True, kw_only=True)
class NMArray(Spec):
    """Parameters of the N:M array; timing, RTL, cost and legal mappings all read them here.

    A PE holds a group of up to `max_m` candidates along the reduction and multiplies the N kept
    values of that group by the candidates their indices select, `macs_per_pe` a cycle. N, M and
    the dataflow are run-time settings up to these limits; `dataflow` binds the mapper to one.

    fp16 products are exact in fp32 and summed one after the other by an adder of `adder_latency`
    pipeline stages, so a PE can add into the same sum only every `adder_latency` slots; it keeps
    `interleave` sums in flight to fill the gaps.
    """

    rows: int
    cols: int
    max_m: int = 1
    macs_per_pe: int = 1
    precision: Precision = Precision.INT8
    adder_latency: int = 1
    interleave: int = 1
    dataflow: Dataflow | None = None
    overlap: bool = False
    clock_hz: int = 1_000_000_000
    vector_lanes: int = 1
    act_buffer: BufferParams
    weight_buffer: BufferParams
    out_buffer: BufferParams
    dram: DramParams
    memory: MemoryMode = MemoryMode.MODELLED
    training: TrainingUnits | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "max_m", "macs_per_pe", "clock_hz", "vector_lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"NMArray {name} must be at least 1, not {getattr(self, name)}")
        for name, most in (("adder_latency", MAX_LATENCY), ("interleave", MAX_INTERLEAVE)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"NMArray {name} must be 1 to {most}, not {getattr(self, name)}")
        if self.max_m > MAX_GROUP:
            raise ValueError(f"NMArray max_m must be at most {MAX_GROUP}, not {self.max_m}")
        if self.macs_per_pe > self.max_m:
            raise ValueError(
                f"NMArray macs_per_pe must be at most max_m = {self.max_m}, not {self.macs_per_pe}"
            )

        self._check_precision()
        if self.training and self.training.sore.max_m < self.max_m:
            raise ValueError(
                f"NMArray training.sore.max_m must be at least max_m = {self.max_m}, "
                f"not {self.training.sore.max_m}"
            )

    def _check_precision(self) -> None:
        if self.precision is Precision.INT8:
            for name in ("adder_latency", "interleave"):
                if getattr(self, name) != 1:
                    raise ValueError(
                        f"An int8 NMArray adds in one slot: {name} must be 1, "
                        f"not {getattr(self, name)}"
                    )
        elif self.macs_per_pe != 1:
            raise ValueError(
                "An fp16 NMArray adds products one after the other: macs_per_pe must be 1, "
                f"not {self.macs_per_pe}"
            )

    @property
    def operand_bits(self) -> int:
        """Width of activations and weights."""
        return 8 if self.precision is Precision.INT8 else 16

    @property
    def acc_bits(self) -> int:
        """Width of accumulators and partial sums."""
        return 32

    @property
    def issue_slots(self) -> int:
        """Slots between two additions into the same sum: max(I, L)."""
        return max(self.interleave, self.adder_latency)

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
