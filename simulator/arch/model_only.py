"""What the parameters of machines without RTL have in common."""

from dataclasses import dataclass

from simulator.arch.memory import BufferParams, DramParams, MemoryMode
from simulator.arch.nm_array import Dataflow, Precision
from workloads.canonical import Spec

__all__ = ["ModelOnly", "check_stationary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOnly(Spec):
    """Operands, clock, vector lanes and memories; a machine adds its array.

    Every number of the array must be at least 1. Abstract: machines derive from it.
    """

    precision: Precision
    clock_hz: int
    vector_lanes: int
    act_buffer: BufferParams
    weight_buffer: BufferParams
    out_buffer: BufferParams
    dram: DramParams
    memory: MemoryMode = MemoryMode.MODELLED

    @property
    def operand_bits(self) -> int:
        """Width of activations, weights and stored results."""
        return 8 if self.precision is Precision.INT8 else 16

    @property
    def acc_bits(self) -> int:
        """Width of sums."""
        return 32

    def check_at_least_one(self, *names: str) -> None:
        """Raise ValueError for the first of clock, lanes and the named fields below 1."""
        for name in ("clock_hz", "vector_lanes", *names):
            if getattr(self, name) < 1:
                kind = type(self).__name__
                raise ValueError(f"{kind} {name} must be at least 1, not {getattr(self, name)}")


def check_stationary(kind: str, dataflow: Dataflow | None) -> None:
    """Raise ValueError unless `dataflow` keeps an operand in place or is left to the mapper."""
    if dataflow is Dataflow.OS:
        raise ValueError(f"{kind} dataflow must be ws or is (weights or activations stay), not os")
