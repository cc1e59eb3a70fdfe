"""Programs as code: instructions in loops that are folded here and unrolled in memory.

The machine has no loops: `encode` unrolls them, every field a linear function of the iteration
numbers around it, without a Python loop over instructions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.dsp_isa.layout import (
    FIELDS,
    OPCODES,
    RING,
    WORDS,
    Instruction,
    Module,
    mask_modules,
    module_mask,
)
from workloads.canonical import Spec

__all__ = ["Code", "Loop", "count", "decode", "encode", "size_words", "walk"]

Words = NDArray[np.uint32]

AXES: Final = 4
"""Loops that may stand around an instruction: layer, head, tile of tokens, tile of columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop(Spec):
    """`body` run `times` times; `axis` is the place of its iteration in strides."""

    axis: int
    times: int
    body: "Code"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"A Loop runs at least once, not {self.times} times")
        if not 0 <= self.axis < AXES:
            raise ValueError(f"A Loop has axis 0 to {AXES - 1}, not {self.axis}")


Code = tuple[Instruction | Loop, ...]


def walk(code: Code, times: int = 1) -> Iterator[tuple[Instruction, int]]:
    """Yield every distinct instruction with the number of times it runs."""
    for item in code:
        if isinstance(item, Loop):
            yield from walk(item.body, times * item.times)
        else:
            yield item, times


def count(code: Code) -> dict[Module, int]:
    """Return the instructions of every module."""
    found = dict.fromkeys(Module, 0)
    for instruction, times in walk(code):
        found[instruction.module] += times
    return found


def size_words(code: Code) -> int:
    """Return the length of the unrolled program in words."""
    return sum(WORDS[module] * times for module, times in count(code).items())


def _unrolled(code: Code, leaves: list[Instruction]) -> NDArray[np.int64]:
    """Return (instructions, 1 + AXES) of leaf number and iteration of each loop around it."""
    parts = []
    for item in code:
        if isinstance(item, Loop):
            body = _unrolled(item.body, leaves)
            rows = np.tile(body, (item.times, 1))
            rows[:, 1 + item.axis] = np.repeat(np.arange(item.times), len(body))
            parts.append(rows)
        else:
            row = np.zeros((1, 1 + AXES), dtype=np.int64)
            row[0, 0] = len(leaves)
            leaves.append(item)
            parts.append(row)
    return np.concatenate(parts) if parts else np.zeros((0, 1 + AXES), dtype=np.int64)


def _field(leaf: Instruction, name: str, index: NDArray[np.int64]) -> NDArray[np.int64]:
    strides = leaf.strides.get(name, ())
    values = leaf.get(name) + index[:, : len(strides)] @ np.array(strides, dtype=np.int64)
    top = 1 << FIELDS[leaf.module][name][2]
    if name in RING:
        return np.asarray(values % top)
    if len(values) and not 0 <= values.min() <= values.max() < top:
        raise ValueError(
            f"{leaf.module} {name} must be 0 to {top - 1}, but a loop takes it to {values.max()}"
        )
    return np.asarray(values)


def _first_word(leaf: Instruction) -> int:
    waits, releases = (module_mask(leaf.module, m) for m in (leaf.waits, leaf.releases))
    return OPCODES[leaf.module] << 28 | waits << 23 | releases << 18


def encode(code: Code) -> Words:
    """Return the unrolled program as it stands in memory, uint32[words].

    Raises ValueError naming module and field if a loop takes a field out of its range.
    """
    leaves: list[Instruction] = []
    rows = _unrolled(code, leaves)
    lengths = np.array([leaf.words for leaf in leaves], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths[rows[:, 0]])]) if len(rows) else np.zeros(1)
    words = np.zeros(int(starts[-1]), dtype=np.int64)
    by_leaf = np.argsort(rows[:, 0], kind="stable")
    bounds = np.searchsorted(rows[by_leaf, 0], np.arange(len(leaves) + 1))
    for number, leaf in enumerate(leaves):
        chosen = by_leaf[bounds[number] : bounds[number + 1]]
        at = starts[chosen].astype(np.int64)
        words[at] |= _first_word(leaf)
        for name in {**leaf.fields, **leaf.strides}:
            word, low, _ = FIELDS[leaf.module][name]
            words[at + word] |= _field(leaf, name, rows[chosen, 1:]) << low
    return words.astype(np.uint32)


_BY_OPCODE = {code: module for module, code in OPCODES.items()}


def _decode_one(module: Module, words: Sequence[int]) -> Instruction:
    first = words[0]
    return Instruction(
        module=module,
        waits=mask_modules(module, first >> 23 & 31),
        releases=mask_modules(module, first >> 18 & 31),
        fields={
            name: words[word] >> low & ((1 << width) - 1)
            for name, (word, low, width) in FIELDS[module].items()
        },
    )


def decode(words: Words) -> tuple[Instruction, ...]:
    """Return the instructions of a program in memory.

    Raises ValueError naming the word of an unknown opcode or of a last instruction cut short.
    """
    memory = words.tolist()
    found, at = [], 0
    while at < len(memory):
        opcode = memory[at] >> 28
        if opcode not in _BY_OPCODE:
            raise ValueError(f"Program word {at}: unknown opcode {opcode}")
        module = _BY_OPCODE[opcode]
        if at + WORDS[module] > len(memory):
            raise ValueError(
                f"Program word {at}: a {module} takes {WORDS[module]} words, "
                f"{len(memory) - at} are left"
            )
        found.append(_decode_one(module, memory[at : at + WORDS[module]]))
        at += WORDS[module]
    return tuple(found)
