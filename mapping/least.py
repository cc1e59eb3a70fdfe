"""Lower bounds of what a tiling costs, vectorised over candidates, for every objective.

Events are counted in closed form: exact for plain products, never more than the lowered program's
for windows, whose ragged tiles overlap in ways only the program knows.
"""

import collections.abc as abc
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mapping.objective import Goal, Number, Objective, energy_j, prices_pj
from mapping.problem import Problem
from mapping.space import (
    STREAMED,
    Candidates,
    Tiles,
    array_dims,
    extreme_tiles,
    moved,
    part_sums,
    repeats,
    whole_array_cycles,
)
from simulator.arch import Dataflow, NMArray
from simulator.counts import Event
from simulator.nm_tile import NMSetting

__all__ = ["Part", "floor", "least_costs", "least_counts", "parts", "ranked"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ROUNDING = 1 - 1e-12
"""Sums of floats may round up; a bound times this does not exceed the exact sum."""


@dataclass(frozen=True, slots=True)
class Part:
    """A number of one event by candidate; times the repeated fetches of `operand`, if any."""

    event: Event
    number: Ints
    operand: str | None = None


def parts(
    arch: NMArray, s: NMSetting, p: Problem, t: Tiles, macs_effectual: int
) -> tuple[Part, ...]:
    """Return what sums to events of one execution: each part a product over t's dimensions."""
    return (
        *_transfers(arch, s, p, t),
        *_buffer_reads(arch, s, p, t),
        *_multiplier_uses(arch, s, p, t, macs_effectual),
    )


def least_counts(
    arch: NMArray, s: NMSetting, p: Problem, t: Tiles, macs_effectual: int
) -> dict[Event, Ints]:
    """Return events of one execution of each candidate, int64 each, at most the program's."""
    times = {operand: repeats(t, p.indices[operand]) for operand in ("act", "weight")}
    counts: dict[Event, Ints] = {}
    for part in parts(arch, s, p, t, macs_effectual):
        number = part.number * times[part.operand] if part.operand else part.number
        before = counts.get(part.event)
        counts[part.event] = number if before is None else before + number
    return counts


def _transfers(arch: NMArray, s: NMSetting, p: Problem, t: Tiles) -> list[Part]:
    """Return the bits between memory and buffers."""
    bits, number = arch.operand_bits, moved(p, s, t)
    stored, indices = bits * number["weight"], s.index_bits * number["weight"]
    found = [
        Part(("act_buffer", "write", "full"), bits * number["act"], "act"),
        Part(("dram", "read", "full"), bits * number["act"], "act"),
        Part(("weight_buffer", "write", "full"), stored, "weight"),
        Part(("weight_buffer", "write", "metadata"), indices, "weight"),
        Part(("act_buffer" if p.kept_out else "dram", "write", "full"), bits * number["out"]),
    ]
    if p.saved:
        found += [
            Part(("dram", "read", "full"), bits * number["saved"]),
            Part(("out_buffer", "write", "full"), bits * number["saved"]),
        ]
    if not (p.select and s.indexed):
        return [
            *found,
            Part(("dram", "read", "full"), stored, "weight"),
            Part(("dram", "read", "metadata"), indices, "weight"),
        ]
    # SORE takes dense weights from memory.
    dense = number["weight"] // p.weight_values(s, 1, p.gemm.k, 1) * p.gemm.k
    return [
        *found,
        Part(("dram", "read", "full"), bits * dense, "weight"),
        Part(("sore", "compare", "full"), s.kept * dense, "weight"),
    ]


def _buffer_reads(arch: NMArray, s: NMSetting, p: Problem, t: Tiles) -> list[Part]:
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
    act = arch.operand_bits * g.groups * g.m * g.k
    saved = arch.operand_bits if p.saved else 0
    return [
        Part(("act_buffer", "read", "full"), act * act_reads),
        Part(("weight_buffer", "read", "full"), arch.operand_bits * values * weight_reads),
        Part(("weight_buffer", "read", "metadata"), s.index_bits * values * weight_reads),
        Part(("out_buffer", "write", "full"), sums * writes),
        Part(("out_buffer", "read", "full"), sums * writes),
        Part(("out_buffer", "read", "full"), np.full_like(t.m, -sums)),
        Part(("out_buffer", "read", "full"), (arch.acc_bits + saved) * moved(p, s, t)["out"]),
    ]


def _multiplier_uses(
    arch: NMArray, s: NMSetting, p: Problem, t: Tiles, effectual: int
) -> list[Part]:
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
    return [
        Part(("mac", precision, "full"), np.full_like(offered, effectual)),
        Part(("mac", precision, "gated"), offered),
        Part(("mac", precision, "gated"), np.full_like(offered, -effectual)),
    ]


def _bytes_moved(counts: abc.Mapping[Event, Ints]) -> Ints:
    sizes = (-(-bits // 8) for (component, *_), bits in counts.items() if component == "dram")
    total: Ints = np.add.reduce(list(sizes))
    return total


def least_costs(
    arch: NMArray, goal: Goal, s: NMSetting, p: Problem, t: Tiles, cycles: Ints | Floats
) -> Ints | Floats:
    """Return a lower bound on each candidate's cost, given one on its cycles."""
    if goal.objective is Objective.CYCLES:
        return cycles
    return _cost(arch, goal, least_counts(arch, s, p, t, goal.macs_effectual), cycles)


def _cost(
    arch: NMArray, goal: Goal, counts: abc.Mapping[Event, Ints], cycles: Ints | Floats
) -> Ints | Floats:
    if goal.objective is Objective.DRAM_BYTES:
        return _bytes_moved(counts)
    known = prices_pj(arch)
    picojoules = np.add.reduce([known[event] * n for event, n in counts.items()])
    energy: Floats = (picojoules * 1e-12 + energy_j(arch, goal.fixed)) * ROUNDING
    if goal.objective is Objective.ENERGY:
        return energy
    return energy * cycles * (ROUNDING / arch.clock_hz)


def ranked(arch: NMArray, goal: Goal, s: NMSetting, p: Problem, found: Candidates) -> Candidates:
    """Return candidates, which come by cycles, by ascending lower bound of their cost."""
    if goal.objective is Objective.CYCLES:
        return found
    bound = least_costs(arch, goal, s, p, found.tiles, found.bound)
    order = np.argsort(bound, kind="stable")
    return Candidates(found.tiles.take(order), bound[order])


def floor(arch: NMArray, goal: Goal, s: NMSetting, p: Problem) -> Number:
    """Return a lower bound on the cost of every tiling under `s`.

    No tiling has fewer folds, fetches an operand less often, or moves less of an image.
    """
    cycles = whole_array_cycles(arch, s, p)
    if goal.objective is Objective.CYCLES:
        return cycles
    counts = least_counts(arch, s, p, extreme_tiles(p), goal.macs_effectual)
    least = {event: number.min(keepdims=True) for event, number in counts.items()}
    return _cost(arch, goal, least, np.array([cycles])).item()
