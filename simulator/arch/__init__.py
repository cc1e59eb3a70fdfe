"""Machine parameters: the single source for timing, RTL, cost and legal mappings."""

from simulator.arch.accelerator import MACHINES, Accelerator
from simulator.arch.dsp_chain import Compression, DdrParams, DspChain, HbmParams
from simulator.arch.memory import BufferParams, DramParams, MemoryMode
from simulator.arch.nm_array import Dataflow, NMArray, Precision
from simulator.arch.nm_job import ArrayJob
from simulator.arch.pe_grid import PEGrid
from simulator.arch.sore import SoreJob, SoreParams, sore_cycles
from simulator.arch.training_units import TrainingUnits
from simulator.arch.wuve import WuveJob, WuveParams, wuve_cycles

__all__ = [
    "MACHINES",
    "Accelerator",
    "ArrayJob",
    "BufferParams",
    "Compression",
    "Dataflow",
    "DdrParams",
    "DramParams",
    "DspChain",
    "HbmParams",
    "MemoryMode",
    "NMArray",
    "PEGrid",
    "Precision",
    "SoreJob",
    "SoreParams",
    "TrainingUnits",
    "WuveJob",
    "WuveParams",
    "sore_cycles",
    "wuve_cycles",
]
