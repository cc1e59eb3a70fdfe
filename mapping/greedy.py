"""Greedy mapping: the setting that keeps the array busiest, and of a few large tiles the best.

A baseline, and fast enough for sweeps: only every few sizes of each dimension are looked at, the
largest first among them, and one program is lowered. The bound it states holds for the whole space.
"""

from collections.abc import Sequence
from functools import lru_cache

from mapping.exhaustive import Accept, exact_cost, no_mapping, untiled
from mapping.least import floor, ranked
from mapping.objective import Goal, Number, Objective
from mapping.problem import Problem
from mapping.space import Quanta, Tiles, all_tiles, quanta, settings, whole_cycles
from mapping.types import Mapping
from simulator.arch import MemoryMode, NMArray
from simulator.nm_tile import NMSetting

__all__ = ["greedy", "setting_floors"]

EVERY = 3
"""Of the sizes of a dimension (1, 2, 3, 4, 6, 8 ... parts) every third is looked at."""


def greedy(
    arch: NMArray, problem: Problem, name: str, goal: Goal, accept: Accept | None = None
) -> Mapping:
    """Return a good mapping of `problem` without a search, and a bound no mapping can beat.

    `accept` may refuse tiles. Raises NoMapping, naming operator, buffer, need and size, if no tile
    fits, and naming the operator if every one is refused.
    """
    if arch.memory is MemoryMode.IDEAL:
        return untiled(arch, problem, name, goal)
    known = settings(arch, problem)
    floors = setting_floors(arch, goal, problem, known)
    order = sorted(range(len(known)), key=floors.__getitem__)
    for few in (True, False):
        fitting = 0
        for setting in (known[i] for i in order):
            tiles = _few_tiles(problem, quanta(arch, setting)) if few else None
            found = ranked(arch, goal, setting, problem, tiles)
            fitting += len(found)
            shapes = map(found.shape, range(len(found)))
            shape = next((s for s in shapes if not accept or accept(setting, s)), None)
            if shape is None:
                continue
            return Mapping(
                op=name,
                setting=setting,
                shape=shape,
                cost=exact_cost(arch, goal, problem, setting, shape),
                bound=min(floors),
                considered=fitting,
            )
    raise no_mapping(arch, problem, name, fitting)


@lru_cache(maxsize=4096)  # of the machines of a sweep many have the same array
def _few_tiles(problem: Problem, steps: Quanta) -> Tiles:
    return all_tiles(problem, steps, every=EVERY)


def setting_floors(
    arch: NMArray, goal: Goal, problem: Problem, known: Sequence[NMSetting]
) -> Sequence[Number]:
    """Return what no tiling under each setting can beat."""
    if goal.objective is Objective.CYCLES:
        return whole_cycles(arch, problem, known)
    return [floor(arch, goal, s, problem) for s in known]
