"""Mappers of the PEGrid against brute force over every blocking, for every objective."""

from itertools import product

import numpy as np
import pytest

from mapping import NoMapping, map_graph
from mapping.graph import MAPPERS
from mapping.grid_blocks import MOST_BLOCKS, blocking
from mapping.grid_program import least_cycles, program, tokens
from mapping.objective import Objective, op_cost
from simulator.arch.load import load_arch
from simulator.counts import add
from simulator.engine import program_cycles
from simulator.models.product import least_packed
from simulator.schedule import OpSchedule
from tests.mapping.test_pe_grid import timed
from workloads.gemm import gemm_graph
from workloads.sparsity import Balanced, Dense, NofM, Unstructured

BUFFERS = ("act_buffer", "weight_buffer", "out_buffer")


def instance(seed):
    """Return machine, graph of one product and objective number `seed`."""
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([1, 2, 4]))
    arch = load_arch(
        "grid-tiny",
        rows=rows,
        cols=int(rng.integers(1, 5)),
        drain_rows=int(rng.choice([1, rows])),
        skip=str(rng.choice(["none", "weights", "activations", "both"])),
        look_ahead=bool(rng.integers(2)),
        balance=str(rng.choice(["none", "greedy"])),
        dram={
            "bandwidth_bytes_per_s": int(rng.choice([10**8, 10**9, 10**10])),
            "latency_cycles": int(rng.choice([0, 10, 200])),
        },
        **{name: {"capacity_bytes": int(rng.choice([100, 300, 1000, 4000]))} for name in BUFFERS},
    )
    zeros = [Dense(), Unstructured(0.3), Unstructured(0.8), Balanced(8, 0.25), NofM(2, 4)]
    m, k, n = (int(size) for size in rng.integers(1, 29, 3))
    graph = gemm_graph(
        m, k, n,
        groups=int(rng.choice([1, 1, 3])),
        weight=zeros[rng.integers(5)],
        activation=zeros[rng.integers(3)],
    )  # fmt: skip
    return arch, graph, list(Objective)[seed % len(Objective)]


def cuts(extent):
    """Return the numbers of parts in the space: 2^i and 3 * 2^i below the extent, and it."""
    return sorted({p for p in range(1, extent + 1) if p == extent or p & -p in (p, p / 3)})


def every_fitting(arch, whole):
    """Return all blockings whose largest block fits the buffers, in all its slots."""
    found = []
    for parts in product(*map(cuts, whole.cells.cell.shape)):
        for outer in (True, False):
            b = blocking(whole, parts, rows_outer=outer)
            sides = ((b.act, arch.act_buffer), (b.weight, arch.weight_buffer))
            needs = [
                ((s.positions + 8 * s.nonzeros).max() * min(2, s.loaded.sum()), room)
                for s, room in sides
            ]
            needs.append((8 * b.outputs.max() * min(2, b.size), arch.out_buffer))
            if all(bits <= 8 * room.capacity_bytes for bits, room in needs):
                found.append(b)
    return found


def space(arch, whole):
    """Return the blockings in the space, one of each pair of orders that are the same blocks."""
    found = every_fitting(arch, whole)
    most = max(MOST_BLOCKS, 3 * min((b.size for b in found), default=0))
    return [b for b in found if b.size <= most and (b.shape[-2:] == "mn" or 1 not in b.parts[1:])]


def moved(b):
    """Return the events of moving data, block by block."""
    outputs = 8 * int(b.outputs.sum())
    found = [
        b.timed.written.events("dram", "write"),
        {("out_buffer", "write", "full"): outputs, ("out_buffer", "read", "full"): outputs},
    ]
    for name, part in (("act_buffer", b.act), ("weight_buffer", b.weight)):
        for positions, nonzeros, loaded in zip(
            part.positions.tolist(), part.nonzeros.tolist(), part.loaded, strict=True
        ):
            if loaded:
                found.append(least_packed(positions, nonzeros, 8).events("dram", "read"))
                held = {
                    (name, "write", "full"): 8 * nonzeros,
                    (name, "write", "metadata"): positions,
                }
                found.append(held)
    return add(found)


def keys(arch, objective, op, every):
    """Return cost, bits loaded and cycles of every blocking, `op` being lowered by one of them."""
    events = {shape: moved(b) for shape, b in every.items()}
    own = events[chosen(op)]
    rest = add([op.counts, {event: -n for event, n in own.items()}])
    found = {}
    for shape, b in every.items():
        counts = add([rest, events[shape]])
        done = OpSchedule(name="", kind="", program=program(b), tokens=tokens(b), counts=counts)
        loaded = ("dram", "read")
        bits = sum(n for (part, did, _), n in events[shape].items() if (part, did) == loaded)
        cycles = program_cycles(done.program, done.tokens)
        found[shape] = op_cost(arch, objective, done), bits, cycles
    return found


def chosen(op):
    return op.detail["tile"].rpartition(", ")[2]


def check(seed):
    arch, graph, objective = instance(seed)
    whole = timed(graph, arch)
    every = {b.shape: b for b in space(arch, whole)}
    if not every:
        for mapper in MAPPERS:
            with pytest.raises(NoMapping, match=r"^Op 'gemm' fits no buffer: its smallest block "):
                map_graph(graph, arch, mapper=mapper, objective=objective)
        return
    mapped = {m: map_graph(graph, arch, mapper=m, objective=objective) for m in MAPPERS}
    known = keys(arch, objective, mapped["greedy"].schedule.ops[0], every)
    least = min(known.values())
    assert all(least_cycles(b) <= known[shape][2] for shape, b in every.items())
    for mapper, found in mapped.items():
        (op,), (choice,) = found.schedule.ops, found.mappings
        assert choice.shape == every[chosen(op)].tile
        assert (found.considered, choice.considered) == (len(every), len(every))
        assert found.cost == known[chosen(op)][0] == op_cost(arch, objective, op)
        assert found.bound <= least[0] <= found.cost
        if mapper != "greedy":
            assert (known[chosen(op)], found.bound, found.gap) == (least, found.cost, 0)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_proving_mappers_equal_brute_force_and_greedy_states_an_honest_bound(first):
    """On random small instances and for every objective, ties included, and nothing is missed."""
    for seed in range(first, first + 10):
        check(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(60, 300, 10))
def test_proving_mappers_equal_brute_force_on_many_more(first):
    """The same, on 240 further instances."""
    for seed in range(first, first + 10):
        check(seed)
