"""What a mapper returns."""

import math
from dataclasses import dataclass, field

from mapping.objective import Number, Objective
from mapping.problem import TileShape
from simulator.nm_tile import NMSetting
from simulator.schedule import Schedule
from workloads.canonical import Spec

__all__ = ["Fusion", "MapperResult", "Mapping", "NoMapping", "Tiled"]


class NoMapping(ValueError):
    """No legal mapping exists: the message names the operator, the buffer, its need and size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping(Spec):
    """The choice for one operator: array setting and tile, and what it costs.

    cost is of one execution, exact and in the objective's unit; `bound` is a lower bound proved
    over the space and `considered` the number of candidates whose cost or bound was looked at.
    `packed` counts the convolution groups that share one block-diagonal product (see
    `Problem.packed`).
    """

    op: str
    setting: NMSetting
    shape: TileShape
    cost: Number
    bound: Number
    considered: int
    packed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiled(Spec):
    """The choice for one operator of a machine whose array has no settings: its largest tile.

    `considered` are the candidates; an operator like one that was mapped before has none.
    """

    op: str
    shape: TileShape
    considered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion(Spec):
    """Operators by chain, a proved bound over all choices of chains, and the cost without any."""

    chains: tuple[tuple[str, ...], ...]
    bound: Number
    unfused: Number | None  # None if some operator only fits fused


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperResult(Spec):
    """A mapped workload: its schedule, the choice per GEMM, and the proof's figures.

    op_costs and op_bounds are of all executions of each operator of the schedule, in the
    objective's unit; cost and bound are their sums; gap = (cost - bound) / cost. Of a fused
    workload `fused` says which chains keep their tensors on chip, and what they were chosen over.
    """

    schedule: Schedule
    mappings: tuple[Mapping, ...] | tuple[Tiled, ...]
    mapper: str
    objective: Objective = Objective.CYCLES
    op_costs: tuple[Number, ...]
    op_bounds: tuple[Number, ...]
    considered: int
    seconds: float = field(compare=False)
    fused: Fusion | None = None

    @property
    def cost(self) -> Number:
        """Exact cost of the whole run."""
        return sum(self.op_costs)

    @property
    def bound(self) -> Number:
        """Proved lower bound on the cost of every mapping of the whole run in the space."""
        proved = self.fused.bound if self.fused else sum(self.op_bounds)
        # Floats that are added up in another order come out a few bits higher or lower.
        same = isinstance(self.cost, float) and math.isclose(proved, self.cost, rel_tol=1e-12)
        return self.cost if same else proved

    @property
    def gap(self) -> float:
        """Relative distance between cost and bound; 0 when optimality is proved."""
        return (self.cost - self.bound) / self.cost if self.cost else 0.0
