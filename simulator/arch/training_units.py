"""What an NMArray has beside the array to train: the selector SORE and the update engine WUVE."""

from dataclasses import dataclass

from simulator.arch.sore import SoreParams
from simulator.arch.wuve import WuveParams
from workloads.canonical import Spec

__all__ = ["TrainingUnits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingUnits(Spec):
    """SORE, WUVE and how they work together (SAT, arXiv 2309.13015).

    With `pregenerate`, updated weights stream from WUVE through SORE, and the next step loads
    them compressed; the selection along the other axis needs the `transposer` (M x lanes values),
    without which it is a pass of its own over the stored weights. Without `pregenerate`, weights
    are stored dense and SORE selects in front of every load.
    """

    sore: SoreParams
    wuve: WuveParams
    pregenerate: bool = True
    transposer: bool = True
