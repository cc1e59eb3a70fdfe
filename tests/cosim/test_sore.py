"""SORE in numbers: closed forms of its cycles, ragged columns, corners reached, and reset."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.cosim.points import draw_points
from rtl.cosim.pysim import observe
from rtl.cosim.sore_points import SorePoint, sore_expected, sore_stimulus
from rtl.sore import Sore
from rtl.testing import PAIRS
from simulator.arch.sore import SoreFormat, SoreJob, SoreParams
from simulator.units.sore import SoreStalls, magnitude

pytestmark = pytest.mark.rtl


def unstalled(jobs, beats):
    return SorePoint(jobs=tuple(jobs), beats=tuple(beats), stalls=SoreStalls.none(jobs))


def seen(params, *points):
    return list(observe(Sore(params), map(sore_stimulus, points)))


def test_sore_with_ragged_columns_pads_and_waits_for_the_bank():
    # Columns of 1 value hand over 4 pairs each: input waits for output, not the reverse.
    params = SoreParams(lanes=2, max_n=4, max_m=8, value=SoreFormat.INT8)
    job = SoreJob(params=params, kept=4, group=8, length=1, passes=3)
    beats = np.array([[1, -1], [2, -2], [3, -128]], np.int8)
    [rtl] = seen(params, unstalled([job], [beats]))
    assert rtl.accept["side"] == (0, 4, 8)
    assert rtl.emit == tuple(range(1, 13))
    assert [pair & 0xFF for pair in rtl.outputs] == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]


def test_sore_without_stalls_takes_a_beat_a_cycle():
    params = SoreParams(lanes=1, max_n=4, max_m=4)
    jobs = [SoreJob(params=params, kept=4, group=4, length=8, passes=2)] * 2
    beats = [np.arange(16, dtype=np.float16)[:, None]] * 2
    [rtl] = seen(params, unstalled(jobs, beats))
    assert rtl.accept["side"] == tuple(range(32))
    assert rtl.emit == tuple(range(4, 36))
    assert rtl.accept["job"] == (-1, 15)


def test_sore_after_a_reset_in_mid_job_starts_afresh():
    params = SoreParams(lanes=2, max_n=3, max_m=7)
    [whole] = draw_points(params, 1, 11)
    job = SoreJob(params=params, kept=3, group=7, length=40, passes=9)
    beats = np.random.default_rng(0).random((job.in_beats, 2)).astype(np.float16)
    cut_short = replace(sore_stimulus(unstalled([job], [beats])), limit_cycles=9)
    broken, first, second = observe(Sore(params), [cut_short, *[sore_stimulus(whole)] * 2])
    assert len(broken.accept["side"]) == 9
    assert first == second == sore_expected(whole)


def corners(point):
    """Name the corners a point reaches."""
    delays = [point.stalls.side.any(), point.stalls.out.any()]
    yield "stalls " + "".join("so"[i] for i in range(2) if delays[i])
    yield "jobs" if len(point.jobs) > 1 else ""
    for job, values in zip(point.jobs, point.beats, strict=True):
        yield "ragged" if job.ragged else "whole"
        yield "ragged group shorter than N" if 0 < job.ragged < job.kept else ""
        yield "passes" if job.passes > 1 else ""
        yield "dense" if job.kept == job.group > 1 else "sparse"
        ranks = magnitude(values[: job.group])
        yield "tie" if job.group > 1 and len(np.unique(ranks[:, 0])) < len(ranks) else ""
        yield "NaN" if job.params.value is SoreFormat.FP16 and np.isnan(values).any() else ""


def test_points_reach_every_corner_of_sore():
    """The points of PAIRS have every kind of job and stall, ties and NaN."""
    sores = [pair.params for pair in PAIRS if isinstance(pair.params, SoreParams)]
    points = [point for params in sores for point in draw_points(params, 10, 20)]
    wanted = {"stalls ", "stalls o", "stalls so", "jobs", "ragged", "whole", "passes", "dense"}
    wanted |= {"sparse", "ragged group shorter than N", "tie", "NaN"}
    assert wanted <= {name for point in points for name in corners(point)}
