"""Jobs of the FlexDpe array: passes of non-zeros that stay while vectors stream past them."""

from dataclasses import dataclass

from simulator.arch.flex_dpe import FlexDpe
from workloads.canonical import Spec

__all__ = ["FlexJob"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexJob(Spec):
    """One pass: `nonzeros` stationary values past which `vectors` vectors stream.

    The multipliers are a ring: the values stay on multipliers `start`, `start` + 1 ... A load
    beat brings the values of `loads_per_cycle` neighbours, so the beat in which the last job's
    values ended already holds the first ones of a job that starts inside it. `drain` empties the
    tree before the next job.
    """

    arch: FlexDpe
    start: int
    nonzeros: int
    vectors: int
    drain: bool

    def __post_init__(self) -> None:
        if self.arch.without_rtl:
            raise ValueError(self.arch.without_rtl)
        most = self.arch.peak_macs_per_cycle
        if not 0 <= self.start < most:
            raise ValueError(f"A FlexJob starts at multiplier 0 to {most - 1}, not {self.start}")
        if not 1 <= self.nonzeros <= most:
            raise ValueError(f"A FlexJob keeps 1 to {most} non-zeros, not {self.nonzeros}")
        if self.vectors < 1:
            raise ValueError(f"A FlexJob streams at least 1 vector, not {self.vectors}")

    @property
    def held(self) -> int:
        """Values that an earlier job's last beat may have brought."""
        return -self.start % self.arch.loads_per_cycle

    @property
    def loads(self) -> int:
        """Load beats."""
        return -(-max(self.nonzeros - self.held, 0) // self.arch.loads_per_cycle)

    @property
    def slots(self) -> int:
        """Slots until the next job: loads, vectors, and levels of the tree if it drains."""
        return self.loads + self.vectors + self.drain * self.arch.tree_depth
