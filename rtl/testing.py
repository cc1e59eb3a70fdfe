"""Pairs of a software model and its RTL, and the explicit list that co-simulation checks.

A new structural point is one line of PAIRS.
"""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from rtl.export import UnitParams
from rtl.pe_grid.testing import bare_grid
from simulator.arch import BufferParams, DramParams, NMArray, Precision
from simulator.arch.delta import DeltaParams
from simulator.arch.dequantiser import DequantiserParams
from simulator.arch.dsp_cells import ChainParams, DspSlice, MpeParams
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.pe_grid import PEGrid
from simulator.arch.sore import SoreFormat, SoreParams
from simulator.arch.special import SpecialParams
from simulator.arch.wuve import WuveParams

__all__ = ["PAIRS", "VERILATED", "VERILATED_LONG", "Pair", "bare_array", "bare_flex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One structural point: the same `params` give the model, the RTL and what drives both.

    `rtl.export` builds the RTL of the parameters, `rtl.cosim.points` the rest.
    """

    params: UnitParams

    def __str__(self) -> str:
        """Return the structural parameters in short, as a test's name."""
        match self.params:
            case NMArray() as array:
                return _array_name(array)
            case SoreParams(lanes=lanes, max_n=n, max_m=m, value=value):
                return f"sore-{lanes}x{n}of{m}-{value}"
            case WuveParams(lanes=lanes, adder_latency=adder, multiplier_latency=multiplier):
                return f"wuve-{lanes}-add{adder}-mul{multiplier}"
            case PEGrid() as grid:
                return _grid_name(grid)
            case DeltaParams(grid=grid):
                return f"delta-w{grid.chunk}-{grid.delta_chunks}chunks"
            case FlexDpe(dpes=dpes, dpe_size=size, loads_per_cycle=loads):
                return f"flex-{dpes}x{size}-load{loads}"
            case MpeParams(chain=chain, vpus=vpus, mpus=mpus):
                range_ = "" if chain.full_range else "-without-128"
                return f"mpe-{mpus}x{vpus}x{chain.stages}by{chain.group}-{chain.dsp}{range_}"
            case DequantiserParams(lanes=lanes):
                return f"dequantiser-{lanes}"
            case SpecialParams(lanes=lanes):
                return f"special-{lanes}"
            case _:
                assert_never(self.params)


def _array_name(p: NMArray) -> str:
    overlap = "-overlap" if p.overlap else ""
    if p.precision is Precision.INT8:
        return f"{p.rows}x{p.cols}-m{p.max_m}-q{p.macs_per_pe}{overlap}"
    return f"{p.rows}x{p.cols}-m{p.max_m}-fp16-l{p.adder_latency}-i{p.interleave}{overlap}"


def _grid_name(p: PEGrid) -> str:
    ahead = "-ahead" if p.look_ahead else ""
    size = f"{p.rows}x{p.cols}-w{p.chunk}-d{p.fifo_depth}-q{p.macs_per_pe}"
    return f"{size}-{p.skip}-{p.zero}{ahead}-drain{p.drain_rows}"


def bare_array(
    rows: int,
    cols: int,
    *,
    max_m: int = 1,
    macs_per_pe: int = 1,
    precision: Precision = Precision.INT8,
    adder_latency: int = 1,
    interleave: int = 1,
    overlap: bool = False,
) -> NMArray:
    """Return an array of the given structure; its memory system plays no part in the RTL."""
    buffer = BufferParams(capacity_bytes=1024)
    return NMArray(
        rows=rows,
        cols=cols,
        max_m=max_m,
        macs_per_pe=macs_per_pe,
        precision=precision,
        adder_latency=adder_latency,
        interleave=interleave,
        overlap=overlap,
        act_buffer=buffer,
        weight_buffer=buffer,
        out_buffer=buffer,
        dram=DramParams(bandwidth_bytes_per_s=1_000_000_000),
    )


def bare_flex(dpes: int, dpe_size: int, loads: int) -> FlexDpe:
    """Return engines of the given structure; their memory system plays no part in the RTL."""
    buffer = BufferParams(capacity_bytes=1024)
    return FlexDpe(
        dpes=dpes,
        dpe_size=dpe_size,
        loads_per_cycle=loads,
        precision=Precision.INT8,
        clock_hz=1_000_000_000,
        vector_lanes=1,
        act_buffer=buffer,
        weight_buffer=buffer,
        out_buffer=buffer,
        dram=DramParams(bandwidth_bytes_per_s=1_000_000_000),
    )


def _pair(rows: int, cols: int, max_m: int, macs_per_pe: int, *, overlap: bool = False) -> Pair:
    return Pair(
        params=bare_array(rows, cols, max_m=max_m, macs_per_pe=macs_per_pe, overlap=overlap)
    )


def _floats(
    rows: int, cols: int, max_m: int, latency: int, interleave: int, *, overlap: bool = False
) -> Pair:
    return Pair(
        params=bare_array(
            rows,
            cols,
            max_m=max_m,
            precision=Precision.FP16,
            adder_latency=latency,
            interleave=interleave,
            overlap=overlap,
        )
    )


def _sore(lanes: int, max_n: int, max_m: int, value: str) -> Pair:
    return Pair(params=SoreParams(lanes=lanes, max_n=max_n, max_m=max_m, value=SoreFormat(value)))


def _wuve(lanes: int, adder: int, multiplier: int) -> Pair:
    return Pair(params=WuveParams(lanes=lanes, adder_latency=adder, multiplier_latency=multiplier))


def _mpe(
    stages: int,
    group: int,
    load_groups: int,
    vpus: int,
    mpus: int,
    *,
    full_range: bool = True,
    dsp: DspSlice = DspSlice.DSP48E2,
) -> Pair:
    chain = ChainParams(
        stages=stages, group=group, load_groups=load_groups, full_range=full_range, dsp=dsp
    )
    return Pair(params=MpeParams(chain=chain, vpus=vpus, mpus=mpus, depth=4))


def _delta(chunk: int, chunks: int) -> Pair:
    return Pair(params=DeltaParams(grid=replace(bare_grid(1, 1, chunk), delta_chunks=chunks)))


PAIRS: Final = (
    _pair(1, 1, 1, 1),
    _pair(1, 1, 1, 1, overlap=True),
    _pair(1, 1, 4, 3, overlap=True),
    _pair(1, 2, 2, 1),
    _pair(2, 1, 2, 1, overlap=True),
    _pair(1, 4, 7, 7),
    _pair(4, 1, 5, 2),
    _pair(4, 1, 1, 1, overlap=True),
    _pair(1, 3, 3, 2, overlap=True),
    _pair(3, 1, 5, 3, overlap=True),
    _pair(2, 2, 1, 1),
    _pair(2, 2, 1, 1, overlap=True),
    _pair(2, 2, 4, 2),
    _pair(2, 2, 8, 3, overlap=True),
    _pair(2, 3, 6, 4),
    _pair(3, 2, 6, 4, overlap=True),
    _pair(2, 4, 3, 1),
    _pair(4, 2, 3, 2, overlap=True),
    _pair(3, 3, 4, 1),
    _pair(3, 3, 4, 4, overlap=True),
    _pair(3, 4, 2, 2),
    _pair(4, 3, 5, 1, overlap=True),
    _pair(4, 4, 1, 1),
    _pair(4, 4, 2, 1, overlap=True),
    _pair(4, 4, 4, 1),
    _pair(4, 4, 8, 2, overlap=True),
    _pair(2, 2, 16, 5),
    _floats(1, 1, 1, 1, 1),
    _floats(1, 1, 3, 3, 1, overlap=True),
    _floats(1, 2, 2, 1, 3, overlap=True),
    _floats(1, 1, 4, 2, 2),
    _floats(2, 1, 2, 2, 5),
    _floats(3, 1, 3, 1, 4),
    _floats(3, 1, 2, 4, 1, overlap=True),
    _floats(1, 3, 5, 3, 2),
    _floats(2, 2, 4, 2, 2, overlap=True),
    _floats(2, 2, 2, 3, 4),
    _floats(2, 2, 3, 4, 2, overlap=True),
    _floats(3, 2, 1, 1, 2, overlap=True),
    _sore(1, 1, 1, "fp16"),
    _sore(1, 4, 4, "int8"),
    _sore(2, 3, 7, "fp16"),
    _sore(3, 1, 8, "int8"),
    _sore(1, 16, 16, "fp16"),
    _sore(4, 2, 8, "fp16"),
    _sore(2, 5, 12, "int8"),
    _sore(1, 2, 64, "fp16"),
    _wuve(1, 1, 1),
    _wuve(2, 1, 3),
    _wuve(1, 4, 2),
    _wuve(1, 9, 5),
    _mpe(2, 2, 1, 1, 1),
    _mpe(4, 1, 2, 2, 2),
    _mpe(8, 4, 2, 1, 3, full_range=False),
    _mpe(12, 3, 4, 1, 1, dsp=DspSlice.DSP58),
    _mpe(16, 2, 2, 1, 1),
    _delta(1, 1),
    _delta(1, 5),
    _delta(3, 2),
    _delta(4, 3),
    _delta(8, 1),
    _delta(13, 2),
    _delta(16, 4),
    Pair(params=bare_flex(1, 1, 1)),
    Pair(params=bare_flex(2, 1, 1)),
    Pair(params=bare_flex(1, 2, 2)),
    Pair(params=bare_flex(1, 4, 2)),
    Pair(params=bare_flex(2, 2, 4)),
    Pair(params=bare_flex(1, 8, 1)),
    Pair(params=bare_flex(4, 2, 4)),
    Pair(params=bare_flex(2, 8, 8)),
    Pair(params=bare_flex(1, 16, 16)),
    Pair(params=DequantiserParams(lanes=1)),
    Pair(params=DequantiserParams(lanes=3)),
    Pair(params=DequantiserParams(lanes=8)),
    Pair(params=DequantiserParams(lanes=16)),
    Pair(params=SpecialParams(lanes=1)),
    Pair(params=SpecialParams(lanes=2)),
    Pair(params=SpecialParams(lanes=3)),
    Pair(params=SpecialParams(lanes=16)),
)
"""Structural points small enough for Amaranth's own simulator."""

VERILATED: Final = (
    _pair(3, 2, 5, 3, overlap=True),
    _pair(4, 4, 4, 2),
    _floats(2, 3, 4, 3, 4),
    _floats(1, 1, 7, 3, 5, overlap=True),
    _sore(5, 8, 16, "fp16"),
    _wuve(3, 4, 2),
    _mpe(16, 2, 4, 1, 2),
    _delta(4, 3),
    Pair(params=bare_flex(2, 4, 4)),
    Pair(params=DequantiserParams(lanes=5)),
    Pair(params=SpecialParams(lanes=3)),
)
"""Structural points whose exported Verilog is compiled and checked."""

VERILATED_LONG: Final = (
    _pair(1, 1, 1, 1),
    _pair(5, 3, 6, 6),
    _pair(8, 8, 8, 2, overlap=True),
    _floats(3, 3, 8, 4, 4, overlap=True),
)
"""Further ones, of the long profile: every one is a build of its own."""
