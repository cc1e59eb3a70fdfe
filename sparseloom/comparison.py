"""Comparison: several results of one workload beside the first of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from cost_models import HOROWITZ_45NM, EnergyTable, price
from simulator.result import Result
from workloads.canonical import Spec

__all__ = ["Compared", "Comparison", "compare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(Spec):
    """One result of a comparison; speedup and energy ratio are over the first one's."""

    workload: str
    sparsity: str
    cycles: int
    seconds: float
    energy_j: float
    utilisation: float
    speedup: float
    energy_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Spec):
    """Results beside the first; a ratio above 1 is better than the first."""

    rows: tuple[Compared, ...]

    @property
    def speedup(self) -> float:
        """Seconds of the first result over seconds of the last."""
        return self.rows[-1].speedup

    @property
    def energy_ratio(self) -> float:
        """Energy of the first result over energy of the last."""
        return self.rows[-1].energy_ratio

    def table(self) -> str:
        """Return the rows as an aligned text table."""
        head = ("workload", "sparsity", "cycles", "ms", "mJ", "utilisation", "speed-up", "energy")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(_aligned(line, widths) for line in lines)

    def __str__(self) -> str:
        return self.table()


def _cells(row: Compared) -> tuple[str, ...]:
    return (
        row.workload,
        row.sparsity,
        f"{row.cycles:,}",
        f"{row.seconds * 1e3:.3f}",
        f"{row.energy_j * 1e3:.3f}",
        f"{row.utilisation:.1%}",
        f"{row.speedup:.2f}x",
        f"{row.energy_ratio:.2f}x",
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    text = [
        cell.ljust(w) if i < 2 else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(text).rstrip()


def compare(results: Sequence[Result], *, table: EnergyTable = HOROWITZ_45NM) -> Comparison:
    """Return `results` beside the first of them, priced by `table`.

    Raises ValueError for no results at all.
    """
    if not results:
        raise ValueError("There is nothing to compare: give at least one result")
    energies = [price(result, table=table).energy_j for result in results]
    rows = [
        Compared(
            workload=result.workload,
            sparsity=result.sparsity,
            cycles=result.cycles,
            seconds=result.seconds,
            energy_j=energy,
            utilisation=result.utilisation,
            speedup=results[0].seconds / result.seconds,
            energy_ratio=energies[0] / energy,
        )
        for result, energy in zip(results, energies, strict=True)
    ]
    return Comparison(rows=tuple(rows))
