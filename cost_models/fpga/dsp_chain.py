"""What a DspChain takes: chains, accumulators, requantisers and the other units of its cores.

A slice of a chain is one DSP48E2: what `rtl.dsp_chain.dsp` describes is what the slice has inside,
so that module's adders and registers, which Yosys leaves in LUTs and flip-flops, are not counted.
Load and store units and the link between cores are not in the figures.
"""

import math
from dataclasses import dataclass
from typing import Final

from cost_models.fpga.parts import FpgaResources, buffers, smallest
from simulator.arch import DspChain
from simulator.arch.dsp_cells import CANDIDATES, TOKENS, ChainParams, DspSlice, MpeParams

__all__ = [
    "CONTROL",
    "MATRICES",
    "PRODUCT",
    "REQUANTISER",
    "TOKEN",
    "chains",
    "core",
    "dequantiser",
    "dequantiser_lanes",
    "engine",
    "resources",
    "row",
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

ACCUMULATORS: Final = {2: FpgaResources(lut=769, ff=512), 64: FpgaResources(lut=1025, ff=512)}
NODES: Final = 8
"""Accumulators of so many nodes, in LUTs, by the passes they are for."""

SHARE: Final = FpgaResources(lut=62, ff=320)
JOIN: Final = FpgaResources(lut=363, ff=16)
AROUND: Final = FpgaResources(lut=325, ff=763)
"""What an engine has around chains and accumulators: for every chain of an MPU, for its sum with
one of every other MPU, and the rest; from 1 x 4, 1 x 8 and 2 x 4 MPUs x chains."""

IN_A_ROW: Final = FpgaResources(lut=233, ff=538)
"""The same for every engine of a chain in a core's row; rows of 4 and 8, without hierarchy."""

REQUANTISER: Final = FpgaResources(lut=2914)
TOKEN: Final = FpgaResources(lut=1941)
"""What turns the sums of a chain into results of MV, and those of a token in a chain of MM."""

PRODUCT: Final = FpgaResources(lut=1948, ff=226)
MATRICES: Final = FpgaResources(lut=1609, ff=276)
ROWS: Final = FpgaResources(lut=889, ff=235, dsp=2)
FETCH: Final = FpgaResources(lut=272, ff=232)
DECODER: Final = FpgaResources(lut=849, ff=212)
SEQUENCER: Final = FpgaResources(lut=1341, ff=1502)
CONTROL: Final = PRODUCT + MATRICES + ROWS + FETCH + DECODER + SEQUENCER
"""The control of MV, MM and special functions, and what brings a core its instructions."""

DEQUANTISER: Final = FpgaResources(lut=3060, ff=854, dsp=16)
"""A dequantiser of as many lanes as candidates."""

SPECIAL_LANE: Final = FpgaResources(lut=1667, ff=377, dsp=13)
SPECIAL: Final = FpgaResources(lut=2008, ff=638, dsp=13)
"""What a special-function unit takes for every lane, and for a row's statistics and control."""


def resources(arch: DspChain) -> FpgaResources:
    """Return what all cores take; raises ValueError for parts larger than any synthesised."""
    return core(arch).times(arch.cores)


def core(arch: DspChain) -> FpgaResources:
    """Return what a core takes: chains that serve MV and MM, units, control and buffers."""
    return (
        row(chains(arch))
        + REQUANTISER.times(arch.mv_columns)
        + TOKEN.times(arch.mm_tokens * arch.mm_columns)
        + CONTROL
        + dequantiser(dequantiser_lanes(arch))
        + special(arch.misc_lanes)
        + buffers(arch.act_buffer, arch.weight_buffer, arch.mv_buffer, arch.out_buffer)
    )


def chains(arch: DspChain) -> int:
    """Return a core's chains: those that MM or MV needs, whichever are more."""
    return max(-(-arch.mm_tokens // TOKENS) * arch.mm_columns, arch.mv_columns)


def row(count: int) -> FpgaResources:
    """Return what `rtl.dsp_machine.engine` takes, `count` chains of 16 slices in step."""
    return (_chain(ChainParams()) + ACCUMULATORS[2] + IN_A_ROW).times(count)


def engine(params: MpeParams) -> FpgaResources:
    """Return what `rtl.dsp_chain.Mpe` takes, with a DSP for every slice."""
    able = (takes for depth, takes in ACCUMULATORS.items() if depth >= params.depth)
    accumulators = smallest(able, f"accumulator of {params.depth} passes")
    return (
        _chain(params.chain).times(params.vpus * params.mpus)
        + accumulators.times(params.chain.groups * params.vpus, NODES)
        + SHARE.times(params.vpus)
        + JOIN.times(params.vpus * (params.mpus - 1))
        + AROUND
    )


def _chain(chain: ChainParams) -> FpgaResources:
    part = (
        f"chain of {chain.stages} {chain.dsp} in groups of {chain.group} that load in "
        f"{chain.load_slots} slots"
    )
    one = smallest((each.takes for each in _CHAINS if each.does(chain)), part)
    return one + FpgaResources(dsp=chain.stages)


def dequantiser_lanes(arch: DspChain) -> int:
    """Return a core's lanes: as many as its memory channels fill with the narrowest codes.

    They come by the candidates of a pass, and are not more than its weights. assumed: nothing is
    published of it.
    """
    bits = min(*arch.weight_bits, arch.head_bits)
    filled = arch.bytes_per_cycle(arch.hbm.channels_per_core) * 8 / bits
    return min(math.ceil(filled / CANDIDATES), chains(arch)) * CANDIDATES


def dequantiser(lanes: int) -> FpgaResources:
    """Return what a dequantiser takes, of any width of codes."""
    return DEQUANTISER.times(lanes, CANDIDATES)


def special(lanes: int) -> FpgaResources:
    """Return what a special-function unit takes."""
    return SPECIAL_LANE.times(lanes) + SPECIAL
