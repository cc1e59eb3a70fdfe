"""ArrayJob: one run of the NMArray's controller, and its exact slot schedule.

The array moves in *slots*. In a slot without a stall every PE, skew register and counter
advances by one; when an operand beat is missing or an output beat is refused the whole array
holds, so cycles = slots + stalled cycles. Everything about a job's slots is closed form and
stands here, read by the timing model, the handshake model and the RTL controller alike.

Slot 0 accepts the first operand. A fold's stream starts at slot `start(f)`; PE (r, c) works on
stream slot j of that fold in slot `start(f) + j + r + c`.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.arch.nm_array import Dataflow, NMArray
from workloads.canonical import Spec

__all__ = ["ArrayJob", "fold_interval", "load_slots"]

IntLike = TypeVar("IntLike", int, NDArray[np.int64])


def load_slots(arch: NMArray, dataflow: Dataflow, kept: int, group: int) -> int:
    """Return the slots to load one fold's stationary operand, one value per column and slot."""
    match dataflow:
        case Dataflow.OS:
            return 0
        case Dataflow.WS:
            return arch.rows * kept
        case Dataflow.IS:
            return arch.rows * group


def fold_interval(arch: NMArray, dataflow: Dataflow, load: int, stream: IntLike) -> IntLike:
    """Return the slots from one fold's stream start to the next one's, for any stream length.

    Overlapped, OS is held to R slots by the drain chain, and the next stationary operand of WS
    and IS can only be shifted in once the previous swap has passed all R rows.
    """
    if not arch.overlap:
        return load + stream + arch.rows + arch.cols - 2
    least = arch.rows if dataflow is Dataflow.OS else arch.rows + load
    return np.maximum(stream, least) if isinstance(stream, np.ndarray) else max(stream, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayJob(Spec):
    """`folds` equal folds run back to back on `arch`.

    `kept` (N) values are kept of every `group` (M) positions of the reduction; dense is N = M.
    `length` counts groups along the reduction for OS and streamed vectors for WS and IS.
    """

    arch: NMArray
    dataflow: Dataflow
    kept: int
    group: int
    length: int
    folds: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.group <= self.arch.max_m:
            raise ValueError(
                f"Group length M must be 1 to {self.arch.max_m} on this array, not {self.group}"
            )
        if not 1 <= self.kept <= self.group:
            raise ValueError(f"Kept values N must be 1 to M = {self.group}, not {self.kept}")
        if self.length < 1 or self.folds < 1:
            raise ValueError(
                f"A job needs length and folds of at least 1, not {self.length} and {self.folds}"
            )

    @property
    def slots_per_group(self) -> int:
        """Slots a PE needs for one group: g = ceil(N / macs_per_pe)."""
        return -(-self.kept // self.arch.macs_per_pe)

    @property
    def load_slots(self) -> int:
        """Slots to load one fold's stationary operand."""
        return load_slots(self.arch, self.dataflow, self.kept, self.group)

    @property
    def stream_slots(self) -> int:
        """Slots in which PE (0, 0) multiplies during one fold."""
        return self.slots_per_group * self.length

    @property
    def skew_slots(self) -> int:
        """Slots from the first PE's work to the last PE's same work: R + C - 2."""
        return self.arch.rows + self.arch.cols - 2

    @property
    def interval(self) -> int:
        """Slots from one fold's stream start to the next one's."""
        return fold_interval(self.arch, self.dataflow, self.load_slots, self.stream_slots)

    @property
    def slots(self) -> int:
        """Slots from the first operand accepted to the last accumulator final."""
        first = self.load_slots + self.stream_slots + self.skew_slots
        return first + (self.folds - 1) * self.interval

    @property
    def drain_slots(self) -> int:
        """Slots after `slots` until the last result beat has been presented."""
        return self.arch.rows if self.dataflow is Dataflow.OS else 1

    @property
    def busy_slots(self) -> int:
        """Slots in which some PE multiplies (`array_busy`)."""
        work = self.stream_slots + self.skew_slots
        return work + (self.folds - 1) * min(self.interval, work)

    @property
    def mac_slots(self) -> int:
        """Multiplier uses offered by the PEs at work, effectual and gated together."""
        return self.folds * self.arch.peak_macs_per_cycle * self.stream_slots

    def start(self, fold: int) -> int:
        """Return the slot in which fold `fold`'s stream starts."""
        return self.load_slots + fold * self.interval

    def load_start(self, fold: int) -> int:
        """Return the slot of the first load beat of `fold`: as early as the array allows."""
        if fold == 0:
            return 0
        if self.arch.overlap:
            return self.start(fold - 1) + self.arch.rows
        return self.start(fold) - self.load_slots
