"""What a mapper returns."""

from dataclasses import dataclass, field

from mapping.problem import TileShape
from simulator.nm_tile import NMSetting
from simulator.schedule import Schedule
from workloads.canonical import Spec

__all__ = ["MapperResult", "Mapping", "NoMapping"]


class NoMapping(ValueError):
    """No legal mapping exists: the message names the operator, the buffer, its need and size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping(Spec):
    """The choice for one operator: array setting and tile, and what it costs.

    cycles are of one execution and exact; `bound` is a lower bound proved over the space and
    `considered` the number of legal candidates looked at. `packed` counts the convolution groups
    that share one block-diagonal product (see `Problem.packed`).
    """

    op: str
    setting: NMSetting
    shape: TileShape
    cycles: int
    bound: int
    considered: int
    packed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperResult(Spec):
    """A mapped workload: its schedule, the choice per GEMM, and the proof's figures.

    cost and bound are cycles of the whole run; gap = (cost - bound) / cost.
    """

    schedule: Schedule
    mappings: tuple[Mapping, ...]
    mapper: str
    cost: int
    bound: int
    considered: int
    seconds: float = field(compare=False)

    @property
    def gap(self) -> float:
        """Relative distance between cost and bound; 0 when optimality is proved."""
        return (self.cost - self.bound) / self.cost if self.cost else 0.0
