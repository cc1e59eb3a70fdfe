"""A machine's program: what the host writes into the machine and where tensors lie in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const
from amaranth.lib import data

from rtl.machine import shapes
from rtl.machine.shapes import CHANNELS, UNITS, Bank
from simulator.arch import NMArray
from simulator.schedule import Unit
from workloads.canonical import Spec

__all__ = ["LoadWord", "MachineProgram", "Region", "load_bits", "mask", "packed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region(Spec):
    """A tensor in memory: its first beat, its bits, and the layout they have.

    dense: elements of `bits`, the last dimension fastest. ff: kept pairs (value low, index above
    it) of a (k, n) tensor's groups along k, by group, column and pair. bp: of its groups along n,
    by row, group and pair.
    """

    beat: int
    size_bits: int
    layout: str = "dense"
    kept: int = 1
    group: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWord(Spec):
    """A word for the machine's load port."""

    bank: int
    address: int
    word: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineProgram(Spec):
    """Everything a machine needs to run a schedule.

    `words` go through the load port in any order, `regions` place tensors in memory by name, and
    `ops` names the operators that take cycles, in order.
    """

    words: tuple[LoadWord, ...]
    regions: Mapping[str, Region]
    beats: int
    ops: tuple[str, ...]


def packed(layout: data.Layout, value: Any) -> int:
    """Return the word of a layout's constant; negative fields wrap."""
    word: int = Const.cast(layout.const(value)).value
    return word


def load_bits(layout: data.StructLayout, word: LoadWord) -> int:
    """Return a word as the load port takes it; `layout` is the port's."""
    fields = {"bank": word.bank, "address": word.address, "word": word.word}
    return sum(value << layout[name].offset for name, value in fields.items())


def mask(channels: Sequence[str]) -> int:
    """Return the bits of the channels; a stream's are the activations' and the results'."""
    bits = 0
    for channel in channels:
        bit = 1 << CHANNELS.index(channel.replace("in.", "act."))
        if bits & bit:
            raise ValueError(f"A step takes or gives one token of {channel!r}, not several")
        bits |= bit
    return bits


def step_words(
    arch: NMArray, steps: Mapping[Unit, Sequence[Mapping[str, Any]]]
) -> tuple[LoadWord, ...]:
    """Return every unit's program, each closed by a step behind the last operator.

    Raises ValueError for a program that is longer than the unit's memory.
    """
    words = []
    layouts = shapes.steps(arch)
    for unit in UNITS:
        program = [*steps[unit], {"op": shapes.OP_BEHIND}]
        if len(program) > shapes.PROGRAM_STEPS[unit]:
            raise ValueError(
                f"The program needs {len(program)} steps of unit {unit}, "
                f"the machine holds {shapes.PROGRAM_STEPS[unit]}"
            )
        bank = Bank[unit.name].value
        words += [
            LoadWord(bank=bank, address=at, word=packed(layouts[unit], step))
            for at, step in enumerate(program)
        ]
    return tuple(words)
