"""WUVE: the weight-update vector engine (SAT, arXiv 2309.13015), and its job.

WUVE updates fp32 master weights by momentum SGD with weight decay, from fp16 gradients, and
makes the fp16 copies the array computes with. Per element, every operation rounded to fp32:

    g = grad + wd * w;    v = mu * v + g;    w = w - lr * v;    copy = fp16(w)

This is SGD of the PyTorch form: no dampening, no Nesterov momentum, decay added to the gradient.
"""

import math
from dataclasses import dataclass

import numpy as np

from workloads.canonical import Spec

__all__ = ["WuveJob", "WuveParams", "wuve_cycles"]

MAX_LATENCY = 64
"""Deepest adder or multiplier pipeline the engine is built for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WuveParams(Spec):
    """Parameters of the engine: `lanes` elements a cycle, and the depth of its arithmetic."""

    lanes: int
    adder_latency: int
    multiplier_latency: int

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError(f"WUVE lanes must be at least 1, not {self.lanes}")
        for name in ("adder_latency", "multiplier_latency"):
            if not 1 <= getattr(self, name) <= MAX_LATENCY:
                raise ValueError(
                    f"WUVE {name} must be 1 to {MAX_LATENCY}, not {getattr(self, name)}"
                )

    @property
    def latency(self) -> int:
        """Slots from a beat taken to its result offered: 2 products, 3 sums, 1 for the copy.

        mu * v is computed beside wd * w and its sum, so only two of three products count.
        """
        return 2 * self.multiplier_latency + 3 * self.adder_latency + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WuveJob(Spec):
    """`beats` beats of elements updated with the same settings, which are rounded to fp32."""

    params: WuveParams
    learning_rate: float
    momentum: float
    weight_decay: float
    beats: int

    def __post_init__(self) -> None:
        if self.beats < 1:
            raise ValueError(f"A job needs at least 1 beat, not {self.beats}")
        limit = float(np.finfo(np.float32).max)
        for name in ("learning_rate", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not math.isfinite(value) or abs(value) > limit:
                raise ValueError(f"WUVE {name} must be a finite fp32 number, not {value}")

    @property
    def slots(self) -> int:
        """Slots from the first beat taken to the one after which the last result is offered."""
        return self.beats + self.params.latency - 1

    @property
    def cycles(self) -> int:
        """Cycles from the first beat taken to the last result handed over, without stalls."""
        return self.beats + self.params.latency


def wuve_cycles(params: WuveParams, elements: int) -> int:
    """Return the cycles of updating a tensor of `elements` elements, without stalls.

    From the first beat taken to the last result handed over: ceil(elements / lanes) + latency.
    Raises ValueError for fewer than 1 element.
    """
    if elements < 1:
        raise ValueError(f"A tensor has at least 1 element, not {elements}")
    return -(-elements // params.lanes) + params.latency
