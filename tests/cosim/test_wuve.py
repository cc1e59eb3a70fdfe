"""WUVE in numbers: closed forms of its cycles, corners reached, counts, and reset."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.cosim.points import draw_points
from rtl.cosim.pysim import observe
from rtl.cosim.wuve_points import WuvePoint, wuve_expected, wuve_stimulus
from rtl.testing import PAIRS
from rtl.wuve import Wuve
from simulator.arch.wuve import WuveJob, WuveParams
from simulator.units.wuve import WuveBeats, WuveStalls, run_sequence

pytestmark = pytest.mark.rtl

SETTINGS = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0}


def unstalled(*jobs):
    rng = np.random.default_rng(0)
    beats = []
    for job in jobs:
        weight, velocity, gradient = rng.normal(size=(3, job.beats, job.params.lanes))
        beats.append(
            WuveBeats(
                weight=weight.astype(np.float32),
                velocity=velocity.astype(np.float32),
                gradient=gradient.astype(np.float16),
            )
        )
    return WuvePoint(jobs=jobs, beats=tuple(beats), stalls=WuveStalls.none(jobs))


def wuve_points():
    wuves = [pair.params for pair in PAIRS if isinstance(pair.params, WuveParams)]
    return [point for params in wuves for point in draw_points(params, 10, 20)]


def test_wuve_without_stalls_takes_a_beat_a_cycle_and_drains_between_jobs():
    params = WuveParams(lanes=1, adder_latency=1, multiplier_latency=1)
    job = WuveJob(params=params, **SETTINGS, beats=4)
    [rtl] = observe(Wuve(params), [wuve_stimulus(unstalled(job, job))])
    assert params.latency == 6
    assert rtl.accept["side"] == (0, 1, 2, 3, 9, 10, 11, 12)
    assert rtl.emit == (6, 7, 8, 9, 15, 16, 17, 18)
    assert rtl.accept["job"] == (-1, 8)


def test_wuve_after_a_reset_in_mid_job_starts_afresh():
    params = WuveParams(lanes=2, adder_latency=1, multiplier_latency=3)
    [whole] = draw_points(params, 1, 3)
    job = WuveJob(params=params, **SETTINGS, beats=40)
    cut_short = replace(wuve_stimulus(unstalled(job)), limit_cycles=13)
    broken, first, second = observe(Wuve(params), [cut_short, *[wuve_stimulus(whole)] * 2])
    assert len(broken.accept["side"]) == 13
    assert len(broken.emit) > 0
    assert first == second == wuve_expected(whole)


def test_wuve_counts_three_products_and_sums_an_element():
    """Counted events are the RTL's beats times the operations of a lane."""
    for point in wuve_points():
        counts = run_sequence(point.jobs, point.beats, point.stalls).counts
        elements = point.jobs[0].params.lanes * sum(job.beats for job in point.jobs)
        assert counts == {
            ("wuve", "multiply", "full"): 3 * elements,
            ("wuve", "add", "full"): 3 * elements,
            ("wuve", "convert", "full"): elements,
        }
        assert wuve_expected(point).counters["in_beats"] * point.jobs[0].params.lanes == elements


def corners(point):
    """Name the corners a point reaches."""
    delays = [point.stalls.side.any(), point.stalls.out.any()]
    yield "stalls " + "".join("so"[i] for i in range(2) if delays[i])
    for job, beats in zip(point.jobs, point.beats, strict=True):
        yield "short" if job.beats < job.params.latency else "long"
        yield "no momentum" if job.momentum == 0 else ""
        yield "decay" if job.weight_decay else "no decay"
        yield "NaN" if np.isnan(beats.weight).any() else ""
        yield "infinity" if np.isinf(beats.gradient).any() else ""
    yield "jobs" if len(point.jobs) > 1 else ""


def test_points_reach_every_corner_of_wuve():
    """The points of PAIRS have every kind of job and stall, and numbers that are none."""
    wanted = {"stalls ", "stalls o", "stalls so", "jobs", "short", "long", "no momentum"}
    wanted |= {"decay", "no decay", "NaN", "infinity"}
    assert wanted <= {name for point in wuve_points() for name in corners(point)}
