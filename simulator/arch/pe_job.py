"""GridJob: one run of the PEGrid's controller.

A tile is one output of every PE: `chunks` chunks reach every row and every column. Tiles follow
each other at a barrier, the cycle in which the last PE finishes its last chunk and the shadow
registers are free, or become free in that very cycle. At the barrier all accumulators move to
the shadow registers and drain from the next cycle on. The barrier cycle is also the first one in
which chunks of the next tile are accepted: that one cycle of fill is all that consecutive tiles
overlap, beside the drain.
"""

from dataclasses import dataclass

from simulator.arch.pe_grid import PEGrid
from workloads.canonical import Spec

__all__ = ["GridJob"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridJob(Spec):
    """`tiles` tiles of `chunks` chunks each, run back to back on `arch`.

    With `accumulate` every tile's sums go on from those of the tile before, whichever job that
    belonged to (zero after reset): tiles are then frames of the same outputs.
    """

    arch: PEGrid
    chunks: int
    tiles: int = 1
    accumulate: bool = False

    def __post_init__(self) -> None:
        if self.chunks < 1 or self.tiles < 1:
            raise ValueError(
                f"A grid job needs chunks and tiles of at least 1, not {self.chunks} "
                f"and {self.tiles}"
            )

    @property
    def beats(self) -> int:
        """Chunks that every row and every column accepts."""
        return self.chunks * self.tiles

    @property
    def out_beats(self) -> int:
        """Result beats that leave."""
        return self.tiles * self.arch.drain_beats

    @property
    def most_cycles(self) -> int:
        """Cycles that the job can never exceed while no stream stalls, its last drain included."""
        tile = 1 + self.chunks * self.arch.most_cycles
        return self.tiles * max(tile, self.arch.drain_beats) + self.arch.drain_beats
