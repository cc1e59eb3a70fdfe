"""SORE: the RTL's bits, cycles and counters equal the model's, stalled or not."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.one_stream import lane_words, observed, one_stream, word
from rtl.sore import Sore, sore_job
from simulator.arch.sore import SoreFormat, SoreJob, SoreParams
from simulator.units.sore import DTYPES, SoreStalls, run_sequence

pytestmark = pytest.mark.rtl

FP16, INT8 = SoreFormat.FP16, SoreFormat.INT8
PARAMS = [
    SoreParams(lanes=lanes, max_n=max_n, max_m=max_m, value=value)
    for lanes, max_n, max_m, value in [
        (1, 1, 1, FP16),
        (1, 4, 4, INT8),
        (2, 3, 7, FP16),
        (3, 1, 8, INT8),
        (1, 16, 16, FP16),
        (4, 2, 8, FP16),
        (2, 5, 12, INT8),
        (1, 2, 64, FP16),
    ]
]
POINTS = 12
"""Points of each structure: without stalls, with two scripted ones, then random ones."""


def drawn_job(rng, params):
    group = int(rng.choice([params.max_m, rng.integers(1, params.max_m, endpoint=True)]))
    most = min(group, params.max_n)
    return SoreJob(
        params=params,
        kept=int(rng.choice([1, most, rng.integers(1, most, endpoint=True)])),
        group=group,
        length=int(rng.integers(1, 3 * group, endpoint=True)),
        passes=int(rng.integers(1, 4)),
    )


def drawn_beats(rng, job):
    """Return values that are random bits, or of few magnitudes (ties, zeros, NaN, infinity)."""
    dtype = DTYPES[job.params.value]
    bits = 8 * dtype.itemsize
    sign = 1 << (bits - 1)
    few = [0, 1, 2, 0x7C00, 0x7C01, 0x7E00] if bits == 16 else [0, 1, 2, 0x7F, 0]
    shape = (job.in_beats, job.params.lanes)
    values = rng.integers(0, 1 << bits, shape)
    tied = rng.choice(few, shape) | sign * rng.integers(0, 2, shape)
    return np.where(rng.random() < 0.5, values, tied).astype(f"u{dtype.itemsize}").view(dtype)


def drawn_stalls(rng, jobs, point):
    quiet = SoreStalls.none(jobs)
    if point == 0:
        return quiet
    if point == 1:
        return SoreStalls(side=quiet.side, out=quiet.out + 3)
    if point == 2:
        return SoreStalls(side=quiet.side + 1, out=quiet.out + np.arange(quiet.out.size) % 3)
    side, out = (
        np.where(rng.random(q.size) < rng.choice([0.1, 0.5]), rng.integers(1, 6, q.size), 0)
        for q in (quiet.side, quiet.out)
    )
    return SoreStalls(side=side, out=out)


def drawn_point(params, seed, point):
    rng = np.random.default_rng([seed, point])
    jobs = [drawn_job(rng, params) for _ in range(rng.integers(1, 4))]
    return jobs, [drawn_beats(rng, job) for job in jobs], drawn_stalls(rng, jobs, point)


def stimulus(jobs, beats, stalls):
    fields = ("kept", "group", "length", "passes")
    layout = sore_job(jobs[0].params)
    words = [word(layout, {name: getattr(job, name) for name in fields}) for job in jobs]
    side = [each for beat in beats for each in value_words(beat)]
    return one_stream(words, side, stalls.side, stalls.out)


def field(values):
    return values.view(f"u{values.itemsize}"), 8 * values.itemsize


def value_words(values):
    return lane_words([field(values)])


def assert_pair_agrees(params, points):
    stimuli = [stimulus(*point) for point in points]
    for (jobs, beats, stalls), rtl in zip(points, observed(Sore(params), stimuli), strict=True):
        model = run_sequence(jobs, beats, stalls)
        pairs = lane_words([field(model.value), (model.index, params.index_bits)])
        assert rtl.outputs == pairs
        assert rtl.accept_job == tuple(model.accept_job.tolist())
        assert rtl.accept_side == tuple(model.accept.tolist())
        assert rtl.emit == tuple(model.emit.tolist())
        assert model.counts == {
            ("sore", "compare", "full"): params.lanes * rtl.counters["in_beats"],
            ("sore", "hand_over", "full"): params.lanes * rtl.counters["out_beats"],
        }


@pytest.mark.parametrize("params", PARAMS, ids=lambda p: f"{p.lanes}x{p.max_n}of{p.max_m}{p.value}")
def test_sore_equals_its_model_under_stalls(params):
    assert_pair_agrees(params, [drawn_point(params, 11, point) for point in range(POINTS)])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_sore_of_any_structure_equals_its_model(seed):
    rng = np.random.default_rng([5, seed])
    max_m = int(rng.integers(1, 33))
    params = SoreParams(
        lanes=int(rng.integers(1, 5)),
        max_n=int(rng.integers(1, max_m, endpoint=True)),
        max_m=max_m,
        value=SoreFormat(rng.choice(["fp16", "int8"])),
    )
    assert_pair_agrees(params, [drawn_point(params, seed, point) for point in range(12)])


def test_sore_with_ragged_columns_pads_and_waits_for_the_bank():
    # Columns of 1 value hand over 4 pairs each: input waits for output, not the reverse.
    params = SoreParams(lanes=2, max_n=4, max_m=8, value=INT8)
    job = SoreJob(params=params, kept=4, group=8, length=1, passes=3)
    beats = np.array([[1, -1], [2, -2], [3, -128]], np.int8)
    [rtl] = observed(Sore(params), [stimulus([job], [beats], SoreStalls.none([job]))])
    assert rtl.accept_side == (0, 4, 8)
    assert rtl.emit == tuple(range(1, 13))
    assert [pair & 0xFF for pair in rtl.outputs] == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]


def test_sore_without_stalls_takes_a_beat_a_cycle():
    params = SoreParams(lanes=1, max_n=4, max_m=4)
    jobs = [SoreJob(params=params, kept=4, group=4, length=8, passes=2)] * 2
    beats = [np.arange(16, dtype=np.float16)[:, None]] * 2
    [rtl] = observed(Sore(params), [stimulus(jobs, beats, SoreStalls.none(jobs))])
    assert rtl.accept_side == tuple(range(32))
    assert rtl.emit == tuple(range(4, 36))
    assert rtl.accept_job == (-1, 15)


def test_sore_after_a_reset_in_mid_job_starts_afresh():
    params = PARAMS[2]
    whole = drawn_point(params, 11, 0)
    job = SoreJob(params=params, kept=3, group=7, length=40, passes=9)
    cut_short = stimulus(
        [job], [drawn_beats(np.random.default_rng(0), job)], SoreStalls.none([job])
    )
    stimuli = [replace(cut_short, limit_cycles=9), stimulus(*whole), stimulus(*whole)]
    broken, first, second = observed(Sore(params), stimuli)
    assert len(broken.accept_side) == 9
    assert first == second
    assert first.emit == tuple(run_sequence(*whole).emit.tolist())
