"""Cycles of every DspChain instruction, in closed form from its own fields.

A pass is what the chains take in one cycle: 16 candidates for as many rows as their stages hold.
A chain of 16 stages holds 16 / N rows of N:16, so rows of one N need ceil(rows x N / 16 / chains)
passes for every group of candidates, and rows with N = 0 none.
"""

from collections.abc import Mapping
from fractions import Fraction

from simulator.arch.dsp_chain import DspChain
from simulator.arch.special import SpecialParams

__all__ = ["chain_cycles", "link_cycles", "misc_cycles", "passes", "transfer_cycles"]


def passes(kept_rows: Mapping[int, int], chains: int, stages: int = 16) -> int:
    """Return the passes a group of candidates needs for rows counted by their N.

    `chains` work side by side, each of `stages` stages; rows of different N never share a chain.

    >>> passes({16: 512}, 64), passes({16: 410, 8: 102}, 64), passes({0: 512}, 64)
    (8, 8, 0)
    """
    return sum(-(-rows * kept // (stages * chains)) for kept, rows in kept_rows.items())


def chain_cycles(arch: DspChain, groups: int, group_passes: int) -> int:
    """Return the cycles of an MM or MV over `groups` groups of candidates.

    One pass enters a cycle; the last one leaves the chains after `fill_cycles`. Weights of MM
    stream past the stationary activations at the rate of the passes, so none are swapped.
    """
    return groups * group_passes + arch.fill_cycles


def misc_cycles(arch: DspChain, rows: int, elements: int, phases: int) -> int:
    """Return the cycles of a MISC over rows of `elements`, read once in every phase.

    Between two readings of a row the unit waits for its statistics (`SpecialParams.turn`).
    """
    unit = SpecialParams(lanes=arch.misc_lanes)
    reading = -(-elements // arch.misc_lanes)
    return rows * (reading * phases + unit.turn * (phases - 1)) + arch.misc_pipeline_cycles


def transfer_cycles(rate_bytes_per_cycle: Fraction, size_bytes: int) -> int:
    """Return the cycles a memory port is taken by `size_bytes`; latency is not occupancy."""
    return -(-size_bytes * rate_bytes_per_cycle.denominator // rate_bytes_per_cycle.numerator)


def link_cycles(arch: DspChain, size_bytes: int) -> int:
    """Return the cycles in which all cores together put `size_bytes` on the bus between them."""
    return -(-size_bytes // arch.link_bytes_per_cycle)
