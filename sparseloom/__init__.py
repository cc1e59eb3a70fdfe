"""Ask what a sparsity buys on a machine, and why.

>>> import sparseloom as sl
>>> machine = sl.arch("systolic", memory="ideal", dataflow="ws")
>>> sl.simulate(sl.gemm(64, 32, 32), machine).cycles
158
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cost_models import Cost as Cost
    from cost_models import EnergyTable as EnergyTable
    from cost_models import MissingPrice as MissingPrice
    from mapping.placer import InfeasiblePlacement as InfeasiblePlacement
    from mapping.placer import Placement as Placement
    from mapping.types import MapperResult as MapperResult
    from simulator.arch import DspChain as DspChain
    from simulator.arch import NMArray as NMArray
    from simulator.arch import PEGrid as PEGrid
    from simulator.arch.formats import Format as Format
    from simulator.formats import decode as decode
    from simulator.formats import encode as encode
    from simulator.result import Result as Result
    from simulator.schedule import Schedule as Schedule
    from sparseloom.api import arch as arch
    from sparseloom.api import gemm as gemm
    from sparseloom.api import load as load
    from sparseloom.api import map as map
    from sparseloom.api import price as price
    from sparseloom.api import simulate as simulate
    from sparseloom.comparison import Comparison as Comparison
    from sparseloom.comparison import compare as compare
    from sparseloom.designs import Design as Design
    from sparseloom.placing import place as place
    from sparseloom.runs import Run as Run
    from sparseloom.runs import run as run
    from sparseloom.sweeps.run import SweepReport as SweepReport
    from sparseloom.sweeps.run import sweep as sweep
    from workloads.graph import WorkloadGraph as WorkloadGraph
    from workloads.sparsity import Balanced as Balanced
    from workloads.sparsity import Block as Block
    from workloads.sparsity import ConstantFanIn as ConstantFanIn
    from workloads.sparsity import Dense as Dense
    from workloads.sparsity import Explicit as Explicit
    from workloads.sparsity import NofM as NofM
    from workloads.sparsity import Positional as Positional
    from workloads.sparsity import Unstructured as Unstructured

__version__ = "0.1.0"

_EXPORTS: Final = {
    "Balanced": "workloads.sparsity",
    "Block": "workloads.sparsity",
    "Comparison": "sparseloom.comparison",
    "ConstantFanIn": "workloads.sparsity",
    "Cost": "cost_models",
    "Dense": "workloads.sparsity",
    "Design": "sparseloom.designs",
    "DspChain": "simulator.arch",
    "EnergyTable": "cost_models",
    "Explicit": "workloads.sparsity",
    "Format": "simulator.arch.formats",
    "InfeasiblePlacement": "mapping.placer",
    "MapperResult": "mapping.types",
    "MissingPrice": "cost_models",
    "NMArray": "simulator.arch",
    "PEGrid": "simulator.arch",
    "NofM": "workloads.sparsity",
    "Placement": "mapping.placer",
    "Positional": "workloads.sparsity",
    "Result": "simulator.result",
    "Run": "sparseloom.runs",
    "Schedule": "simulator.schedule",
    "SweepReport": "sparseloom.sweeps.run",
    "Unstructured": "workloads.sparsity",
    "WorkloadGraph": "workloads.graph",
    "arch": "sparseloom.api",
    "compare": "sparseloom.comparison",
    "decode": "simulator.formats",
    "encode": "simulator.formats",
    "gemm": "sparseloom.api",
    "load": "sparseloom.api",
    "map": "sparseloom.api",
    "place": "sparseloom.placing",
    "price": "sparseloom.api",
    "run": "sparseloom.runs",
    "simulate": "sparseloom.api",
    "sweep": "sparseloom.sweeps.run",
}

# Names resolve on first use, so that importing the package stays fast.
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'sparseloom' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
