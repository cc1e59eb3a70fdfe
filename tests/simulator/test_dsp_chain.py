"""The MPE's model against plain integer products, a played-out packed cascade, and a slot walk."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch.dsp_cells import KEPT, ChainJob, ChainParams, DspSlice, MpeParams
from simulator.units.dsp_chain import (
    beat_slots,
    pack_product,
    plan_job,
    run,
    run_sequence,
    unpack_product,
)
from simulator.units.dsp_rows import place_rows, weight_sets
from simulator.units.dsp_slice import Addend, pack, run_slice, split, wrapped
from simulator.units.slot_streams import SlotStalls, no_stalls

CHAIN = ChainParams(load_groups=4)
MPE = MpeParams(chain=CHAIN, vpus=2, mpus=2, depth=8)
EXTREMES = np.array([-128, -127, -1, 0, 1, 127], np.int8)


def sparse_weight(rng, kept, k):
    """Return int8[k, rows] with exactly min(N, group size) places kept, maybe of value 0."""
    weight = np.zeros((k, len(kept)), np.int8)
    for row, n in enumerate(kept):
        for start in range(0, k, 16):
            at = start + rng.permutation(min(16, k - start))[:n]
            weight[at, row] = rng.choice(EXTREMES, at.size)
    return weight


def product(params, kept, act, weight):
    plan = place_rows(params, kept)
    job = plan_job(plan, tokens=len(act), k=act.shape[1])
    beats = pack_product(job, plan, act, weight)
    return job, plan, beats


@pytest.mark.parametrize(
    "params",
    [
        MPE,
        MpeParams(chain=ChainParams(stages=16, load_groups=1), vpus=1, depth=8),
        MpeParams(chain=ChainParams(stages=32, group=4, load_groups=8), vpus=3, mpus=1, depth=8),
        MpeParams(chain=ChainParams(stages=20, group=1, load_groups=5), vpus=1, mpus=3, depth=8),
    ],
    ids=lambda p: f"{p.mpus}x{p.vpus}x{p.chain.stages}by{p.chain.group}",
)
@pytest.mark.parametrize("seed", range(6))
def test_rows_of_all_n_in_one_matrix_equal_the_integer_product(params, seed):
    """Brute force: act @ weight in int64, with every N of {0, 2, 4, 8, 16} in the matrix."""
    rng = np.random.default_rng(seed)
    kept = [*KEPT, *rng.choice(KEPT, int(rng.integers(0, 30))).tolist()]
    rng.shuffle(kept)
    k, tokens = int(rng.integers(1, 120)), int(rng.choice([1, rng.integers(1, 17)]))
    act, weight = rng.choice(EXTREMES, (tokens, k)), sparse_weight(rng, kept, k)
    job, plan, beats = product(params, kept, act, weight)
    trace = run(job, beats)
    wanted = act.astype(np.int64) @ weight.astype(np.int64)
    np.testing.assert_array_equal(unpack_product(job, plan, trace.results), wanted)
    assert int(trace.passage.emit[-1] - trace.passage.accept_top[0]) + 1 == job.cycles
    assert trace.counts["dsp", "mac", "full"] == tokens * np.count_nonzero(weight)
    there = sum(n > 0 for n in kept)
    assert trace.counts["out", "lane", "full"] == there * job.passes


def test_longest_chain_of_the_most_extreme_products_is_exact():
    """-128 x -128 over 4096 positions: 2**26, and int32 wraps only 32 times further out."""
    params = MpeParams(chain=ChainParams(), vpus=1, depth=1)
    act, weight = (np.full(shape, -128, np.int8) for shape in ((2, 4096), (4096, 1)))
    job, plan, beats = product(params, [16], act, weight)
    assert unpack_product(job, plan, run(job, beats).results).tolist() == [[1 << 26], [1 << 26]]


@pytest.mark.parametrize("dsp", list(DspSlice))
@pytest.mark.parametrize(("lowest", "products"), [(-128, 7), (-127, 8)])
def test_packed_cascade_is_exact_up_to_its_limit_and_not_beyond(dsp, lowest, products):
    """Sums of `products` slices split exactly for all extremes; one more does not."""
    rng = np.random.default_rng(3)
    first, second = rng.choice(EXTREMES, (2, products + 1, 5000)).astype(np.int64)
    weight = rng.choice(EXTREMES[lowest <= EXTREMES], first.shape).astype(np.int64)
    first[:, 0], second[:, 0], weight[:, 0] = -128, 127, lowest
    terms = wrapped(pack(dsp, first, second), dsp.wide_bits) * weight

    def exact(count):
        found = split(dsp, wrapped(terms[:count].sum(axis=0), dsp.sum_bits))
        wanted = [(operand * weight)[:count].sum(axis=0) for operand in (first, second)]
        return np.array_equal(found, wanted)

    assert exact(products)
    assert not exact(products + 1)


@pytest.mark.parametrize("dsp", list(DspSlice))
def test_slice_equals_unbounded_integers_wrapped(dsp):
    """Pre-adder, product and sum against Python integers, wrapping at the silicon's widths."""
    rng = np.random.default_rng(1)
    half = 1 << (dsp.wide_bits - 1)
    wide, added = rng.integers(-half, half, (2, 300))
    narrow = rng.integers(-(1 << (dsp.narrow_bits - 1)), 1 << (dsp.narrow_bits - 1), 300)
    cascade = rng.integers(-(1 << (dsp.sum_bits - 1)), 1 << (dsp.sum_bits - 1), 300)
    addend = rng.choice([0, 1, 2, 2, 2, 2], 300)

    def wrap(value, bits):
        return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))

    total, wanted = 0, []
    columns = (each.tolist() for each in (wide, added, narrow, cascade, addend))
    for a, d, b, c, kind in zip(*columns, strict=True):
        base = {Addend.NOTHING: 0, Addend.CASCADE: c, Addend.SUM: total}[kind]
        total = wrap(wrap(a + d, dsp.wide_bits) * b + base, dsp.sum_bits)
        wanted.append(total)
    assert run_slice(dsp, wide, added, narrow, cascade, addend).tolist() == wanted


def walked(job):
    """Walk a job slot by slot; returns the slots of passes and loads."""
    loads, passes, slot = [], [], 0
    loaded, step = 0, -1
    while step < job.sets:
        left = job.passes if step >= 0 else 0
        to_load = job.params.chain.load_slots if loaded < job.sets else 0
        while left or to_load:
            if left:
                passes.append(slot)
                left -= 1
            if to_load:
                loads.append(slot)
                to_load -= 1
            slot += 1
        loaded, step = loaded + 1, step + 1
    return passes, loads, slot


@pytest.mark.parametrize("tokens", [1, 2, 5, 16])
@pytest.mark.parametrize("load_groups", [1, 2, 8])
def test_slots_of_beats_equal_a_walk_through_the_steps(tokens, load_groups):
    """A step lasts until its passes are done and the next set is loaded."""
    params = replace(MPE, chain=replace(CHAIN, load_groups=load_groups))
    job = ChainJob(params=params, tokens=tokens, tiles=2, groups=3)
    passes, loads, slots = walked(job)
    found = beat_slots(job)
    assert (found.side.tolist(), found.top.tolist(), job.slots) == (passes, loads, slots)


def test_jobs_follow_without_a_gap_and_stalls_add_up():
    """Cycles of a job are its slots plus stalls of one cause each."""
    rng = np.random.default_rng(5)
    jobs, beats = [], []
    for tokens in (3, 1, 6):
        kept = rng.choice(KEPT, 12).tolist()
        act = rng.integers(-128, 128, (tokens, 40)).astype(np.int8)
        job, _, each = product(MPE, kept, act, sparse_weight(rng, kept, 40))
        jobs.append(job)
        beats.append(each)
    free = run_sequence(jobs, beats)
    assert np.diff(free.passage.accept_job).tolist() == [jobs[0].slots, jobs[1].slots]
    quiet = no_stalls(jobs, beat_slots)
    held = run_sequence(
        jobs, beats, SlotStalls(side=quiet.side + 1, top=quiet.top + 2, out=quiet.out + 3)
    )
    causes = held.passage.stall_side, held.passage.stall_top, held.passage.stall_out
    assert min(causes) > 0
    assert held.passage.cycles == sum(job.slots for job in jobs) + sum(causes)
    np.testing.assert_array_equal(held.results.sums, free.results.sums)


def test_bad_operands_are_named():
    """Shapes, dtypes, too many non-zeros and a forbidden -128 each have a sentence."""
    act, weight = np.zeros((2, 16), np.int8), np.zeros((16, 1), np.int8)
    job, plan, beats = product(MPE, [2], act, weight)
    with pytest.raises(ValueError, match=r"Beats need act int8\[1, 2, 16, 2\], not int16"):
        run(job, replace(beats, act=beats.act.astype(np.int16)))
    with pytest.raises(ValueError, match=r"Beats need cut bool\[2, 2, 4\], not bool\[1, 2, 4\]"):
        run(job, replace(beats, cut=beats.cut[:1]))
    with pytest.raises(ValueError, match="one set of beats for each of one MPE's jobs, not 0"):
        run_sequence([job], [])
    with pytest.raises(ValueError, match=r"Weight must be \[k, 1\], not \[16, 2\]"):
        weight_sets(plan, np.zeros((16, 2), np.int8))
    full = np.ones((20, 1), np.int8)
    full[:14] = 0
    with pytest.raises(ValueError, match="Row 0 keeps N = 2 of 16 weights, but its group 1 has 4"):
        weight_sets(plan, full)
    narrow = replace(MPE, chain=replace(CHAIN, full_range=False))
    bad = product(narrow, [16], act, np.full((16, 1), -128, np.int8))
    with pytest.raises(ValueError, match="takes no weight of -128"):
        run(bad[0], bad[2])
