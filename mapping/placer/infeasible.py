"""Why there is no placement: which resource, what it would need, what the limit is."""

from dataclasses import dataclass

from workloads.canonical import Spec

__all__ = ["InfeasiblePlacement", "Shortage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage(Spec):
    """A limit that cannot be kept: `demand` is the least that has to go over `limit`."""

    resource: str
    demand: int
    limit: int

    @property
    def gap(self) -> int:
        """How much is missing."""
        return self.demand - self.limit

    def __str__(self) -> str:
        """Return the shortage as a clause."""
        return f"{self.resource}: needs {self.demand:,}, has {self.limit:,}, {self.gap:,} too few"


class InfeasiblePlacement(ValueError):
    """No placement exists; `report` holds the shortages, the likeliest cause first."""

    def __init__(self, problem: str, device: str, report: tuple[Shortage, ...]) -> None:
        self.report = report
        causes = "; or ".join(map(str, report)) or "its limits contradict each other"
        super().__init__(f"{problem} does not fit on {device}: {causes}")
