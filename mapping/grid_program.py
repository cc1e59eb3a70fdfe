"""Programs of blockings on the PEGrid: loads, work, drains and stores, and what they come to."""

import collections.abc as abc
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mapping.grid_blocks import Blocking
from mapping.inference import transfer_cycles
from simulator.arch import PEGrid
from simulator.counts import Event, add
from simulator.models.product import Packed
from simulator.schedule import Block, Step, Unit

__all__ = ["least_cycles", "moved", "program", "tokens"]

Ints = NDArray[np.int64]

ROUNDS: Final = 2
"""Of the longest path; a second one times most programs exactly."""


def tokens(b: Blocking) -> abc.Mapping[str, int]:
    """Return the free slots before the program of a blocking."""
    out = 1 + (b.size > 1)
    return {"shadow": 1, "act.free": b.act.slots, "weight.free": b.weight.slots, "out.free": out}


def program(b: Blocking) -> Block:
    """Return the blocks in order; a store is issued behind the next block's loads."""
    grid, parts = b.timed.grid, {"act": b.act, "weight": b.weight}
    bits = dict(zip(parts, map(Ints.tolist, b.load_bits()), strict=True))
    stores = b.store_bits().tolist()
    block: list[Step] = []
    for index in range(b.size):
        fresh = [name for name, part in parts.items() if part.loaded[index]]
        last = index == b.size - 1
        done = [name for name, part in parts.items() if last or part.loaded[index + 1]]
        block += [_load(grid, name, bits[name][index]) for name in fresh]
        block += _array(b, index, fresh, done)
        if index:
            block.append(_store(grid, stores[index - 1]))
    return (*block, _store(grid, stores[-1]))


def _load(grid: PEGrid, name: str, bits: int) -> Step:
    return Step(
        unit=Unit.DMA,
        label=f"load {name}",
        cycles=transfer_cycles(grid, bits),
        latency=grid.dram.latency_cycles,
        waits=(f"{name}.free",),
        releases=(f"{name}.full",),
    )


def _array(b: Blocking, index: int, fresh: list[str], done: list[str]) -> tuple[Step, ...]:
    """Return a block's steps on the array and its drain.

    The sums of the first tile move to the shadow registers when those of the block before have
    left them; so do the others' in turn, whose intervals allow for it.
    """
    first = Step(
        unit=Unit.ARRAY,
        label="first tile",
        cycles=int(b.first[index]),
        busy=int(b.first_busy[index]),
        waits=(*(f"{name}.full" for name in fresh), "out.free"),
    )
    others = Step(
        unit=Unit.ARRAY,
        label="array",
        cycles=int(b.others[index]),
        busy=int(b.others_busy[index]),
        waits=("shadow",),
        releases=("done", *(f"{name}.free" for name in done)),
    )
    drain = Step(
        unit=Unit.DRAIN,
        label="drain",
        cycles=b.timed.grid.drain_beats,
        waits=("done",),
        releases=("shadow", "out.full"),
    )
    return first, others, drain


def _store(grid: PEGrid, bits: int) -> Step:
    return Step(
        unit=Unit.DMA,
        label="store",
        cycles=transfer_cycles(grid, bits),
        waits=("out.full",),
        releases=("out.free",),
    )


def least_cycles(b: Blocking) -> int:
    """Return cycles that the program of a blocking never falls below, and mostly takes.

    They are its longest path that goes from the port to the array and back ROUNDS times. No load
    waits for its slot: a store before it on the port waits for the block that frees the slot.
    """
    grid, drain = b.timed.grid, b.timed.grid.drain_beats
    act, weight = (transfer_cycles(grid, bits) for bits in b.load_bits())
    # In order: the loads of block 0, those of 1, the store of 0, the loads of 2 and so on.
    loads = np.maximum(2 * np.arange(b.size) - 1, 0)
    stores = np.minimum(2 * np.arange(b.size) + 2, 2 * b.size - 1)
    spent, wait = np.zeros((2, 2 * b.size), np.int64)
    spent[loads], spent[stores] = act + weight, transfer_cycles(grid, b.store_bits())
    ends = port = np.cumsum(spent)
    array = np.cumsum(np.maximum(b.first, drain) + b.others)
    for _ in range(ROUNDS):
        ready = ends[loads] + grid.dram.latency_cycles
        done = array + np.maximum.accumulate(ready + b.first + b.others - array)
        wait[stores] = done + drain
        ends = port + np.maximum.accumulate(wait + spent - port)
    return int(ends[-1])


def moved(b: Blocking) -> dict[Event, int]:
    """Return the events of bringing operands in and results out."""
    bits = b.timed.grid.operand_bits
    outputs = bits * int(b.outputs.sum())
    found: list[dict[Event, int]] = [
        b.timed.written.events("dram", "write"),
        {("out_buffer", "write", "full"): outputs, ("out_buffer", "read", "full"): outputs},
    ]
    for name, part in (("act_buffer", b.act), ("weight_buffer", b.weight)):
        values, metadata = int(part.value_bits.sum()), int(part.metadata_bits.sum())
        found += [
            Packed(value_bits=values, metadata_bits=metadata).events("dram", "read"),
            {
                (name, "write", "full"): bits * int(part.nonzeros[part.loaded].sum()),
                (name, "write", "metadata"): int(part.positions[part.loaded].sum()),
            },
        ]
    return add(found)
