"""What an operator's program was lowered from: enough to lay it out in a machine's memory.

A program says when units work; a plan says on what. Tensors are called by their role, so that
operators of equal shape share one program and one plan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from simulator.nm_tile import NMSetting
from workloads.canonical import Spec
from workloads.graph import Gemm, Window, WindowUse

__all__ = ["Chunk", "Flow", "GemmPlan", "Stream", "StreamPlan", "Unit"]


class Unit(StrEnum):
    """In-order units of a machine."""

    DMA = "dma"
    ARRAY = "array"
    VECTOR = "vector"
    SORE = "sore"
    WUVE = "wuve"
    DRAIN = "drain"  # results on their way from the PEs to the output buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmPlan(Spec):
    """One product, cut in tiles of `units` x (`m`, `k`, `n`); loops run in `order`, then over k.

    `depth` gives the innermost loop that changes an operand's tile, -1 if none does. With `saved`
    the results are combined with a tensor of their own shape on the way out, and `select` says
    that the weights are compressed as they are loaded.
    """

    gemm: Gemm
    window: Window | None
    window_use: WindowUse
    setting: NMSetting
    units: int
    m: int
    k: int
    n: int
    order: str
    depth: Mapping[str, int] = field(default_factory=dict, hash=False)
    saved: bool = False
    select: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(Spec):
    """A tensor read or written whole, once: `granule_bits` with every granule of its stream.

    What the granules leave of `bits` is read with the first and written with the last of them: a
    vector that all need, or that sums over all.
    """

    role: str
    granule_bits: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Spec):
    """An operator that takes its data through `unit` once, in whole granules.

    A granule is the least that can be worked on alone: an element, a softmax row, M rows of a
    weight. `ops` are element operations of the vector unit, elements of WUVE, or whole groups of
    `group` values of which SORE keeps `kept`; `latency` comes on top of the unit's own. Tensors
    whose roles are `resident` lie in the activation buffer and do not move.
    """

    reads: tuple[Flow, ...]
    writes: tuple[Flow, ...]
    granules: int
    ops: int
    unit: Unit = Unit.VECTOR
    kept: int = 1
    group: int = 1
    latency: int = 0
    resident: tuple[str, ...] = ()

    @property
    def loads(self) -> tuple[Flow, ...]:
        """Tensors that come from memory."""
        return tuple(flow for flow in self.reads if flow.role not in self.resident)

    @property
    def stores(self) -> tuple[Flow, ...]:
        """Tensors that go to memory."""
        return tuple(flow for flow in self.writes if flow.role not in self.resident)

    @property
    def ops_per_granule(self) -> int:
        """Operations of every granule; the last one takes what is left over."""
        return self.ops // self.granules


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk(Spec):
    """`granules` of a stream from number `start` on."""

    stream: Stream
    start: int
    granules: int

    @property
    def reads(self) -> tuple[int, ...]:
        """Bits of each tensor in."""
        return tuple(map(self.read, self.stream.reads))

    @property
    def writes(self) -> tuple[int, ...]:
        """Bits of each tensor out."""
        return tuple(map(self.written, self.stream.writes))

    def read(self, flow: Flow) -> int:
        """Return the bits read of one tensor."""
        return self.granules * flow.granule_bits + (0 if self.start else self._rest(flow))

    def written(self, flow: Flow) -> int:
        """Return the bits written of one tensor."""
        return self.granules * flow.granule_bits + (self._rest(flow) if self._is_last else 0)

    @property
    def ops(self) -> int:
        """Operations of the chunk."""
        each, s = self.stream.ops_per_granule, self.stream
        return self.granules * each + (s.ops - s.granules * each if self._is_last else 0)

    @property
    def _is_last(self) -> bool:
        return self.start + self.granules == self.stream.granules

    def _rest(self, flow: Flow) -> int:
        return flow.bits - self.stream.granules * flow.granule_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan(Spec):
    """A stream cut into `chunks` of `granules` each; the last takes what is left over."""

    stream: Stream
    granules: int
    chunks: int

    def chunk(self, index: int) -> Chunk:
        """Return chunk number `index`."""
        start = index * self.granules
        last = index == self.chunks - 1
        size = self.stream.granules - start if last else self.granules
        return Chunk(stream=self.stream, start=start, granules=size)

    def all(self) -> Iterator[Chunk]:
        """Yield every chunk in order."""
        return map(self.chunk, range(self.chunks))
