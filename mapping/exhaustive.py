"""Exhaustive mapping with pruning: the best point of the space of `mapping.space`, proved.

Settings are taken by the array cycles no tiling can beat, candidates by their lower bound; exact
cycles come from the engine. A candidate whose bound reaches the best exact count found so far,
and all behind it, cannot win.
"""

from collections.abc import Callable
from dataclasses import replace

from mapping.lower import lower_gemm
from mapping.problem import Problem, TileShape
from mapping.space import candidates, least_needs, settings, whole_array_cycles
from mapping.types import Mapping, NoMapping
from simulator.arch import MemoryMode, NMArray
from simulator.nm_tile import NMSetting
from simulator.schedule import OpSchedule
from simulator.simulate import op_cycles
from workloads.graph import Phase

__all__ = ["Accept", "exhaustive"]

PRODUCT_PASSES = (Phase.FF, Phase.BP, Phase.WU)
"""Passes of a training step that have products."""


Accept = Callable[[NMSetting, TileShape], bool]


def exhaustive(arch: NMArray, problem: Problem, name: str, accept: Accept | None = None) -> Mapping:
    """Return the mapping of `problem` with the fewest cycles in the space.

    `accept` may refuse tiles, as a memory layout does. Raises NoMapping, naming operator, buffer,
    need and size, if no tile fits, and naming the operator if every one is refused.
    """
    floors = [(whole_array_cycles(arch, s, problem), s) for s in settings(arch, problem)]
    floors.sort(key=lambda pair: pair[0])
    if arch.memory is MemoryMode.IDEAL:  # no memory, no tiling
        cycles, setting = floors[0]
        return _mapping(name, setting, problem.whole, cycles, len(floors))
    best: Mapping | None = None
    considered = 0
    for floor, setting in floors:
        if best and floor >= best.cycles:
            break
        found = candidates(arch, setting, problem)
        considered += len(found)
        for index, bound in enumerate(found.bound):
            if best and bound >= best.cycles:
                break
            shape = found.shape(index)
            if accept and not accept(setting, shape):
                continue
            cycles = _exact(arch, problem, setting, shape)
            if best is None or cycles < best.cycles:
                best = _mapping(name, setting, shape, cycles, 0)
    if best is None and considered:
        raise NoMapping(f"Op {name!r}: none of {considered} tiles that fit is accepted")
    if best is None:
        raise NoMapping(_why(arch, problem, name))
    return replace(best, considered=considered)


def _mapping(
    name: str, setting: NMSetting, shape: TileShape, cycles: int, considered: int
) -> Mapping:
    return Mapping(
        op=name, setting=setting, shape=shape, cycles=cycles, bound=cycles, considered=considered
    )


def _exact(arch: NMArray, problem: Problem, setting: NMSetting, shape: TileShape) -> int:
    program, tokens = lower_gemm(arch, problem, setting, shape)
    return op_cycles(arch, OpSchedule(name="", kind="", program=program, tokens=tokens))


def _named(name: str) -> str:
    """Return the operator, and its pass if its name is one a training step gives (`conv.bp_0`)."""
    phase = name.rpartition(".")[2].partition("_")[0]
    return f"Op {name!r} ({phase} pass)" if phase in PRODUCT_PASSES else f"Op {name!r}"


def _why(arch: NMArray, problem: Problem, name: str) -> str:
    """Name the buffer that the least demanding tile of every setting overflows."""
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
