"""Lower bounds of what a tiling costs, vectorised over candidates, for every objective.

Events are counted in closed form: exact for plain products, never more than the lowered program's
for windows, whose ragged tiles overlap in ways only the program knows.
"""

import collections.abc as abc

import numpy as np
from numpy.typing import NDArray

from mapping.objective import Goal, Number, Objective, energy_j, prices_pj
from mapping.problem import Problem
from mapping.space import (
    STREAMED,
    Candidates,
    Tiles,
    array_dims,
    candidates,
    moved,
    part_sums,
    whole_array_cycles,
    whole_tile,
)
from simulator.arch import Dataflow, MemoryMode, NMArray
from simulator.counts import Event
from simulator.nm_tile import NMSetting

__all__ = ["floor", "least_costs", "least_counts", "ranked"]

Ints = NDArray[np.int64]
Costs = NDArray[np.int64] | NDArray[np.float64]

ROUNDING = 1 - 1e-12
"""Sums of floats may round up; a bound times this does not exceed the exact sum."""


def least_counts(
    arch: NMArray, s: NMSetting, p: Problem, t: Tiles, macs_effectual: int
) -> dict[Event, Ints]:
    """Return events of one execution of each candidate, int64 each, at most the program's."""
    return {
        **_transfers(arch, s, p, t),
        **_buffer_reads(arch, s, p, t),
        **_multiplier_uses(arch, s, p, t, macs_effectual),
    }


def _transfers(arch: NMArray, s: NMSetting, p: Problem, t: Tiles) -> dict[Event, Ints]:
    """Return the bits between memory and buffers."""
    elements = {name: count * times for name, (count, times) in moved(p, s, t).items()}
    act = arch.operand_bits * elements["act"]
    weight, index = arch.operand_bits * elements["weight"], s.index_bits * elements["weight"]
    found = {
        ("act_buffer", "write", "full"): act,
        ("weight_buffer", "write", "full"): weight,
        ("weight_buffer", "write", "metadata"): index,
        ("dram", "write", "full"): arch.operand_bits * elements["out"],
    }
    if p.select and s.indexed:  # SORE takes dense weights from memory
        dense = elements["weight"] // p.weight_values(s, 1, p.gemm.k, 1) * p.gemm.k
        found["sore", "compare", "full"] = dense * s.kept
        weight, index = arch.operand_bits * dense, 0 * index
    return found | {
        ("dram", "read", "full"): act + weight,
        ("dram", "read", "metadata"): index,
    }


def _buffer_reads(arch: NMArray, s: NMSetting, p: Problem, t: Tiles) -> dict[Event, Ints]:
    """Return the bits between buffers and array, and of results on their way to memory."""
    _, _, dims = array_dims(arch, s, p, t)
    (tiles_m, folds_m), (tiles_k, folds_k), (tiles_n, folds_n) = (
        part_sums(*dims[name]) for name in "mkn"
    )
    match s.dataflow:
        case Dataflow.OS:
            act_reads, weight_reads, writes = folds_n, folds_m, tiles_k
        case Dataflow.WS:
            act_reads, weight_reads, writes = folds_n, tiles_m, folds_k
        case Dataflow.IS:
            act_reads, weight_reads, writes = tiles_n, folds_m, folds_k
    g = p.gemm
    values = p.weight_values(s, p.units, g.k, g.n)
    sums = arch.acc_bits * g.groups * g.m * g.n
    stored = arch.acc_bits * moved(p, s, t)["out"][0]
    return {
        ("act_buffer", "read", "full"): arch.operand_bits * g.groups * g.m * g.k * act_reads,
        ("weight_buffer", "read", "full"): arch.operand_bits * values * weight_reads,
        ("weight_buffer", "read", "metadata"): s.index_bits * values * weight_reads,
        ("out_buffer", "write", "full"): sums * writes,
        ("out_buffer", "read", "full"): sums * (writes - 1) + stored,
    }


def _multiplier_uses(
    arch: NMArray, s: NMSetting, p: Problem, t: Tiles, effectual: int
) -> dict[Event, Ints]:
    """Return the uses that folds offer, ragged ones whole, split by the weight's value."""
    _, groups, dims = array_dims(arch, s, p, t)
    extent, size, _ = dims.pop(STREAMED[s.dataflow])
    (_, folds_a), (_, folds_b) = (part_sums(*dim) for dim in dims.values())
    length, sums = extent, 1
    if s.dataflow is Dataflow.OS:
        length, sums = part_sums(extent, size, s.group)[1], arch.interleave
    slots = -(-s.kept // arch.macs_per_pe)
    offered = groups * folds_a * folds_b * length * (arch.peak_macs_per_cycle * slots * sums)
    precision = arch.precision.value
    return {
        ("mac", precision, "full"): np.full_like(offered, effectual),
        ("mac", precision, "gated"): offered - effectual,
    }


def _bytes_moved(counts: abc.Mapping[Event, Ints]) -> Ints:
    return sum(
        (-(-bits // 8) for (component, *_), bits in counts.items() if component == "dram"),
        start=np.int64(0),
    )


def least_costs(
    arch: NMArray, goal: Goal, s: NMSetting, p: Problem, t: Tiles, cycles: Ints
) -> Costs:
    """Return a lower bound on each candidate's cost, given one on its cycles."""
    if goal.objective is Objective.CYCLES:
        return cycles
    counts = least_counts(arch, s, p, t, goal.macs_effectual)
    if goal.objective is Objective.DRAM_BYTES:
        return _bytes_moved(counts)
    known = prices_pj(arch)
    energy = sum((known[e] * n for e, n in counts.items()), start=np.float64(0)) * 1e-12
    energy = (energy + energy_j(arch, goal.fixed)) * ROUNDING
    if goal.objective is Objective.ENERGY:
        return energy
    return energy * cycles * (ROUNDING / arch.clock_hz)


def ranked(
    arch: NMArray, goal: Goal, s: NMSetting, p: Problem, tiles: Tiles | None = None
) -> Candidates:
    """Return the legal ones of `tiles` (all by default) by ascending lower bound of their cost."""
    found = candidates(arch, s, p, tiles)
    if goal.objective is Objective.CYCLES:
        return found
    bound = least_costs(arch, goal, s, p, found.tiles, found.bound)
    order = np.argsort(bound, kind="stable")
    return Candidates(found.tiles.take(order), bound[order])


def floor(arch: NMArray, goal: Goal, s: NMSetting, p: Problem) -> Number:
    """Return a lower bound on the cost of every tiling under `s`: that of one tile for all.

    No tiling has fewer folds, fetches an operand less often, or fetches fewer image rows.
    """
    cycles = whole_array_cycles(arch, s, p)
    if goal.objective is Objective.CYCLES:
        return cycles
    return least_costs(arch, goal, s, p, whole_tile(p), np.array([cycles])).item()
