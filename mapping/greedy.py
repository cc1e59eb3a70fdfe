"""Greedy mapping: the setting that keeps the array busiest, and of a few large tiles the best.

A baseline, and fast enough for sweeps: only every few sizes of each dimension are looked at, the
largest first among them, and one program is lowered. The bound it states holds for the whole space.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain

from mapping.exhaustive import Accept, exact_cost, no_mapping, untiled
from mapping.least import floor, ranked
from mapping.objective import Goal, Number, Objective
from mapping.problem import Problem
from mapping.space import (
    Candidates,
    Measured,
    all_tiles,
    array_of,
    candidates,
    fitting,
    measured,
    quanta,
    settings,
    whole_cycles,
)
from mapping.types import Mapping
from simulator.arch import MemoryMode, NMArray
from simulator.nm_tile import NMSetting

__all__ = ["greedy", "setting_floors"]

EVERY = 3
"""Of the sizes of a dimension (1, 2, 3, 4, 6, 8 ... parts) every third is looked at."""

Choice = tuple[NMSetting, Candidates]


def greedy(
    arch: NMArray, problem: Problem, name: str, goal: Goal, accept: Accept | None = None
) -> Mapping:
    """Return a good mapping of `problem` without a search, and a bound no mapping can beat.

    `accept` may refuse tiles. Raises NoMapping, naming operator, buffer, need and size, if no tile
    fits, and naming the operator if every one is refused.
    """
    if arch.memory is MemoryMode.IDEAL:
        return untiled(arch, problem, name, goal)
    known, floors = settings(arch, problem), setting_floors(arch, goal, problem)
    # Of settings that may cost the same, the one that may be fastest is looked at first.
    keys = list(zip(floors, whole_cycles(arch, problem), strict=True))
    order = [known[i] for i in sorted(range(len(known)), key=keys.__getitem__)]
    fit = 0
    for setting, found in chain(_few(arch, problem, order), _all(arch, problem, order)):
        fit += len(found)
        tiles = ranked(arch, goal, setting, problem, found)
        shapes = map(tiles.shape, range(len(tiles)))
        shape = next((s for s in shapes if not accept or accept(setting, s)), None)
        if shape:
            return Mapping(
                op=name,
                setting=setting,
                shape=shape,
                cost=exact_cost(arch, goal, problem, setting, shape),
                bound=min(floors),
                considered=fit,
            )
    fit = sum(len(found) for _, found in _all(arch, problem, order))
    raise no_mapping(arch, problem, name, fit)


def _few(arch: NMArray, p: Problem, order: Iterable[NMSetting]) -> Iterator[Choice]:
    return ((s, fitting(arch, _few_tiles(array_of(arch), s, p))) for s in order)


def _all(arch: NMArray, p: Problem, order: Iterable[NMSetting]) -> Iterator[Choice]:
    return ((s, candidates(arch, s, p)) for s in order)


@lru_cache(maxsize=1024)  # of the machines of a sweep many have the same array
def _few_tiles(array: NMArray, setting: NMSetting, problem: Problem) -> Measured:
    tiles = all_tiles(problem, quanta(array, setting), every=EVERY)
    return measured(array, setting, problem, tiles)


def setting_floors(arch: NMArray, goal: Goal, problem: Problem) -> Sequence[Number]:
    """Return what no tiling under each setting can beat."""
    if goal.objective is Objective.CYCLES:
        return whole_cycles(arch, problem)
    return [floor(arch, goal, s, problem) for s in settings(arch, problem)]
