"""Training methods and the optimiser: which operand of which product is N:M.

BDWP: arXiv 2309.13015 (SAT). SR-STE: arXiv 2102.04010. SDGP: arXiv 2202.00774.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from workloads.canonical import Spec
from workloads.pruning import runs_dense
from workloads.sparsity import Dense, NofM, Sparsity

__all__ = ["SGD", "Method", "WeightPlan", "weight_plan"]


class Method(StrEnum):
    """How a network is trained sparse."""

    DENSE = "dense"
    SR_STE = "sr-ste"  # FF weights N:M along k; BP multiplies by the same ones
    SDGP = "sdgp"  # dense weights; BP reads the output gradient N:M along n
    BDWP = "bdwp"  # FF weights N:M along k, BP weights N:M along n, both of the same dense ones

    @classmethod
    def _missing_(cls, value: object) -> "Method":
        raise ValueError(f"Unknown training method {value!r}; known: {', '.join(cls)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD(Spec):
    """Stochastic gradient descent with momentum; decay is added to the gradient."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("learning_rate", "momentum", "weight_decay"):
            value = float(getattr(self, name))
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"SGD {name} must be a finite number of at least 0, not {value}")
            object.__setattr__(self, name, value)
        if self.learning_rate == 0 or self.momentum >= 1:
            raise ValueError(
                "SGD needs a learning_rate above 0 and a momentum below 1, "
                f"not {self.learning_rate} and {self.momentum}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan(Spec):
    """The structures one weight (k, n) gives rise to."""

    forward: Sparsity = field(default_factory=Dense)  # of the (k, n) weight that FF reads
    backward: Sparsity = field(default_factory=Dense)  # of the (n, k) transpose that BP reads
    gradient: Sparsity = field(
        default_factory=Dense
    )  # of the (n, m) output gradient, if BP reads that compressed
    short: bool = False  # BP runs dense because n is less than one group


def _whole_groups(method: Method, name: str, sparsity: Sparsity) -> tuple[int, int]:
    match sparsity:
        case NofM(n=int(n), m=m, axis=None):
            return n, m
        case _:
            raise ValueError(
                f"Weight {name!r} is {sparsity}, but method {method} trains weights that are N:M "
                "along the reduction with one N for all features"
            )


def weight_plan(
    method: Method, name: str, sparsity: Sparsity, shape: tuple[int, ...]
) -> WeightPlan:
    """Return what `method` makes of a weight of `shape` ([g,] k, n) that is `sparsity` in FF.

    A weight that is dense in FF is dense everywhere. Raises ValueError naming the weight when
    its structure is not a whole N:M along the reduction.
    """
    if method is Method.DENSE or isinstance(sparsity, Dense):
        return WeightPlan()
    n, m = _whole_groups(method, name, sparsity)
    along = NofM(n, m)
    short = runs_dense(along, shape, axis=-1)
    match method:
        case Method.SR_STE:
            # The zeros of the transpose stay where FF put them, along k: no reduction of BP.
            return WeightPlan(forward=along, backward=NofM(n, m, axis=-1))
        case Method.BDWP:
            return WeightPlan(forward=along, backward=Dense() if short else along, short=short)
        case Method.SDGP:
            return WeightPlan(gradient=Dense() if short else along, short=short)
        case _:
            assert_never(method)
