"""PEGrid: parameters, jobs, beats and what its exact timing must obey."""

import subprocess
import sys
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from simulator.arch import BufferParams, DramParams, Precision
from simulator.arch.pe_grid import Balance, PEGrid, Skip, ZeroAction
from simulator.arch.pe_job import GridJob
from simulator.units import pe_grid as timing_module
from simulator.units.pe_balance import column_order
from simulator.units.pe_chunks import Chunks, compress, grid_job, pack, pack_mask, unpack
from simulator.units.pe_grid import time_product
from simulator.units.pe_trace import GridStalls, respond, run, run_sequence

BUFFER = BufferParams(capacity_bytes=1024)
GRID = PEGrid(
    rows=2,
    cols=3,
    chunk=8,
    fifo_depth=2,
    act_buffer=BUFFER,
    weight_buffer=BUFFER,
    out_buffer=BUFFER,
    dram=DramParams(bandwidth_bytes_per_s=10**9),
)


def masks(m, k, n, act=0.5, weight=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((m, k)) < act, rng.random((k, n)) < weight


def timed(grid, act, weight, **options):
    return time_product(
        grid, pack_mask(act, grid.chunk), pack_mask(weight.T, grid.chunk), **options
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": 0}, "PEGrid rows must be at least 1, not 0"),
        ({"cols": -1}, "PEGrid cols must be at least 1, not -1"),
        ({"fifo_depth": 0}, "PEGrid fifo_depth must be at least 1, not 0"),
        ({"clock_hz": 0}, "PEGrid clock_hz must be at least 1, not 0"),
        ({"vector_lanes": 0}, "PEGrid vector_lanes must be at least 1, not 0"),
        ({"chunk": 0}, "PEGrid chunk must be 1 to 64, not 0"),
        ({"chunk": 65}, "PEGrid chunk must be 1 to 64, not 65"),
        ({"macs_per_pe": 9}, "PEGrid macs_per_pe must be 1 to chunk = 8, not 9"),
        ({"macs_per_pe": 0}, "PEGrid macs_per_pe must be 1 to chunk = 8, not 0"),
        ({"rows": 4, "drain_rows": 3}, "PEGrid drain_rows must divide rows = 4, not be 3"),
        ({"drain_rows": 0}, "PEGrid drain_rows must divide rows = 2, not be 0"),
        ({"precision": Precision.FP16}, "PEGrid precision must be int8, not fp16"),
    ],
)
def test_parameters_out_of_range_are_refused(change, sentence):
    """Each limit of the parameters has its sentence."""
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        replace(GRID, **change)


def test_chunk_need_not_be_a_power_of_two():
    """The decoder counts mask bits, so any chunk length is legal."""
    assert replace(GRID, chunk=13).most_cycles == 13


def test_job_without_chunks_or_tiles_is_refused():
    """A job runs at least one chunk and one tile."""
    with pytest.raises(ValueError, match="chunks and tiles of at least 1, not 0 and 1"):
        GridJob(arch=GRID, chunks=0)
    with pytest.raises(ValueError, match="chunks and tiles of at least 1, not 1 and 0"):
        GridJob(arch=GRID, chunks=1, tiles=0)


def test_packed_words_hold_the_mask_bit_by_bit():
    """Bit p of chunk i is position i * chunk + p; the rest of the last chunk is absent."""
    mask = np.asfortranarray(masks(5, 29, 1)[0])
    for chunk in (1, 3, 8, 29, 64):
        packed = pack_mask(mask, chunk)
        bits = packed.words[:, :, None] >> np.arange(chunk, dtype=np.uint64) & np.uint64(1)
        whole = bits.transpose(1, 0, 2).reshape(5, -1)
        assert (whole[:, :29] == mask).all()
        assert not whole[:, 29:].any()
        assert (packed.present == mask.sum(axis=0)).all()
        assert (packed.lane_counts == mask.sum(axis=1)).all()


def test_compress_moves_present_values_to_the_front():
    """Present values keep their order, a present zero counts, absent noise does not."""
    mask = np.array([[[False, True, True, False, True]]])
    value = np.array([[[9, 0, -3, 8, 7]]], np.int8)
    assert compress(Chunks(mask=mask, value=value)).tolist() == [[[0, -3, 7, 0, 0]]]


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (2, 8, 3), (5, 17, 7), (4, 40, 2)])
def test_product_of_the_beats_is_numpys(m, k, n):
    """Packing, multiplying and unpacking give the int32 product, ragged edges included."""
    rng = np.random.default_rng([m, k, n])
    act = rng.integers(-128, 128, (m, k), dtype=np.int8)
    weight = rng.integers(-128, 128, (k, n), dtype=np.int8)
    act_mask, weight_mask = masks(m, k, n)
    job = grid_job(GRID, m=m, k=k, n=n)
    out = respond(job, pack(job, act, weight, act_mask, weight_mask))
    wanted = (act * act_mask).astype(np.int32) @ (weight * weight_mask).astype(np.int32)
    assert (unpack(job, out, m=m, n=n) == wanted).all()


def test_sums_wrap_at_32_bits():
    """131073 products of (-128)^2 exceed int32 by a little."""
    k = 131_073
    job = grid_job(GRID, m=1, k=k, n=1)
    full = np.full((1, k), -128, np.int8)
    out = respond(job, pack(job, full, full.T))
    assert out[0, 0, 0] == -(2**31) + 2**14


def test_accumulating_tiles_go_on_from_the_sums_before():
    """Frames of the same outputs add up, over the border between two jobs as well."""
    rng = np.random.default_rng(0)
    act, weight = (rng.integers(-128, 128, s, dtype=np.int8) for s in ((8, 20), (20, 3)))
    frames = act.astype(np.int32).reshape(4, 2, 20) @ weight.astype(np.int32)
    job = replace(grid_job(GRID, m=4, k=20, n=3), accumulate=True)
    beats = [pack(job, act[:4], weight), pack(job, act[4:], weight)]
    added = run_sequence((job, job), beats).outputs.reshape(4, 2, 3)
    assert (added == frames.cumsum(axis=0)).all()
    fresh = run_sequence((job, replace(job, accumulate=False)), beats).outputs.reshape(4, 2, 3)
    assert (fresh[2:] == frames[2:]).all()


@pytest.mark.parametrize(
    ("act", "weight", "sentence"),
    [
        (np.zeros((2, 8)), np.zeros((8, 3), np.int8), "must be int8, not float64 and int8"),
        (np.zeros((2, 8), np.int8), np.zeros((7, 3), np.int8), r"\(m, k\) and \(k, n\), not"),
        (
            np.zeros((2, 9), np.int8),
            np.zeros((9, 3), np.int8),
            r"A \(2, 9\) by \(9, 3\) product needs 2 chunks and 1 tiles, not 1 and 1",
        ),
    ],
)
def test_operands_that_do_not_fit_are_refused(act, weight, sentence):
    """Types, shapes and the job's size are checked before anything is packed."""
    with pytest.raises(ValueError, match=sentence):
        pack(GridJob(arch=GRID, chunks=1), act, weight)


def test_masks_of_different_k_or_chunk_are_refused():
    """Both masks must be packed along the same reduction, in the grid's chunks."""
    act, weight = masks(3, 24, 3)
    good = pack_mask(act, 8)
    with pytest.raises(ValueError, match="not k = 24 and 23 in 3 and 3 chunks"):
        time_product(GRID, good, pack_mask(weight[:23].T, 8))
    with pytest.raises(ValueError, match="chunks of 8, not k = 24 and 24 in 3 and 6 chunks"):
        time_product(GRID, good, pack_mask(weight.T, 4))
    with pytest.raises(ValueError, match="m, k, n of at least 1, not 0, 24, 3"):
        time_product(GRID, pack_mask(act[:0], 8), pack_mask(weight.T, 8))


def test_tile_longer_than_the_counter_is_refused(monkeypatch):
    """The kernel counts a tile's cycles in 32 bits."""
    monkeypatch.setattr(timing_module, "LONGEST", 24)
    with pytest.raises(ValueError, match="A tile of 3 chunks may exceed the 24 cycles"):
        timed(GRID, *masks(2, 24, 3))


def test_jobs_beats_or_delays_that_do_not_match_are_refused():
    """A trace needs beats for each job and a delay of at least 0 for each beat."""
    job = grid_job(GRID, m=2, k=16, n=3)
    beats = pack(job, np.ones((2, 16), np.int8), np.ones((16, 3), np.int8))
    quiet = GridStalls.none((job,))
    with pytest.raises(ValueError, match="one set of beats for each of one grid's jobs, not 0"):
        run_sequence((job,), ())
    other = GridJob(arch=replace(GRID, rows=1), chunks=2)
    with pytest.raises(ValueError, match="one set of beats for each of one grid's jobs, not 2"):
        run_sequence((job, other), (beats, beats))
    with pytest.raises(ValueError, match=r"Delays of top must be \(2, 3\) .* not \(2, 2\)"):
        run(job, beats, replace(quiet, top=quiet.side))
    with pytest.raises(ValueError, match=r"Delays of out .* at least 0"):
        run(job, beats, replace(quiet, out=quiet.out - 1))
    with pytest.raises(ValueError, match=r"The jobs need 4 beats on every stream, not \[2\]"):
        run(replace(job, tiles=2), beats)


@pytest.mark.parametrize("skip", Skip)
@pytest.mark.parametrize("look_ahead", [False, True])
def test_pe_cycles_by_cause_fill_the_product(skip, look_ahead):
    """Every PE cycle has exactly one cause; multiplier uses follow the masks alone."""
    grid = replace(GRID, skip=skip, look_ahead=look_ahead, macs_per_pe=2)
    act, weight = masks(9, 50, 10, 0.3, 0.2)
    timing = timed(grid, act, weight)
    assert sum(timing.pe_cycles.values()) == grid.pes * timing.cycles
    assert min(timing.pe_cycles.values()) >= 0
    assert timing.effectual == (act.astype(int) @ weight.astype(int)).sum()
    assert timing.counts["pe", "mac", "full"] == timing.effectual
    assert timing.counts["pe", "mac", "gated"] == timing.matches - timing.effectual
    assert timing.pe_cycles["work"] * 2 >= timing.matches


def test_zeros_that_are_computed_count_as_full():
    """Gating changes what an unskipped zero costs, never the time."""
    act, weight = masks(9, 50, 10)
    gated = timed(replace(GRID, skip=Skip.NONE), act, weight)
    computed = timed(replace(GRID, skip=Skip.NONE, zero=ZeroAction.COMPUTE), act, weight)
    assert computed.cycles == gated.cycles
    assert computed.counts["pe", "mac", "gated"] == 0
    assert computed.counts["pe", "mac", "full"] == gated.matches == gated.pe_cycles["work"]


def test_dense_grid_takes_every_position():
    """Without skipping a tile takes its chunks times ceil(W / macs), whatever the masks."""
    grid = replace(GRID, skip=Skip.NONE, macs_per_pe=3)
    timing = timed(grid, *masks(4, 40, 6, 0.1, 0.1))
    assert timing.spans.tolist() == [1 + 5 * 3] * 4
    assert timing.cycles == 1 + 4 * 15


def test_small_tiles_wait_for_the_drain():
    """A tile shorter than the drain of the one before waits; the first one never does."""
    grid = replace(GRID, rows=6, skip=Skip.NONE, macs_per_pe=8)
    timing = timed(grid, *masks(12, 8, 3))
    assert timing.spans.tolist() == [2, 2]
    assert timing.cycles == 2 + 6
    assert timing.pe_cycles["drain"] == 5 * grid.pes
    assert timed(replace(grid, drain_rows=6), *masks(12, 8, 3)).cycles == 3


def test_deep_fifos_leave_only_the_slowest_pe():
    """Once a FIFO holds the whole tile, its span is 1 + the cycles of its slowest PE."""
    act, weight = masks(2, 80, 3, 0.4, 0.4)
    timing = timed(replace(GRID, fifo_depth=10), act, weight)
    chunks = (act[:, None] & weight.T[None]).reshape(2, 3, 10, 8).sum(axis=3)
    assert timing.cycles == 1 + np.maximum(chunks, 1).sum(axis=2).max()
    assert timing.pe_cycles["coupling"] == 0


def test_balanced_weights_run_in_perfect_step():
    """Equal counts in every chunk: weight skipping is N of W times faster, nothing waits."""
    rng = np.random.default_rng(0)
    weight = (rng.random((96, 16)).argsort(axis=1).argsort(axis=1) < 2).reshape(12, 8, 16)
    weight = (rng.random((12, 8, 16)).argsort(axis=1) < 2).reshape(96, 16)
    grid = replace(GRID, skip=Skip.WEIGHTS, cols=4, fifo_depth=1)
    timing = timed(grid, np.ones((8, 96), bool), weight)
    assert (timing.spans == 1 + 12 * 2).all()
    assert timing.pe_cycles["coupling"] == timing.pe_cycles["imbalance"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_more_depth_or_less_work_never_costs_a_cycle(seed):
    """Cycles fall, or stay, with deeper FIFOs, more multipliers, look-ahead, fewer non-zeros."""
    act, weight = masks(12, 200, 12, 0.3, 0.4, seed)
    cycles = timed(GRID, act, weight).cycles
    assert timed(replace(GRID, fifo_depth=5), act, weight).cycles <= cycles
    assert timed(replace(GRID, macs_per_pe=2), act, weight).cycles <= cycles
    assert timed(replace(GRID, look_ahead=True), act, weight).cycles <= cycles
    fewer = act & masks(12, 200, 12, 0.7, 1, seed + 50)[0]
    assert timed(GRID, fewer, weight).cycles <= cycles
    for skip in (Skip.WEIGHTS, Skip.ACTIVATIONS, Skip.NONE):
        assert timed(replace(GRID, skip=skip), act, weight).cycles >= cycles


def test_greedy_order_is_the_best_where_columns_alone_decide():
    """Against every order of six features on three columns: none is faster than the greedy one."""
    grid = replace(GRID, skip=Skip.WEIGHTS, fifo_depth=4, balance=Balance.GREEDY)
    act, weight = np.ones((2, 32), bool), masks(1, 32, 6, 1, np.linspace(0.1, 0.9, 6))[1]
    packed = pack_mask(weight.T, 8)
    side = pack_mask(act, 8)
    found = time_product(grid, side, packed.take(column_order(grid, packed))).cycles
    every = [time_product(grid, side, packed.take(list(p))).cycles for p in permutations(range(6))]
    assert found == min(every) < max(every)
    assert column_order(replace(grid, balance=Balance.NONE), packed).tolist() == list(range(6))


def test_compiled_kernels_load_on_use_only():
    """Importing the models does not load numba; timing a product does."""
    script = (
        "import sys, simulator.units.pe_grid, simulator.units.pe_trace\n"
        "assert 'numba' not in sys.modules\n"
        "import simulator.units.pe_kernel\n"
        "assert 'numba' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    """A read-only installation without a cache folder still runs, compiled anew."""
    import numba.core.caching

    from simulator.units.pe_kernel import compiled

    locators = "_locator_classes"
    monkeypatch.setattr(numba.core.caching.CompileResultCacheImpl, locators, [])
    assert compiled(lambda x: x + 1)(2) == 3
