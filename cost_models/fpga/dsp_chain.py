"""What a DspChain takes: chains, accumulators, requantisers and the other units of its cores.

A slice of a chain is one DSP48E2: what `rtl.dsp_chain.dsp` describes is what the slice has inside,
so that module's adders and registers, which Yosys leaves in LUTs and flip-flops, are not counted.
Load and store units, the link between cores and the control of MM, of which there is no RTL, are
not in the figures.
"""

import math
from dataclasses import dataclass
from typing import Final

from cost_models.fpga.parts import FpgaResources, buffers, smallest
from simulator.arch import DspChain
from simulator.arch.dsp_cells import CANDIDATES, TOKENS, ChainParams, DspSlice, MpeParams

__all__ = [
    "CONTROL",
    "PRODUCT",
    "REQUANTISER",
    "core",
    "dequantiser",
    "dequantiser_lanes",
    "engine",
    "engine_params",
    "resources",
    "special",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """A chain that was synthesised, and what it takes beside its DSP slices."""

    stages: int
    group: int
    takes: FpgaResources

    def does(self, chain: ChainParams) -> bool:
        """Whether it can do what `chain` does: as many slices, cut at the same places."""
        return (
            chain.dsp is DspSlice.DSP48E2
            and chain.load_slots == 1
            and self.stages >= chain.stages
            and chain.group % self.group == 0
        )


_CHAINS: Final = (
    _Chain(stages=8, group=2, takes=FpgaResources(lut=1070, ff=613)),
    _Chain(stages=16, group=1, takes=FpgaResources(lut=3044, ff=2128)),
    _Chain(stages=16, group=2, takes=FpgaResources(lut=2499, ff=1433)),
    _Chain(stages=16, group=4, takes=FpgaResources(lut=2350, ff=742)),
    _Chain(stages=32, group=2, takes=FpgaResources(lut=5448, ff=3168)),
)
"""Synthesised chains (benchmarks/resources.py)."""

ACCUMULATORS: Final = FpgaResources(lut=1025, ff=512)
NODES: Final = 8
DEPTH: Final = 64
"""Accumulators of so many nodes for up to so many passes, in LUTs."""

SHARE: Final = FpgaResources(lut=58, ff=320)
JOIN: Final = FpgaResources(lut=364, ff=16)
AROUND: Final = FpgaResources(lut=395, ff=763)
"""What is around chains and accumulators: of every chain of an MPU, of its sum with one of every
other MPU, and the rest; from 1 x 4, 1 x 8 and 2 x 4 MPUs x chains."""

REQUANTISER: Final = FpgaResources(lut=2914)
"""What turns the sums of a chain into results."""

PRODUCT: Final = FpgaResources(lut=1957, ff=226)
ROWS: Final = FpgaResources(lut=452, ff=138, dsp=2)
FETCH: Final = FpgaResources(lut=272, ff=232)
DECODER: Final = FpgaResources(lut=849, ff=212)
SEQUENCER: Final = FpgaResources(lut=1341, ff=1502)
CONTROL: Final = PRODUCT + ROWS + FETCH + DECODER + SEQUENCER
"""The control of matrix engine and special functions, and what brings a core its instructions."""

DEQUANTISER: Final = FpgaResources(lut=3060, ff=854, dsp=16)
"""A dequantiser of as many lanes as candidates."""

SPECIAL_LANE: Final = FpgaResources(lut=1758, ff=377, dsp=13)
SPECIAL: Final = FpgaResources(lut=1905, ff=640, dsp=13)
"""What a special-function unit takes for every lane, and for a row's statistics and control."""


def resources(arch: DspChain) -> FpgaResources:
    """Return what all cores take; raises ValueError for parts larger than any synthesised."""
    return core(arch).times(arch.cores)


def core(arch: DspChain) -> FpgaResources:
    """Return what a core takes: a matrix engine that is also the vector engine, units, buffers."""
    params = engine_params(arch)
    return (
        engine(params)
        + REQUANTISER.times(params.vpus)
        + CONTROL
        + dequantiser(dequantiser_lanes(arch))
        + special(arch.misc_lanes)
        + buffers(arch.act_buffer, arch.weight_buffer, arch.mv_buffer, arch.out_buffer)
    )


def engine_params(arch: DspChain) -> MpeParams:
    """Return a core's matrix engine: chains for MM or for MV, whichever are more."""
    chains = max(-(-arch.mm_tokens // TOKENS) * arch.mm_columns, arch.mv_columns)
    one = ChainParams(stages=arch.chain_stages, load_groups=arch.chain_stages // 2)
    return MpeParams(chain=one, vpus=chains, depth=DEPTH)


def engine(params: MpeParams) -> FpgaResources:
    """Return what `rtl.dsp_chain.Mpe` takes, with a DSP for every slice."""
    chain = params.chain
    part = (
        f"chain of {chain.stages} {chain.dsp} in groups of {chain.group} that load in "
        f"{chain.load_slots} slots"
    )
    if params.depth > DEPTH:
        raise ValueError(f"No accumulators for {params.depth} passes were synthesised")
    chains = params.vpus * params.mpus
    one = smallest((each.takes for each in _CHAINS if each.does(chain)), part)
    return (
        (one + FpgaResources(dsp=chain.stages)).times(chains)
        + ACCUMULATORS.times(chain.groups * params.vpus, NODES)
        + SHARE.times(params.vpus)
        + JOIN.times(params.vpus * (params.mpus - 1))
        + AROUND
    )


def dequantiser_lanes(arch: DspChain) -> int:
    """Return a core's lanes: as many as its memory channels fill with the narrowest codes.

    They come by the candidates of a pass, and are not more than its weights. assumed: nothing is
    published of it.
    """
    bits = min(*arch.weight_bits, arch.head_bits)
    filled = arch.bytes_per_cycle(arch.hbm.channels_per_core) * 8 / bits
    return min(math.ceil(filled / CANDIDATES) * CANDIDATES, engine_params(arch).slices)


def dequantiser(lanes: int) -> FpgaResources:
    """Return what a dequantiser takes, of any width of codes."""
    return DEQUANTISER.times(lanes, CANDIDATES)


def special(lanes: int) -> FpgaResources:
    """Return what a special-function unit takes."""
    return SPECIAL_LANE.times(lanes) + SPECIAL
