"""Result: cycles, counted events and per-operator records of one simulation."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from simulator.arch import Accelerator
from simulator.arch.accelerator import seconds
from simulator.counts import Counts
from workloads.canonical import Spec, canonical

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GRID_STALLS", "OP_RECORD", "STALLS", "Provenance", "Result", "Totals"]

GRID_STALLS: Final = ("fifo", "imbalance", "vacant")
"""Causes for which the PEs of a grid wait, on average: their FIFOs hold no pair of chunks, they
are done with their tile before others, they pass a chunk with nothing to multiply."""

STALLS: Final = ("bandwidth", "latency", "store", "pipeline", "vector", *GRID_STALLS)
"""Causes for which the array waits: operand transfers, DRAM latency, write-back of results,
its own fill, drain and operand load, work of the other units (vector, SORE, WUVE), and those of
a grid. `compute` and these sum to the cycles of every operator."""

OP_RECORD: Final = np.dtype(
    [
        ("name", "U96"),
        ("kind", "U16"),
        ("phase", "U8"),  # of a training step: ff, bp, wu, update, select
        ("cycles", "i8"),  # all executions
        ("macs_dense", "i8"),
        ("macs_effectual", "i8"),
        ("macs_weight", "i8"),  # products whose weight is not zero
        ("macs_act", "i8"),  # products whose activation is not zero, if the machine looks at it
        ("array_busy", "i8"),  # cycles in which a fold streams through some PE, or one multiplies
        ("array_cycles", "i8"),
        ("dma_cycles", "i8"),
        ("vector_cycles", "i8"),
        *((f"stall_{cause}", "i8") for cause in STALLS),
        ("dram_read_bytes", "i8"),
        ("dram_write_bytes", "i8"),
        ("utilisation", "f8"),
        ("bottleneck", "U16"),
        ("dataflow", "U4"),
        ("nm", "U24"),
        ("tile", "U48"),
    ]
)
"""Fields of `Result.per_op`; cycles and counts are totals over an operator's executions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance(Spec):
    """Where a result comes from."""

    workload_digest: str
    arch_digest: str
    schedule_digest: str
    seed: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A simulated workload in sums only: cycles, events, effectual products and memory traffic."""

    arch: Accelerator
    cycles: int
    counts: Counts
    macs_effectual: int
    dram_bytes: int

    @property
    def seconds(self) -> float:
        """Run time at the machine's clock."""
        return seconds(self.arch, self.cycles)

    @property
    def utilisation(self) -> float:
        """Effectual MACs over what all multipliers could do in the run; never above 1."""
        return self.macs_effectual / (self.arch.peak_macs_per_cycle * max(self.cycles, 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result(Spec):
    """One simulated workload. Compared by digest.

    cycles is the whole run, seconds cycles over the clock. per_op has dtype OP_RECORD and sums
    to cycles; counts sums over operators. notes are sentences for the reader, detail figures that
    only some machines have.
    """

    workload: str
    sparsity: str
    arch: Accelerator
    cycles: int
    counts: Counts
    per_op: NDArray[np.void]
    notes: tuple[str, ...] = ()
    provenance: Provenance
    detail: dict[str, Any] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return int(self.digest()[:15], 16)

    @property
    def seconds(self) -> float:
        """Run time at the machine's clock."""
        return seconds(self.arch, self.cycles)

    @property
    def macs_dense(self) -> int:
        """Multiply-accumulates of the dense workload."""
        return int(self.per_op["macs_dense"].sum())

    @property
    def macs_effectual(self) -> int:
        """Multiply-accumulates whose weight is not zero, nor an activation the machine knows is."""
        return int(self.per_op["macs_effectual"].sum())

    @property
    def macs_weight(self) -> int:
        """Multiply-accumulates whose weight is not zero."""
        return int(self.per_op["macs_weight"].sum())

    @property
    def macs_act(self) -> int:
        """Multiply-accumulates whose activation is not zero, of machines that look at it."""
        return int(self.per_op["macs_act"].sum())

    @property
    def array_busy(self) -> int:
        """Cycles in which the stream of a fold stands at some PE, or a PE of a grid multiplies."""
        return int(self.per_op["array_busy"].sum())

    @property
    def utilisation(self) -> float:
        """Effectual MACs over what all multipliers could do in the run; never above 1."""
        return self.macs_effectual / (self.arch.peak_macs_per_cycle * max(self.cycles, 1))

    def totals(self) -> Totals:
        """Return the sums of this result."""
        moved = self.per_op["dram_read_bytes"] + self.per_op["dram_write_bytes"]
        return Totals(
            arch=self.arch,
            cycles=self.cycles,
            counts=self.counts,
            macs_effectual=self.macs_effectual,
            dram_bytes=int(moved.sum()),
        )

    def bottlenecks(self) -> list[tuple[str, int, float]]:
        """Return (cause, cycles, share) over the whole run, largest first.

        `compute` is array time in which a fold streams through PEs, or in which those of a grid
        multiply on average; the others are the array's waits by cause. Waits that only a grid
        knows are left out where there are none.
        """
        waits = {cause: int(self.per_op[f"stall_{cause}"].sum()) for cause in STALLS}
        rows = [("compute", self.cycles - sum(waits.values()))]
        rows += [(c, n) for c, n in waits.items() if n or c not in GRID_STALLS]
        ordered = sorted(rows, key=lambda row: (-row[1], row[0]))
        return [(cause, n, n / max(self.cycles, 1)) for cause, n in ordered]

    def to_dataframe(self) -> "pd.DataFrame":
        """Return per_op as a pandas frame, one row an operator."""
        import pandas as pd

        return pd.DataFrame(self.per_op)

    def to_json(self) -> dict[str, Any]:
        """Return a plain JSON object: totals, operators, counts, notes and provenance."""
        names = self.per_op.dtype.names or ()
        return {
            "workload": self.workload,
            "sparsity": self.sparsity,
            "arch": canonical(self.arch),
            "cycles": self.cycles,
            "seconds": self.seconds,
            "macs_dense": self.macs_dense,
            "macs_effectual": self.macs_effectual,
            "macs_weight": self.macs_weight,
            "macs_act": self.macs_act,
            "array_busy": self.array_busy,
            "utilisation": self.utilisation,
            "bottleneck": self.bottlenecks()[0][0],
            "ops": [{name: row[name].item() for name in names} for row in self.per_op],
            "counts": [[*key, value] for key, value in self.counts.items()],
            "notes": list(self.notes),
            "digests": canonical(self.provenance),
        }
