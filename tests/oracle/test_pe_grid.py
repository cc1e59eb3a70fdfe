"""Exact timing of the PEGrid equals a cycle-by-cycle simulation of its FIFOs."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch import BufferParams, DramParams
from simulator.arch.pe_grid import PEGrid, Skip
from simulator.units.pe_chunks import grid_job, pack, pack_mask
from simulator.units.pe_grid import time_product
from simulator.units.pe_trace import run
from tests.oracle.pe_cycles import simulate


def drawn_grid(rng):
    buffer = BufferParams(capacity_bytes=1024)
    chunk, rows = int(rng.choice([1, 3, 4, 16, 64])), int(rng.integers(1, 5))
    return PEGrid(
        rows=rows,
        cols=int(rng.integers(1, 5)),
        chunk=chunk,
        fifo_depth=int(rng.choice([1, 2, 3, 40])),
        macs_per_pe=int(rng.integers(1, min(chunk, 5), endpoint=True)),
        skip=list(Skip)[rng.integers(4)],
        look_ahead=bool(rng.integers(2)),
        drain_rows=int(rng.choice([1, rows])),
        act_buffer=buffer,
        weight_buffer=buffer,
        out_buffer=buffer,
        dram=DramParams(bandwidth_bytes_per_s=10**9),
    )


def drawn_product(rng, grid):
    m, k, n = (int(rng.integers(1, 2 * s + 2)) for s in (grid.rows, 4 * grid.chunk, grid.cols))
    act, weight = (rng.random(s) < rng.choice([0, 0.2, 0.6, 1]) for s in ((m, k), (k, n)))
    return act * (rng.random((m, 1)) < 0.8), weight * (rng.random((1, n)) < 0.8)


@pytest.mark.parametrize("seed", range(8))
def test_product_takes_the_cycles_of_the_simulated_fifos(seed):
    """Cycles, their causes, busy cycles and empty chunks are those of the brute force."""
    for point in range(60):
        rng = np.random.default_rng([seed, point])
        grid = drawn_grid(rng)
        act, weight = drawn_product(rng, grid)
        machine = simulate(grid, act, weight)
        masks = pack_mask(act, grid.chunk), pack_mask(weight.T, grid.chunk)
        timing = time_product(grid, *masks, union=True)
        assert timing.cycles == machine.cycles
        assert timing.array_busy == machine.busy
        assert timing.empty_chunks == machine.empty
        causes = dict(timing.pe_cycles)
        causes["wait"] = causes.pop("fill") + causes.pop("coupling")
        assert causes == machine.causes


@pytest.mark.parametrize("cols", [16, 33, 70])
@pytest.mark.parametrize("look_ahead", [False, True])
def test_wide_grid_takes_the_cycles_of_the_simulated_fifos(cols, look_ahead):
    """The kernel's loop over columns is exact at the widths where it runs on whole vectors."""
    rng = np.random.default_rng(cols)
    grid = replace(
        drawn_grid(rng), cols=cols, chunk=64, fifo_depth=2, skip=Skip.BOTH, look_ahead=look_ahead
    )
    act = rng.random((2 * grid.rows, 600)) < rng.random((2 * grid.rows, 1)) * 0.2
    weight = rng.random((600, cols + 5)) < rng.random((1, cols + 5)) * 0.3
    machine = simulate(grid, act, weight)
    timing = time_product(grid, pack_mask(act, 64), pack_mask(weight.T, 64), union=True)
    assert (timing.cycles, timing.array_busy) == (machine.cycles, machine.busy)
    assert timing.empty_chunks == machine.empty
    assert timing.pe_cycles["work"] == machine.causes["work"]
    plain = time_product(grid, pack_mask(act, 64), pack_mask(weight.T, 64))
    assert (plain.spans == timing.spans).all()
    assert plain.pe_cycles == timing.pe_cycles


@pytest.mark.parametrize("seed", range(4))
def test_trace_without_stalls_takes_the_cycles_of_the_simulated_fifos(seed):
    """The handshake model, which the RTL equals, agrees with the brute force as well."""
    for point in range(40):
        rng = np.random.default_rng([100 + seed, point])
        grid = drawn_grid(rng)
        act, weight = drawn_product(rng, grid)
        machine = simulate(grid, act, weight)
        job = grid_job(grid, m=len(act), k=len(weight), n=weight.shape[1])
        trace = run(job, pack(job, act.astype(np.int8), weight.astype(np.int8)))
        assert trace.cycles == machine.cycles
        assert trace.pe_cycles == machine.causes
        assert (trace.array_busy, trace.empty_chunks) == (machine.busy, machine.empty)
