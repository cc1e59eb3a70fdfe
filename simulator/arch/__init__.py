"""Machine parameters: the single source for timing, RTL, cost and legal mappings."""

from simulator.arch.memory import BufferParams, DramParams, MemoryMode
from simulator.arch.nm_array import Dataflow, NMArray, Precision
from simulator.arch.nm_job import ArrayJob

__all__ = [
    "ArrayJob",
    "BufferParams",
    "Dataflow",
    "DramParams",
    "MemoryMode",
    "NMArray",
    "Precision",
]
