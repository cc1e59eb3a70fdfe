"""Exact time of programs: every node is a (max, +) transfer, layers are applied one by one.

A node's code is the same in every layer of a stage, so its transfer is computed once; the time
of all modules and free tokens then runs through the nodes, and what a node adds to the last end
of any module is its share of the program. Shares sum to the program's cycles.
"""

import collections.abc as abc
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mapping.dsp.compile import Program, Section
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import Code, Module, duration, program_steps, walk
from simulator.dsp_isa.execute import channel
from simulator.engine import Transfer, transfer, without
from simulator.schedule import Block, Step

__all__ = ["VARIANTS", "Timeline", "busy_cycles"]

Times = NDArray[np.int64]


def _without_latency(step: Step) -> Step:
    return replace(step, latency=0)


def _without(step: Step, *modules: Module) -> Step:
    return replace(step, latency=0, cycles=0 if step.unit in modules else step.cycles)


VARIANTS: Final[abc.Mapping[str, abc.Callable[[Step], Step]]] = {
    "all": lambda step: step,
    "latency": _without_latency,
    "store": lambda step: _without(step, Module.ST),
    "bandwidth": lambda step: _without(step, Module.ST, Module.LD),
}
"""What is taken away, in this order, to find the causes of waiting."""


def busy_cycles(arch: DspChain, code: Code) -> dict[Module, int]:
    """Return the cycles in which each module works."""
    busy = dict.fromkeys(Module, 0)
    for instruction, times in walk(code):
        busy[instruction.module] += duration(arch, instruction)[0] * times
    return busy


@dataclass(slots=True)
class _State:
    times: Times
    tokens: abc.Mapping[str, int]

    @property
    def names(self) -> list[str]:
        """What each time is of: modules, then the tokens of every channel."""
        tokens = [name for name in sorted(self.tokens) for _ in range(self.tokens[name])]
        return [*Module, *tokens]

    @property
    def end(self) -> int:
        return int(self.times[: len(Module)].max())


def _used(code: Code) -> frozenset[str]:
    """Return the modules and channels that `code` uses; it leaves the times of others alone."""
    found: set[str] = set()
    for instruction, _ in walk(code):
        module = instruction.module
        found.add(module)
        found.update(channel(source, module) for source in instruction.waits)
        found.update(channel(module, target) for target in instruction.releases)
    return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A node's code, kept so that its id stays its own, and what follows from it."""

    code: Code
    steps: Block
    used: frozenset[str]


class Timeline:
    """Times programs of one machine and remembers the transfers of their nodes."""

    def __init__(self, arch: DspChain) -> None:
        """Start with nothing known."""
        self.arch = arch
        self._codes: dict[int, _Known] = {}
        self._transfers: dict[tuple[int, str, tuple[tuple[str, int], ...]], Transfer] = {}

    def shares(self, program: Program, variant: str = "all") -> list[Times]:
        """Return for every stage int64[times, nodes]: what each node adds to the time."""
        state = _State(
            np.zeros(len(Module) + sum(program.tokens.values()), dtype=np.int64), program.tokens
        )
        done = 0
        stages = []
        for stage in program.stages:
            shares = np.zeros((stage.times, len(stage.sections)), dtype=np.int64)
            used = frozenset().union(*(self._known(s.code).used for s in stage.sections))
            for layer in range(stage.times):
                before, names = state.times - done, state.names
                for index, section in enumerate(stage.sections):
                    self._apply(section, variant, state)
                    shares[layer, index] = state.end - done
                    done = state.end
                rows = [name in used for name in names]
                if names == state.names and not (state.times - done - before)[rows].any():
                    # All that the layer uses moved by one constant: every other layer moves it on.
                    shares[layer + 1 :] = shares[layer]
                    state.times[rows] += int(shares[layer + 1 :].sum())
                    done = state.end
                    break
            stages.append(shares)
        return stages

    def cycles(self, program: Program) -> int:
        """Return the cycles of one run of `program`."""
        return int(sum(shares.sum() for shares in self.shares(program)))

    def _apply(self, section: Section, variant: str, state: _State) -> None:
        key = (id(section.code), variant, tuple(sorted(state.tokens.items())))
        if key not in self._transfers:
            block = without(self._known(section.code).steps, VARIANTS[variant])
            self._transfers[key] = transfer(block, Module, state.tokens)
        found = self._transfers[key]
        state.times, state.tokens = found(state.times), found.tokens

    def _known(self, code: Code) -> "_Known":
        if id(code) not in self._codes:
            steps = program_steps(self.arch, code)
            self._codes[id(code)] = _Known(code=code, steps=steps, used=_used(code))
        return self._codes[id(code)]
