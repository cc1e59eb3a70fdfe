"""PEGrid: an R x C grid of PEs that consume bitmask-compressed chunks of the reduction axis."""

from dataclasses import dataclass
from enum import StrEnum

from simulator.arch.memory import BufferParams, DramParams, MemoryMode
from simulator.arch.nm_array import Precision
from workloads.canonical import Spec

__all__ = ["Balance", "PEGrid", "Skip", "ZeroAction"]

MAX_CHUNK = 64
"""Longest chunk: its bitmask is one 64-bit word of the timing model."""


class Skip(StrEnum):
    """Whose zeros cost a PE no time."""

    NONE = "none"
    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    BOTH = "both"


class ZeroAction(StrEnum):
    """What the multiplier does with a zero operand that is not skipped."""

    COMPUTE = "compute"
    GATE = "gate"


class Balance(StrEnum):
    """How output features are ordered over the columns before the run.

    `greedy` pairs features of similar non-zero count in one tile (see `units.pe_balance`).
    """

    NONE = "none"
    GREEDY = "greedy"


MOST_RTL_BITS = 65_000
"""Bits of all streams' chunks, each with its valid bit, of the largest grid with RTL.

Amaranth numbers the input bits of a design with 16 bits; the rest are for jobs and handshakes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PEGrid(Spec):
    """Parameters of the grid; timing, RTL, cost and legal mappings all read them here.

    Every PE computes one output of a tile. Chunks of `chunk` positions along the reduction reach
    it over its row (activations) and its column (weights) through two FIFOs of `fifo_depth`
    chunks. A chunk takes ceil(matches / macs_per_pe) cycles, matches being the positions that
    `skip` does not remove, and at least one cycle unless `look_ahead` lets the PE see past empty
    chunks. Results leave through shadow registers, `drain_rows` rows of the grid a cycle.

    With `delta_chunks` a row's chunks come from a `DeltaEncoder` with a state memory of so many
    chunks, which sends only the activations that changed since they were last sent.
    """

    rows: int
    cols: int
    chunk: int
    fifo_depth: int = 1
    macs_per_pe: int = 1
    skip: Skip = Skip.BOTH
    zero: ZeroAction = ZeroAction.GATE
    look_ahead: bool = False
    drain_rows: int = 1
    delta_chunks: int = 0
    balance: Balance = Balance.NONE
    precision: Precision = Precision.INT8
    clock_hz: int = 1_000_000_000
    vector_lanes: int = 1
    act_buffer: BufferParams
    weight_buffer: BufferParams
    out_buffer: BufferParams
    dram: DramParams
    memory: MemoryMode = MemoryMode.MODELLED

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "fifo_depth", "clock_hz", "vector_lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"PEGrid {name} must be at least 1, not {getattr(self, name)}")
        if not 1 <= self.chunk <= MAX_CHUNK:
            raise ValueError(f"PEGrid chunk must be 1 to {MAX_CHUNK}, not {self.chunk}")
        if not 1 <= self.macs_per_pe <= self.chunk:
            raise ValueError(
                f"PEGrid macs_per_pe must be 1 to chunk = {self.chunk}, not {self.macs_per_pe}"
            )
        if self.drain_rows < 1 or self.rows % self.drain_rows:
            raise ValueError(
                f"PEGrid drain_rows must divide rows = {self.rows}, not be {self.drain_rows}"
            )
        if self.delta_chunks < 0:
            raise ValueError(f"PEGrid delta_chunks must be at least 0, not {self.delta_chunks}")
        if self.delta_chunks and not self.skips_activations:
            raise ValueError(
                "PEGrid delta_chunks need skipping of activations: skip must be activations or "
                f"both, not {self.skip}"
            )
        if self.precision is not Precision.INT8:
            raise ValueError(f"PEGrid precision must be int8, not {self.precision}")

    @property
    def operand_bits(self) -> int:
        """Width of activations and weights."""
        return 8

    @property
    def acc_bits(self) -> int:
        """Width of accumulators, which wrap."""
        return 32

    @property
    def skips_activations(self) -> bool:
        """Whether positions without an activation take no time."""
        return self.skip in (Skip.ACTIVATIONS, Skip.BOTH)

    @property
    def skips_weights(self) -> bool:
        """Whether positions without a weight take no time."""
        return self.skip in (Skip.WEIGHTS, Skip.BOTH)

    @property
    def least_cycles(self) -> int:
        """Cycles of an empty chunk (e of the recurrence); a tile's last chunk always takes one."""
        return 0 if self.look_ahead else 1

    @property
    def most_cycles(self) -> int:
        """Cycles of a full chunk."""
        return -(-self.chunk // self.macs_per_pe)

    @property
    def drain_beats(self) -> int:
        """Result beats of a tile."""
        return self.rows // self.drain_rows

    @property
    def pes(self) -> int:
        """Number of processing elements."""
        return self.rows * self.cols

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products the whole grid can do in one cycle."""
        return self.pes * self.macs_per_pe

    @property
    def without_rtl(self) -> str | None:
        """Why no RTL is generated; None if it is."""
        bits = (self.rows + self.cols) * (self.chunk * (1 + self.operand_bits) + 1)
        if bits <= MOST_RTL_BITS:
            return None
        return (
            f"RTL of a PEGrid takes at most {MOST_RTL_BITS:,} bits of chunks a cycle; "
            f"{self.rows} rows and {self.cols} columns with chunks of {self.chunk} are {bits:,}"
        )
