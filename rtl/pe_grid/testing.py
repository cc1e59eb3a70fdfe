"""The structural points of the PEGrid that co-simulation checks."""

from typing import Final

from simulator.arch import BufferParams, DramParams
from simulator.arch.pe_grid import PEGrid, Skip, ZeroAction

__all__ = ["PAIRS", "VERILATED", "bare_grid"]


def bare_grid(
    rows: int,
    cols: int,
    chunk: int,
    *,
    depth: int = 1,
    macs: int = 1,
    skip: Skip = Skip.BOTH,
    zero: ZeroAction = ZeroAction.GATE,
    look_ahead: bool = False,
    drain_rows: int = 1,
) -> PEGrid:
    """Return a grid of the given structure; its memory system plays no part in the RTL."""
    buffer = BufferParams(capacity_bytes=1024)
    return PEGrid(
        rows=rows,
        cols=cols,
        chunk=chunk,
        fifo_depth=depth,
        macs_per_pe=macs,
        skip=skip,
        zero=zero,
        look_ahead=look_ahead,
        drain_rows=drain_rows,
        act_buffer=buffer,
        weight_buffer=buffer,
        out_buffer=buffer,
        dram=DramParams(bandwidth_bytes_per_s=1_000_000_000),
    )


_NONE, _WEIGHTS, _ACTS, _COMPUTE = Skip.NONE, Skip.WEIGHTS, Skip.ACTIVATIONS, ZeroAction.COMPUTE

PAIRS: Final = (
    bare_grid(1, 1, 1),
    bare_grid(1, 1, 1, look_ahead=True, depth=3),
    bare_grid(1, 1, 4, depth=2, macs=2, skip=_NONE),
    bare_grid(1, 1, 16, depth=4, look_ahead=True),
    bare_grid(1, 1, 8, depth=20),
    bare_grid(1, 2, 2, skip=_WEIGHTS),
    bare_grid(1, 3, 5, depth=2, macs=3, look_ahead=True),
    bare_grid(2, 1, 3, depth=3, skip=_ACTS, zero=_COMPUTE),
    bare_grid(3, 1, 7, macs=2, look_ahead=True, drain_rows=3),
    bare_grid(2, 2, 1, depth=2, look_ahead=True),
    bare_grid(2, 2, 2),
    bare_grid(2, 2, 4, depth=1),
    bare_grid(2, 2, 4, depth=2, macs=1, skip=_WEIGHTS, look_ahead=True),
    bare_grid(2, 2, 4, depth=3, macs=3, skip=_ACTS),
    bare_grid(2, 2, 6, depth=2, macs=2, skip=_NONE, zero=_COMPUTE),
    bare_grid(2, 2, 8, depth=4, macs=2, look_ahead=True, drain_rows=2),
    bare_grid(2, 3, 3, depth=1, look_ahead=True),
    bare_grid(2, 3, 16, depth=2, macs=3),
    bare_grid(3, 2, 4, depth=16, look_ahead=True),
    bare_grid(3, 2, 8, depth=1, skip=_WEIGHTS, zero=_COMPUTE),
    bare_grid(3, 3, 2, depth=2, skip=_ACTS, look_ahead=True),
    bare_grid(3, 3, 4, depth=1),
    bare_grid(3, 3, 5, depth=3, macs=2),
    bare_grid(3, 3, 4, depth=2, look_ahead=True),
    bare_grid(4, 1, 3, depth=2, drain_rows=2),
)
"""Structural points small enough for Amaranth's own simulator."""

VERILATED: Final = (
    bare_grid(2, 3, 12, depth=3, macs=2, look_ahead=True),
    bare_grid(4, 3, 8, depth=2, drain_rows=2),
)
"""Structural points whose exported Verilog is compiled and checked."""
