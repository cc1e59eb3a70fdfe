"""DSP slices, the sparse chain built of them, and the matrix engine (FlightLLM, arXiv 2401.03868).

A VPU is one chain of `stages` DSP slices. Each holds a weight and the index that picks its
activation among 16 candidates, multiplies two tokens' int8 activations, packed into one
operand, by that weight, and adds the sum that cascades in. After every `group` slices a reduction
node may cut the chain and emit. An output row of N kept weights in 16 takes N slices. An MPU is
`vpus` VPUs on the same candidates; an MPE is `mpus` MPUs on consecutive groups of the reduction,
whose results it adds, then accumulates over the groups of a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from workloads.canonical import Spec

__all__ = [
    "CANDIDATES",
    "KEPT",
    "ChainJob",
    "ChainMode",
    "ChainParams",
    "DspSlice",
    "MpeParams",
    "chain_job",
    "chain_slots",
]

CANDIDATES: Final = 16
"""M: the activations a sparse multiplexer picks from."""

KEPT: Final = (0, 2, 4, 8, 16)
"""N: the weights a row may keep of every 16, each a power of two the chain divides into."""

TOKENS: Final = 2
"""Activations packed into one multiplier operand."""

INT8_BITS: Final = 8


class DspSlice(StrEnum):
    """A DSP slice (AMD UG579 for DSP48E2, AM004 for DSP58)."""

    DSP48E2 = "dsp48e2"
    DSP58 = "dsp58"

    @property
    def wide_bits(self) -> int:
        """Width of the multiplier's pre-added operand."""
        return 27

    @property
    def narrow_bits(self) -> int:
        """Width of the multiplier's other operand."""
        return 18 if self is DspSlice.DSP48E2 else 24

    @property
    def sum_bits(self) -> int:
        """Width of the accumulator and of its cascade."""
        return 48 if self is DspSlice.DSP48E2 else 58

    @property
    def packed_shift(self) -> int:
        """Bits between the two packed activations: the most the pre-added operand allows.

        A sign bit more than an int8 must remain, since -128 shifted less 128 borrows from it.
        """
        return self.wide_bits - INT8_BITS - 1

    @property
    def latency(self) -> int:
        """Slots from operands to the sum: input, pre-adder, multiplier and sum registers."""
        return 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainParams(Spec):
    """One VPU: `stages` slices in groups of `group`, weights loaded `load_groups` groups a slot.

    Weights of -128 cost a slice of every packed sum: without them (`full_range` false) a sum
    holds 8 products instead of 7.
    """

    stages: int = 16
    group: int = 2
    load_groups: int = 8
    full_range: bool = True
    dsp: DspSlice = DspSlice.DSP48E2

    def __post_init__(self) -> None:
        if not 1 <= self.group <= self.max_products:
            raise ValueError(
                f"Chain group must be 1 to {self.max_products} slices, as many as a packed sum "
                f"holds products, not {self.group}"
            )
        if self.stages < 1 or self.stages % self.group:
            raise ValueError(
                f"Chain stages must be a multiple of group = {self.group}, not {self.stages}"
            )
        if self.load_groups < 1 or self.groups % self.load_groups:
            raise ValueError(
                f"Chain load_groups must divide the chain's {self.groups} groups, "
                f"not {self.load_groups}"
            )

    @property
    def max_products(self) -> int:
        """Products of int8 whose sum fits the lower packed half, whatever their values."""
        largest = 128 * (128 if self.full_range else 127)
        return ((1 << (self.dsp.packed_shift - 1)) - 1) // largest

    @property
    def groups(self) -> int:
        """Groups of slices, each with a reduction node."""
        return self.stages // self.group

    @property
    def segment_groups(self) -> int:
        """Groups after which the overflow-adjust unit takes the packed sum out of the cascade."""
        return self.max_products // self.group

    @property
    def load_slots(self) -> int:
        """Slots to load the chain's weights."""
        return self.groups // self.load_groups

    @property
    def latency(self) -> int:
        """Slots from candidates to the results of all nodes, the cascade and the split included."""
        return self.dsp.latency + self.stages

    def row_stages(self, kept: int) -> int:
        """Return the slices of a row that keeps `kept` of 16: whole groups.

        Raises ValueError for another N than those of KEPT, or more slices than the chain has.
        """
        if kept not in KEPT:
            allowed = ", ".join(map(str, KEPT))
            raise ValueError(f"Kept weights N of {CANDIDATES} must be one of {allowed}, not {kept}")
        taken = -(-kept // self.group) * self.group
        if taken > self.stages:
            raise ValueError(
                f"A row of N = {kept} takes {taken} slices, but the chain has {self.stages}"
            )
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class MpeParams(Spec):
    """A matrix engine: `mpus` MPUs of `vpus` chains; accumulators for `depth` passes of tokens."""

    chain: ChainParams
    vpus: int
    mpus: int = 1
    depth: int = 128

    def __post_init__(self) -> None:
        for name in ("vpus", "mpus", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"MPE {name} must be at least 1, not {getattr(self, name)}")

    @property
    def slices(self) -> int:
        """DSP slices of all chains."""
        return self.chain.stages * self.vpus * self.mpus

    @property
    def peak_macs_per_cycle(self) -> int:
        """Multiply-accumulates a cycle with both packed tokens in use."""
        return TOKENS * self.slices

    @property
    def reduction(self) -> int:
        """Positions of the reduction taken in one pass."""
        return CANDIDATES * self.mpus

    @property
    def lanes(self) -> int:
        """Places of a result beat: a node of every group of every chain of an MPU."""
        return self.vpus * self.chain.groups

    @property
    def latency(self) -> int:
        """Slots from candidates to their results offered: chain, sum over MPUs, accumulator."""
        return self.chain.latency + 2

    def chains(self, rows: Mapping[int, int]) -> int:
        """Return the chains filled by `rows[n]` rows of N = n, the largest N first.

        A row stays within a chain. Raises ValueError for an N the chain does not take or a
        negative count.
        """
        chains = free = 0
        for kept in sorted(rows, reverse=True):
            taken, count = self.chain.row_stages(kept), rows[kept]
            if count < 0:
                raise ValueError(f"Rows of N = {kept} must be at least 0, not {count}")
            if not taken or not count:
                continue
            rest = max(count - free // taken, 0)
            per_chain = self.chain.stages // taken
            chains += -(-rest // per_chain)
            last = (rest - 1) % per_chain + 1
            free = self.chain.stages - last * taken if rest else free - count * taken
        return chains


class ChainMode(StrEnum):
    """MM multiplies matrices, two tokens at a time; MV one token: the second half idles."""

    MM = "mm"
    MV = "mv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainJob(Spec):
    """`tokens` tokens by `tiles` fillings of all chains with rows, over `groups` of the reduction.

    A weight set fills every slice once; sets follow with the reduction innermost. While a set
    computes, one pass of up to two tokens a slot, the next one loads behind it. Slot 0 takes the
    first weights.
    """

    params: MpeParams
    tokens: int
    tiles: int
    groups: int

    def __post_init__(self) -> None:
        for name in ("tokens", "tiles", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"A chain job needs {name} of at least 1, not {getattr(self, name)}"
                )
        if self.passes > self.params.depth:
            raise ValueError(
                f"A chain job of {self.tokens} tokens needs accumulators for {self.passes} passes, "
                f"but this MPE has {self.params.depth}"
            )

    @property
    def mode(self) -> ChainMode:
        """MV for a single token."""
        return ChainMode.MV if self.tokens == 1 else ChainMode.MM

    @property
    def passes(self) -> int:
        """Passes of a weight set: pairs of tokens, the last one maybe single."""
        return -(-self.tokens // TOKENS)

    @property
    def sets(self) -> int:
        """Weight sets."""
        return self.tiles * self.groups

    @property
    def interval(self) -> int:
        """Slots from one set's first pass to the next one's."""
        return max(self.passes, self.params.chain.load_slots)

    @property
    def slots(self) -> int:
        """Slots from the first weights taken to the next job's slot 0."""
        return self.params.chain.load_slots + (self.sets - 1) * self.interval + self.passes

    @property
    def cycles(self) -> int:
        """Cycles from the first weights taken to the last result handed over, without stalls."""
        return self.slots + self.params.latency

    @property
    def out_beats(self) -> int:
        """Result beats: one a pass of every tile."""
        return self.tiles * self.passes

    @property
    def mac_slots(self) -> int:
        """Multiply-accumulates the slices had room for while they computed."""
        return self.sets * self.passes * self.params.peak_macs_per_cycle


def chain_job(params: MpeParams, *, tokens: int, k: int, rows: Mapping[int, int]) -> ChainJob:
    """Return the job of `tokens` x `k` by rows[n] output rows that keep n of every 16 weights.

    Rows are placed the largest N first. Raises ValueError if no row keeps a weight, for tokens
    beyond the accumulators, or for an N that is not allowed.
    """
    chains = params.chains(rows)
    if k < 1 or not chains:
        raise ValueError(
            f"A chain job needs a reduction and a row that keeps weights, not k = {k} and "
            f"{chains} chains"
        )
    return ChainJob(
        params=params,
        tokens=tokens,
        tiles=-(-chains // params.vpus),
        groups=-(-k // params.reduction),
    )


def chain_slots(params: MpeParams, *, tokens: int, k: int, rows: Mapping[int, int]) -> int:
    """Return the slots of a matrix product of any number of tokens, in jobs of equal rows.

    Tokens beyond the accumulators make further jobs, which load all weights again. Cycles without
    stalls from the first weights taken to the last result handed over are `params.latency` more.
    """
    most = TOKENS * params.depth
    first = chain_job(params, tokens=min(tokens, most), k=k, rows=rows).slots
    jobs, rest = divmod(tokens, most)
    if not jobs:
        return first
    return jobs * first + (chain_job(params, tokens=rest, k=k, rows=rows).slots if rest else 0)
