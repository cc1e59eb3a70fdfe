"""Exhaustive mapping with pruning: the best point of the space of `mapping.space`, proved.

Settings are taken by a floor that no tiling can beat, candidates by their lower bound; exact
costs come from the lowered program. A candidate whose bound reaches the best exact cost found so
far, and all behind it, cannot win.
"""

import collections.abc as abc
from dataclasses import replace
from functools import lru_cache

from mapping.least import floor, ranked
from mapping.lower import lower_gemm
from mapping.objective import Goal, Number, op_cost
from mapping.problem import Problem, TileShape
from mapping.space import (
    Candidates,
    array_of,
    candidates,
    least_needs,
    settings,
    whole_array_cycles,
)
from mapping.types import Mapping, NoMapping
from simulator.arch import MemoryMode, NMArray
from simulator.nm_tile import NMSetting
from simulator.schedule import Block, OpSchedule
from workloads.graph import Phase

__all__ = ["Accept", "exact_cost", "exhaustive", "improved", "lowered", "no_mapping", "untiled"]

PRODUCT_PASSES = (Phase.FF, Phase.BP, Phase.WU)
"""Passes of a training step that have products."""

Accept = abc.Callable[[NMSetting, TileShape], bool]


def exhaustive(
    arch: NMArray, problem: Problem, name: str, goal: Goal, accept: Accept | None = None
) -> Mapping:
    """Return the mapping of `problem` with the least cost in the space, proved by pruned search.

    `accept` may refuse tiles, as a memory layout does. Raises NoMapping, naming operator, buffer,
    need and size, if no tile fits, and naming the operator if every one is refused.
    """
    if arch.memory is MemoryMode.IDEAL:
        return untiled(arch, problem, name, goal)
    floors = [(floor(arch, goal, s, problem), s) for s in settings(arch, problem)]
    # Of settings that may cost the same, the one that may be fastest comes first and stays.
    floors.sort(key=lambda pair: (pair[0], whole_array_cycles(arch, pair[1], problem)))
    best: Mapping | None = None
    considered = 0
    for least, setting in floors:
        if best and least >= best.cost:
            break
        found = ranked(arch, goal, setting, problem, candidates(arch, setting, problem))
        considered += len(found)
        best = improved(arch, goal, problem, name, setting, found, best, accept)
    if best is None:
        raise no_mapping(arch, problem, name, considered)
    return replace(best, considered=considered)


def improved(
    arch: NMArray,
    goal: Goal,
    problem: Problem,
    name: str,
    setting: NMSetting,
    found: Candidates,
    best: Mapping | None,
    accept: Accept | None = None,
) -> Mapping | None:
    """Return the best of `best` and what `accept` takes of `found`, by exact cost.

    Candidates come by ascending bound.
    """
    for index, bound in enumerate(found.bound):
        if best and bound >= best.cost:
            break
        shape = found.shape(index)
        if accept and not accept(setting, shape):
            continue
        cost = exact_cost(arch, goal, problem, setting, shape)
        if best is None or cost < best.cost:
            best = _proved(name, setting, shape, cost)
    return best


def untiled(arch: NMArray, problem: Problem, name: str, goal: Goal) -> Mapping:
    """Return the best setting with the whole problem as one tile: without memory nothing else."""
    whole = problem.whole
    costs = [(exact_cost(arch, goal, problem, s, whole), s) for s in settings(arch, problem)]
    cost, setting = min(costs, key=lambda pair: pair[0])
    return replace(_proved(name, setting, whole, cost), considered=len(costs))


def _proved(name: str, setting: NMSetting, shape: TileShape, cost: Number) -> Mapping:
    return Mapping(op=name, setting=setting, shape=shape, cost=cost, bound=cost, considered=0)


@lru_cache(maxsize=64)
def _programmed(arch: NMArray, *, select: bool) -> NMArray:
    """Return `arch` with everything that a product's program does not depend on at its least."""
    training = arch.training if select else None
    return replace(array_of(arch), clock_hz=arch.clock_hz, dram=arch.dram, training=training)


def lowered(
    arch: NMArray, problem: Problem, setting: NMSetting, shape: TileShape
) -> tuple[Block, abc.Mapping[str, int]]:
    """Return the program of a mapped GEMM and its initial tokens."""
    return _lowered(_programmed(arch, select=problem.select), problem, setting, shape)


_lowered = lru_cache(maxsize=1024)(lower_gemm)


def exact_cost(
    arch: NMArray, goal: Goal, problem: Problem, setting: NMSetting, shape: TileShape
) -> Number:
    """Return the cost of one execution as the lowered program has it."""
    program, tokens = lowered(arch, problem, setting, shape)
    op = OpSchedule(
        name="",
        kind="",
        program=program,
        tokens=tokens,
        macs_effectual=goal.macs_effectual,
        counts=goal.fixed,
    )
    return op_cost(arch, goal.objective, op)


def _named(name: str) -> str:
    """Return the operator, and its pass if its name is one a training step gives (`conv.bp_0`)."""
    phase = name.rpartition(".")[2].partition("_")[0]
    return f"Op {name!r} ({phase} pass)" if phase in PRODUCT_PASSES else f"Op {name!r}"


def no_mapping(arch: NMArray, problem: Problem, name: str, fitting: int = 0) -> NoMapping:
    """Return an error naming the buffer that the least demanding tile overflows everywhere.

    If some tiles fit, none of them was accepted.
    """
    if fitting:
        return NoMapping(f"Op {name!r}: none of {fitting} tiles that fit is accepted")
    return NoMapping(_why(arch, problem, name))


def _why(arch: NMArray, problem: Problem, name: str) -> str:
    needs = [least_needs(arch, s, problem) for s in settings(arch, problem)]
    least = {buffer: min(found[buffer][0] for found in needs) for buffer in needs[0]}
    sizes = {buffer: size for buffer, (_, size) in needs[0].items()}
    for buffer, need in least.items():
        if need > sizes[buffer]:
            return (
                f"{_named(name)} fits no tile in {buffer}: the smallest needs {need} bytes, "
                f"{buffer}.capacity_bytes is {sizes[buffer]}"
            )
    each = ", ".join(f"{need} of {sizes[buffer]} of {buffer}" for buffer, need in least.items())
    return (
        f"{_named(name)} fits no tile in all buffers at once; "
        f"the smallest tile for each alone needs, in bytes, {each}"
    )
