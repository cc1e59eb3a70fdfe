"""What a PEGrid takes: PEs with their FIFOs, edges, drain, counters and delta encoders.

The multipliers of its int8 PEs are DSP slices, one each, as Yosys infers them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cost_models.fpga.parts import LANES, VECTOR_UNIT, FpgaResources, buffers, smallest
from simulator.arch import PEGrid
from simulator.arch.pe_grid import Skip

__all__ = ["CONTROL", "DELTA", "EDGE", "MONITOR", "core", "element", "encoder", "fifo", "resources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """A PE but for its FIFOs that was synthesised: what it does at most, and what it takes.

    seen: pairs of chunks it compares in one cycle, more than one with look-ahead.
    """

    chunk: int
    takes: FpgaResources
    skip: Skip = Skip.BOTH
    macs: int = 1
    seen: int = 1

    def does(self, grid: PEGrid) -> bool:
        """Whether it can do what a PE of `grid` does."""
        return (
            self.chunk >= grid.chunk
            and (self.skip is Skip.BOTH or grid.skip in (self.skip, Skip.NONE))
            and self.macs == grid.macs_per_pe
            and self.seen >= _seen(grid)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fifo:
    """LUTs of a FIFO that was synthesised: of every bit of a chunk, and of its control."""

    depth: int
    bit: int
    control: int
    seen: int = 1


def _bodies(*luts: int, skip: Skip = Skip.BOTH, macs: int = 1, seen: int = 1) -> Iterator[_Body]:
    """Return the bodies of chunks of 8, 16, 32 and 64."""
    return (
        _Body(
            chunk=chunk,
            takes=FpgaResources(lut=lut, ff=BODY_FFS[chunk], dsp=macs),
            skip=skip,
            macs=macs,
            seen=seen,
        )
        for chunk, lut in zip(BODY_FFS, luts, strict=True)
    )


BODY_FFS: Final = {8: 219, 16: 371, 32: 675, 64: 1283}
"""Flip-flops of a body by its chunk, whatever else it does."""

_BODIES: Final = (
    *_bodies(593, 971, 1391, 2253, skip=Skip.NONE),
    *_bodies(335, 791, 2434, 2373, skip=Skip.WEIGHTS),
    *_bodies(335, 784, 2392, 2773, skip=Skip.ACTIVATIONS),
    *_bodies(401, 574, 1248, 2955),
    *_bodies(611, 857, 2019, 4426, macs=2),
    *_bodies(1002, 1262, 3008, 4681, macs=4),
    *_bodies(1006, 1074, 1687, 2169, seen=2),
    *_bodies(1550, 1603, 2095, 5010, seen=4),
)
"""Synthesised bodies (benchmarks/resources.py). The optimiser takes up to twice the LUTs for one of
two alike, so what does more may be smaller; then it is what counts."""

_FIFOS: Final = (
    _Fifo(depth=1, bit=0, control=2),
    _Fifo(depth=2, bit=1, control=3),
    _Fifo(depth=2, bit=2, control=3, seen=2),
    _Fifo(depth=4, bit=1, control=5),
    _Fifo(depth=4, bit=4, control=7, seen=4),
    _Fifo(depth=8, bit=3, control=6),
    _Fifo(depth=8, bit=20, control=12, seen=8),
)
"""Synthesised FIFOs of 145 bits; of 73, 289 and 577 bits they are the same for a bit."""

EDGE: Final = {
    8: FpgaResources(lut=251, ff=32),
    16: FpgaResources(lut=691, ff=32),
    32: FpgaResources(lut=3021, ff=32),
    64: FpgaResources(lut=12998, ff=32),
}
"""The edge of a row or column, its decoder included, by chunk."""

MONITOR: Final = FpgaResources(lut=34)
CONTROL: Final = FpgaResources(lut=14, ff=871)
"""What counters and drain take of every PE, and all else: the largest of 2 x 2, 8 x 2, 2 x 8 and
8 x 8."""

DELTA: Final = {
    (8, 16): FpgaResources(lut=757, ff=252),
    (16, 16): FpgaResources(lut=3227, ff=324),
    (32, 16): FpgaResources(lut=11486, ff=468),
    (64, 16): FpgaResources(lut=46342, ff=756),
    (16, 64): FpgaResources(lut=3313, ff=328),
    (16, 256): FpgaResources(lut=3663, ff=332),
}
"""A delta encoder by chunk and delta_chunks."""


def resources(grid: PEGrid) -> FpgaResources:
    """Return what the machine takes; raises ValueError for parts larger than any synthesised."""
    found = (
        core(grid)
        + VECTOR_UNIT.times(grid.vector_lanes, LANES)
        + buffers(grid.act_buffer, grid.weight_buffer, grid.out_buffer)
    )
    return found + encoder(grid).times(grid.rows) if grid.delta_chunks else found


def core(grid: PEGrid) -> FpgaResources:
    """Return what `rtl.pe_grid.PEGridCore` takes."""
    return (
        (element(grid) + MONITOR).times(grid.pes)
        + edge(grid).times(grid.rows + grid.cols)
        + CONTROL
    )


def element(grid: PEGrid) -> FpgaResources:
    """Return what a PE takes with its two FIFOs."""
    part = (
        f"PE with chunk {grid.chunk}, macs_per_pe {grid.macs_per_pe} and {_seen(grid)} chunks seen"
    )
    return smallest((body.takes for body in _BODIES if body.does(grid)), part) + fifo(grid).times(2)


def fifo(grid: PEGrid) -> FpgaResources:
    """Return what a FIFO takes: registers for every chunk, and LUTs to read the oldest."""
    bits = grid.chunk * (grid.operand_bits + 1) + 1
    able = (
        FpgaResources(
            lut=each.bit * bits + each.control,
            ff=grid.fifo_depth * bits + grid.fifo_depth.bit_length(),
        )
        for each in _FIFOS
        if each.depth >= grid.fifo_depth and each.seen >= _seen(grid)
    )
    return smallest(able, f"FIFO with fifo_depth {grid.fifo_depth} and {_seen(grid)} chunks seen")


def edge(grid: PEGrid) -> FpgaResources:
    """Return what the edge of a row or of a column takes."""
    able = (takes for chunk, takes in EDGE.items() if chunk >= grid.chunk)
    return smallest(able, f"edge with chunk {grid.chunk}")


def encoder(grid: PEGrid) -> FpgaResources:
    """Return what the delta encoder of a row takes."""
    able = (
        takes
        for (chunk, depth), takes in DELTA.items()
        if chunk >= grid.chunk and depth >= grid.delta_chunks
    )
    return smallest(
        able, f"delta encoder with chunk {grid.chunk} and delta_chunks {grid.delta_chunks}"
    )


def _seen(grid: PEGrid) -> int:
    return grid.fifo_depth if grid.look_ahead else 1
