"""WUVE: the RTL's bits, cycles and counters equal the model's, stalled or not."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.one_stream import lane_words, observed, one_stream, word
from rtl.wuve import Wuve, wuve_job
from simulator.arch.wuve import WuveJob, WuveParams
from simulator.units.wuve import WuveBeats, WuveStalls, run_sequence

pytestmark = pytest.mark.rtl

PARAMS = [
    WuveParams(lanes=lanes, adder_latency=adder, multiplier_latency=multiplier)
    for lanes, adder, multiplier in [(1, 1, 1), (2, 1, 3), (1, 4, 2), (1, 9, 5)]
]
POINTS = 10
"""Points of each structure: without stalls, with two scripted ones, then random ones."""


def bits32(value):
    return int(np.float32(value).view(np.uint32))


def drawn_job(rng, params):
    return WuveJob(
        params=params,
        learning_rate=float(rng.choice([0.0, 0.1, 1.0, rng.normal()])),
        momentum=float(rng.choice([0.0, 0.9, rng.random()])),
        weight_decay=float(rng.choice([0.0, 1e-4, rng.random()])),
        beats=int(rng.choice([1, 2, rng.integers(1, 25)])),
    )


def drawn_beats(rng, job):
    """Return trained-like values, or random bits: subnormals, infinities and NaN."""
    shape = (job.beats, job.params.lanes)
    weight, velocity = (rng.normal(0, 0.1, shape).astype(np.float32) for _ in range(2))
    gradient = rng.normal(0, 0.01, shape).astype(np.float16)
    if rng.random() < 0.5:
        weight, velocity = (
            rng.integers(0, 1 << 32, shape, dtype=np.uint32).view(np.float32) for _ in range(2)
        )
        gradient = rng.integers(0, 1 << 16, shape, dtype=np.uint16).view(np.float16)
    return WuveBeats(weight=weight, velocity=velocity, gradient=gradient)


def drawn_stalls(rng, jobs, point):
    quiet = WuveStalls.none(jobs)
    if point == 0:
        return quiet
    if point == 1:
        return WuveStalls(side=quiet.side, out=quiet.out + 2)
    if point == 2:
        # The source starves WUVE while its results are taken at once, then late.
        return WuveStalls(side=quiet.side + 3, out=np.arange(quiet.out.size) % 7)
    side, out = (
        np.where(rng.random(q.size) < rng.choice([0.1, 0.5]), rng.integers(1, 6, q.size), 0)
        for q in (quiet.side, quiet.out)
    )
    return WuveStalls(side=side, out=out)


def drawn_point(params, seed, point):
    rng = np.random.default_rng([seed, point])
    jobs = [drawn_job(rng, params) for _ in range(rng.integers(1, 4))]
    return jobs, [drawn_beats(rng, job) for job in jobs], drawn_stalls(rng, jobs, point)


def element_words(weight, velocity, half):
    return lane_words(
        [(weight.view(np.uint32), 32), (velocity.view(np.uint32), 32), (half.view(np.uint16), 16)]
    )


def stimulus(jobs, beats, stalls):
    words = [
        word(
            wuve_job(),
            {
                "learning_rate": bits32(job.learning_rate),
                "momentum": bits32(job.momentum),
                "weight_decay": bits32(job.weight_decay),
                "beats": job.beats,
            },
        )
        for job in jobs
    ]
    side = [each for b in beats for each in element_words(b.weight, b.velocity, b.gradient)]
    return one_stream(words, side, stalls.side, stalls.out)


def assert_pair_agrees(params, points):
    stimuli = [stimulus(*point) for point in points]
    for (jobs, beats, stalls), rtl in zip(points, observed(Wuve(params), stimuli), strict=True):
        model = run_sequence(jobs, beats, stalls)
        results = model.results
        assert rtl.outputs == element_words(results.weight, results.velocity, results.copy)
        assert rtl.accept_job == tuple(model.accept_job.tolist())
        assert rtl.accept_side == tuple(model.accept.tolist())
        assert rtl.emit == tuple(model.emit.tolist())
        taken, handed = (params.lanes * rtl.counters[n] for n in ("in_beats", "out_beats"))
        assert model.counts == {
            ("wuve", "multiply", "full"): 3 * taken,
            ("wuve", "add", "full"): 3 * taken,
            ("wuve", "convert", "full"): handed,
        }


@pytest.mark.parametrize(
    "params", PARAMS, ids=lambda p: f"{p.lanes}-add{p.adder_latency}-mul{p.multiplier_latency}"
)
def test_wuve_equals_its_model_under_stalls(params):
    assert_pair_agrees(params, [drawn_point(params, 3, point) for point in range(POINTS)])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30))
def test_wuve_of_any_structure_equals_its_model(seed):
    rng = np.random.default_rng([8, seed])
    params = WuveParams(
        lanes=int(rng.integers(1, 4)),
        adder_latency=int(rng.integers(1, 13)),
        multiplier_latency=int(rng.integers(1, 9)),
    )
    assert_pair_agrees(params, [drawn_point(params, seed, point) for point in range(12)])


def test_wuve_without_stalls_takes_a_beat_a_cycle_and_drains_between_jobs():
    params = PARAMS[0]
    jobs = [WuveJob(params=params, learning_rate=0.1, momentum=0.9, weight_decay=0.0, beats=4)] * 2
    beats = [drawn_beats(np.random.default_rng(0), job) for job in jobs]
    [rtl] = observed(Wuve(params), [stimulus(jobs, beats, WuveStalls.none(jobs))])
    assert params.latency == 6
    assert rtl.accept_side == (0, 1, 2, 3, 9, 10, 11, 12)
    assert rtl.emit == (6, 7, 8, 9, 15, 16, 17, 18)
    assert rtl.accept_job == (-1, 8)


def test_wuve_after_a_reset_in_mid_job_starts_afresh():
    params = PARAMS[1]
    whole = drawn_point(params, 3, 0)
    job = drawn_job(np.random.default_rng(0), params)
    job = replace(job, beats=40)
    beats = drawn_beats(np.random.default_rng(0), job)
    cut_short = stimulus([job], [beats], WuveStalls.none([job]))
    stimuli = [replace(cut_short, limit_cycles=13), stimulus(*whole), stimulus(*whole)]
    broken, first, second = observed(Wuve(params), stimuli)
    assert len(broken.accept_side) == 13
    assert len(broken.emit) > 0
    assert first == second
    assert first.emit == tuple(run_sequence(*whole).emit.tolist())
