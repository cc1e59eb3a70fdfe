"""Scripted points: closed forms, back-pressure, jobs in sequence, gaps, reset and overflow."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.cosim.check import difference, expected
from rtl.cosim.play import play
from rtl.cosim.pysim import observe
from rtl.cosim.stimulus import Point, stimulus
from rtl.nm_array import NMArrayCore
from rtl.testing import bare_array
from simulator.arch import Dataflow
from simulator.units.nm_array import Stalls
from simulator.units.nm_beats import gemm_job, pack

pytestmark = pytest.mark.rtl

FLOWS = list(Dataflow)


def product(arch, dataflow, *, m=5, k=18, n=7, kept=2, group=4, seed=3):
    rng = np.random.default_rng(seed)
    act = rng.integers(-128, 128, (m, k), dtype=np.int8)
    weight = rng.integers(-128, 128, (k, n), dtype=np.int8)
    weight[np.arange(k) % group >= kept] = 0
    job = gemm_job(arch, dataflow, m=m, k=k, n=n, kept=kept, group=group)
    return job, pack(job, act, weight)


def point(*products, stalls=None):
    jobs = tuple(job for job, _ in products)
    beats = tuple(beat for _, beat in products)
    return Point(jobs=jobs, beats=beats, stalls=stalls or Stalls.none(jobs))


def seen(arch, *stimuli):
    return list(observe(NMArrayCore(arch), [play(each) for each in stimuli]))


@pytest.mark.parametrize("overlap", [False, True])
def test_cycles_without_stalls_equal_the_closed_form(overlap):
    arch = bare_array(3, 4, max_m=4, overlap=overlap)
    points = [point(product(arch, flow)) for flow in FLOWS]
    for each, rtl in zip(points, seen(arch, *map(stimulus, points)), strict=True):
        (job,) = each.jobs
        assert rtl.counters["cycles"] == job.slots
        assert rtl.counters["array_busy"] == job.busy_slots
        assert rtl.emit[-1] == job.slots + job.drain_slots - 1
        assert rtl.counters["mac_full"] + rtl.counters["mac_gated"] == job.mac_slots
        assert rtl.counters["stall_side"] + rtl.counters["stall_top"] == 0


@pytest.mark.parametrize("overlap", [False, True])
def test_jobs_of_any_two_dataflows_follow_without_a_gap(overlap):
    arch = bare_array(3, 2, max_m=4, macs_per_pe=2, overlap=overlap)
    points = [
        point(product(arch, first), product(arch, second, kept=1, group=3), product(arch, first))
        for first in FLOWS
        for second in FLOWS
    ]
    for each, rtl in zip(points, seen(arch, *map(stimulus, points)), strict=True):
        assert difference(expected(each), rtl) is None
        starts = np.cumsum([job.slots for job in each.jobs])
        assert rtl.accept_job == (-1, *(starts[:-1] - 1))


def scripted(jobs, *, side=0, top=0, out=0):
    quiet = Stalls.none(jobs)
    return Stalls(
        side=np.full_like(quiet.side, side),
        top=np.full_like(quiet.top, top),
        out=np.full_like(quiet.out, out),
    )


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("delays", [{"side": 3}, {"top": 2}, {"out": 4}, {"side": 1, "out": 7}])
def test_steady_delays_hold_the_array_exactly(flow, delays):
    arch = bare_array(2, 3, max_m=4, overlap=True)
    held = point(product(arch, flow))
    held = replace(held, stalls=scripted(held.jobs, **delays))
    (rtl,) = seen(arch, stimulus(held))
    assert difference(expected(held), rtl) is None
    stalled = sum(rtl.counters[f"stall_{cause}"] for cause in ("side", "top", "out"))
    assert rtl.counters["cycles"] == held.jobs[0].slots + stalled > held.jobs[0].slots


def test_beat_taken_while_the_array_waits_is_not_offered_again():
    # The first result is taken at once although the side operand of its slot is late.
    arch = bare_array(1, 1, max_m=1)
    slow = point(product(arch, Dataflow.WS, m=6, k=1, n=1, kept=1, group=1))
    stalls = scripted(slow.jobs)
    stalls.side[3] = 9
    slow = replace(slow, stalls=stalls)
    (rtl,) = seen(arch, stimulus(slow))
    assert difference(expected(slow), rtl) is None
    assert len(rtl.emit) == 6
    assert rtl.emit[1] < rtl.accept_side[3] < rtl.emit[3]


def test_late_job_starts_after_an_idle_gap():
    arch = bare_array(3, 3, max_m=4)
    first, second = product(arch, Dataflow.OS), product(arch, Dataflow.WS)
    both = point(first, second)
    model, gap = expected(both), 50
    late = replace(stimulus(both), job_delays=(0, first[0].slots - 1 + gap))
    (rtl,) = seen(arch, late)
    assert rtl.outputs == model.outputs
    assert rtl.counters == model.counters
    assert rtl.accept_job == (-1, model.accept_job[1] + gap)
    own = len(first[1].top.valid)
    assert rtl.accept_top == (
        *model.accept_top[:own],
        *(cycle + gap for cycle in model.accept_top[own:]),
    )


def test_reset_in_the_middle_of_a_job_forgets_it():
    arch = bare_array(3, 3, max_m=4, overlap=True)
    whole = point(product(arch, Dataflow.WS), product(arch, Dataflow.OS))
    for cut in (3, 17, 40):
        broken = replace(stimulus(whole), limit_cycles=cut)
        _, rtl = seen(arch, broken, stimulus(whole))
        assert difference(expected(whole), rtl) is None


def test_accumulator_wraps_at_32_bits():
    # 131073 products of (-128)^2; only OS adds that many in one PE of a small array.
    arch, k = bare_array(1, 1, max_m=64, macs_per_pe=64), 131_073
    job = gemm_job(arch, Dataflow.OS, m=1, k=k, n=1, kept=64, group=64)
    act = np.full((1, k), -128, np.int8)
    wrapped = point((job, pack(job, act, act.T.copy())))
    (rtl,) = seen(arch, stimulus(wrapped))
    assert rtl.outputs == (2**31 + 2**14,)
    assert difference(expected(wrapped), rtl) is None
