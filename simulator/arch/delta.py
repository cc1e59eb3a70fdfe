"""Temporal difference encoder in front of a PEGrid row: parameters and jobs.

The encoder keeps, in its state memory, what the PEs have seen of every activation. Of a new frame
it sends the differences larger than a threshold and adds what it sends to the state. Differences
are sent as int8: a larger one is clipped and the rest stays to be sent with a later frame. The
PEs' sums accumulate over frames, so after every frame they are the exact product of the state.
"""

from dataclasses import dataclass

from simulator.arch.pe_grid import PEGrid
from workloads.canonical import Spec

__all__ = ["MAX_THRESHOLD", "DeltaJob", "DeltaParams"]

MAX_THRESHOLD = 255
"""Largest difference of two int8 numbers: with this threshold nothing is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaParams(Spec):
    """The encoder in front of one row of `grid`."""

    grid: PEGrid

    def __post_init__(self) -> None:
        if not self.grid.delta_chunks:
            raise ValueError("A grid with delta_chunks = 0 has no delta encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaJob(Spec):
    """`frames` frames of `chunks` chunks, encoded back to back by one row's encoder of `arch`.

    Differences above `threshold` are sent. The state starts at zero, or with `resume` from what
    earlier jobs have left; a chunk that none of them wrote has no state to resume.
    """

    arch: PEGrid
    chunks: int
    frames: int = 1
    threshold: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.chunks <= self.arch.delta_chunks:
            raise ValueError(
                f"A frame must have 1 to delta_chunks = {self.arch.delta_chunks} chunks, "
                f"not {self.chunks}"
            )
        if self.frames < 1:
            raise ValueError(f"A delta job needs frames of at least 1, not {self.frames}")
        if not 0 <= self.threshold <= MAX_THRESHOLD:
            raise ValueError(f"Delta threshold must be 0 to {MAX_THRESHOLD}, not {self.threshold}")

    @property
    def beats(self) -> int:
        """Chunks taken, and chunks sent."""
        return self.chunks * self.frames
