"""ArrayJob: one run of the NMArray's controller, and its exact slot schedule.

The array moves in *slots*. In a slot without a stall every PE, skew register and counter
advances by one; when an operand beat is missing or an output beat is refused the whole array
holds, so cycles = slots + stalled cycles. Everything about a job's slots is closed form and
stands here, read by the timing model, the handshake model and the RTL controller alike.

Slot 0 accepts the first operand. A fold's stream starts at slot `start(f)`; PE (r, c) works on
stream slot j of that fold in slot `start(f) + j + r * hop + c`, hop being 1 for OS and the
adder's latency (1 for int8) for WS and IS.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.arch.nm_array import Dataflow, NMArray, Precision
from workloads.canonical import Spec

__all__ = [
    "ArrayJob",
    "drain_wait_slots",
    "fold_interval",
    "fold_rows",
    "load_slots",
    "overhead_slots",
    "row_hop",
    "skew_slots",
    "stream_slots",
    "sum_slots",
    "swap_slots",
    "tail_slots",
]

IntLike = TypeVar("IntLike", int, NDArray[np.int64])


def fold_rows(arch: NMArray) -> int:
    """Return the rows of m that an OS fold covers: every PE keeps I sums."""
    return arch.rows * arch.interleave


def load_slots(arch: NMArray, dataflow: Dataflow, kept: int, group: int) -> int:
    """Return the slots to load one fold's stationary operand, one value per column and slot."""
    match dataflow:
        case Dataflow.OS:
            return 0
        case Dataflow.WS:
            return arch.rows * kept
        case Dataflow.IS:
            return arch.rows * group


def stream_slots(arch: NMArray, dataflow: Dataflow, kept: int, length: IntLike) -> IntLike:
    """Return the slots in which PE (0, 0) is fed during one fold, for any length.

    Kept values run outermost and the I interleaved sums innermost; a sum takes its next product
    max(I, L) slots later. OS interleaves rows of m, so `length` groups take as many blocks; WS
    and IS interleave streamed vectors, so I of them share a block.
    """
    slots = -(-kept // arch.macs_per_pe) * arch.issue_slots
    if dataflow is Dataflow.OS:
        return slots * length
    return slots * -(-length // arch.interleave)


def row_hop(arch: NMArray, dataflow: Dataflow) -> int:
    """Return the slots from one row's work to the next one's: partial sums hop in L slots."""
    return 1 if dataflow is Dataflow.OS else arch.adder_latency


def skew_slots(arch: NMArray, dataflow: Dataflow) -> int:
    """Return the slots from the first PE's work to the last PE's same work."""
    return (arch.rows - 1) * row_hop(arch, dataflow) + arch.cols - 1


def sum_slots(arch: NMArray, dataflow: Dataflow) -> int:
    """Return the slots from a sum's last product to the sum standing on the PE's output.

    1 for int8. In fp16 the addition of that product takes L slots; WS and IS then add the passing
    partial sum in an adder of its own, L more.
    """
    if arch.precision is Precision.INT8:
        return 1
    return arch.adder_latency * (1 if dataflow is Dataflow.OS else 2)


def drain_wait_slots(arch: NMArray) -> int:
    """Return the slots an OS fold's end waits for its drain, 0 unless R and I are large.

    A fold drains R * I beats, and the first result of whatever follows may come as early as
    R + C - 2 + L slots after its start: it must find the drain chain free.
    """
    rows, cols = arch.rows, arch.cols
    return max(0, (rows - 1) * (arch.interleave - 1) - (cols - 1) - (arch.adder_latency - 1))


def tail_slots(arch: NMArray, dataflow: Dataflow) -> int:
    """Return the slots that follow a PE's last feeding slot until its sums are out of the way.

    0 for int8. The last of I products comes max(I, L) - I slots before the stream ends; once its
    sum is final, OS waits for the drain.
    """
    idle = arch.issue_slots - arch.interleave
    wait = drain_wait_slots(arch) if dataflow is Dataflow.OS else 0
    return sum_slots(arch, dataflow) - 1 - idle + wait


def overhead_slots(arch: NMArray, dataflow: Dataflow) -> int:
    """Return the slots a lone fold takes beside its load and its stream."""
    return skew_slots(arch, dataflow) + tail_slots(arch, dataflow)


def swap_slots(arch: NMArray, dataflow: Dataflow) -> int:
    """Return the slots from a fold's start until the swap of its operand has passed all rows."""
    return (arch.rows - 1) * row_hop(arch, dataflow) + 1


def fold_interval(arch: NMArray, dataflow: Dataflow, load: int, stream: IntLike) -> IntLike:
    """Return the slots from one fold's stream start to the next one's, for any stream length.

    Overlapped, OS is held to R * I slots by the drain chain, and the next stationary operand of
    WS and IS can only be shifted in once the previous swap has passed all rows.
    """
    if not arch.overlap:
        return load + stream + overhead_slots(arch, dataflow)
    held = fold_rows(arch) if dataflow is Dataflow.OS else swap_slots(arch, dataflow)
    least = held + load
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
        """Slots in which PE (0, 0) is fed during one fold."""
        return stream_slots(self.arch, self.dataflow, self.kept, self.length)

    @property
    def skew_slots(self) -> int:
        """Slots from the first PE's work to the last PE's same work."""
        return skew_slots(self.arch, self.dataflow)

    @property
    def tail_slots(self) -> int:
        """Slots from a PE's last feeding slot to the next job, the skew apart."""
        return tail_slots(self.arch, self.dataflow)

    @property
    def interval(self) -> int:
        """Slots from one fold's stream start to the next one's."""
        return fold_interval(self.arch, self.dataflow, self.load_slots, self.stream_slots)

    @property
    def slots(self) -> int:
        """Slots from the first operand accepted to the next job's first slot.

        The last sum is final by then; its beats may still have to leave (`drain_slots`).
        """
        first = self.load_slots + self.stream_slots + self.skew_slots + self.tail_slots
        return first + (self.folds - 1) * self.interval

    @property
    def drain_slots(self) -> int:
        """Slots after `slots` until the last result beat has been presented.

        The I sums of a PE become final one slot apart while the first ones already drain. WS and
        IS present a ragged last block earlier than that.
        """
        if self.dataflow is not Dataflow.OS:
            return 1
        beats = fold_rows(self.arch) - self.arch.interleave + 1
        return beats - drain_wait_slots(self.arch)

    @property
    def late_slots(self) -> int:
        """Slots after `slots` until this job's last result beat has left.

        `drain_slots`, or fewer: WS and IS present the vectors of a ragged last block earlier, by
        as many slots as it misses vectors.
        """
        if self.dataflow is Dataflow.OS:
            return self.drain_slots
        return max(0, self.drain_slots - (-self.length % self.arch.interleave))

    @property
    def busy_slots(self) -> int:
        """Slots in which a fold's stream stands at some PE (`array_busy`).

        With I < L they include the slots in which PEs wait for their adder; the multiplier uses
        (`mac_slots`) do not.
        """
        work = self.stream_slots + self.skew_slots
        return work + (self.folds - 1) * min(self.interval, work)

    @property
    def mac_slots(self) -> int:
        """Multiplier uses offered by the PEs at work, effectual and gated together."""
        sums = self.length * (self.arch.interleave if self.dataflow is Dataflow.OS else 1)
        return self.folds * self.arch.peak_macs_per_cycle * self.slots_per_group * sums

    def start(self, fold: int) -> int:
        """Return the slot in which fold `fold`'s stream starts."""
        return self.load_slots + fold * self.interval

    def load_start(self, fold: int) -> int:
        """Return the slot of the first load beat of `fold`: as early as the array allows."""
        if fold == 0:
            return 0
        if self.arch.overlap:
            return self.start(fold - 1) + swap_slots(self.arch, self.dataflow)
        return self.start(fold) - self.load_slots
