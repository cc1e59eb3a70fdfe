"""Scripted points: closed forms, back-pressure, jobs in sequence, gaps, reset and overflow."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.cosim.check import difference, expected
from rtl.cosim.play import feed
from rtl.cosim.pysim import observe
from rtl.cosim.stimulus import Point, stimulus
from rtl.nm_array import NMArrayCore
from rtl.testing import Pair, bare_array
from simulator.arch import Dataflow, Precision
from simulator.arch.nm_job import drain_wait_slots
from simulator.units.nm_array import Stalls
from simulator.units.nm_beats import OPERANDS, gemm_job, pack

pytestmark = pytest.mark.rtl

FLOWS = list(Dataflow)


def product(arch, dataflow, *, m=5, k=18, n=7, kept=2, group=4, seed=3):
    rng = np.random.default_rng(seed)
    act, weight = (
        rng.integers(-128, 128, shape).astype(OPERANDS[arch.precision])
        for shape in ((m, k), (k, n))
    )
    weight[np.arange(k) % group >= kept] = 0
    job = gemm_job(arch, dataflow, m=m, k=k, n=n, kept=kept, group=group)
    return job, pack(job, act, weight)


def point(*products, stalls=None):
    jobs = tuple(job for job, _ in products)
    beats = tuple(beat for _, beat in products)
    return Point(jobs=jobs, beats=beats, stalls=stalls or Stalls.none(jobs))


def seen(arch, *stimuli):
    return list(observe(NMArrayCore(arch), stimuli))


def half_array(rows, cols, latency, interleave, **rest):
    return bare_array(
        rows,
        cols,
        max_m=4,
        precision=Precision.FP16,
        adder_latency=latency,
        interleave=interleave,
        **rest,
    )


ARRAYS = [
    *(bare_array(3, 4, max_m=4, overlap=overlap) for overlap in (False, True)),
    half_array(1, 2, 3, 1),
    half_array(2, 1, 1, 4),
    half_array(2, 2, 2, 4, overlap=True),
]


@pytest.mark.parametrize("arch", ARRAYS, ids=lambda arch: str(Pair(params=arch)))
def test_cycles_without_stalls_equal_the_closed_form(arch):
    points = [point(product(arch, flow, m=4, k=10, n=4)) for flow in FLOWS]
    for each, rtl in zip(points, seen(arch, *map(stimulus, points)), strict=True):
        (job,) = each.jobs
        assert rtl.counters["cycles"] == job.slots
        assert rtl.counters["array_busy"] == job.busy_slots
        assert rtl.emit[-1] == job.slots + job.drain_slots - 1
        assert rtl.counters["mac_full"] + rtl.counters["mac_gated"] == job.mac_slots
        assert rtl.counters["stall_side"] + rtl.counters["stall_top"] == 0


@pytest.mark.parametrize(
    "arch",
    [
        bare_array(3, 2, max_m=4, macs_per_pe=2),
        bare_array(3, 2, max_m=4, macs_per_pe=2, overlap=True),
        half_array(2, 1, 4, 1),
        half_array(3, 1, 1, 3, overlap=True),
    ],
    ids=lambda arch: str(Pair(params=arch)),
)
def test_jobs_of_any_two_dataflows_follow_without_a_gap(arch):
    size = {"m": 4, "k": 9, "n": 3}
    points = [
        point(
            product(arch, first, **size),
            product(arch, second, **size, kept=1, group=3),
            product(arch, first, **size),
        )
        for first in FLOWS
        for second in FLOWS
    ]
    for each, rtl in zip(points, seen(arch, *map(stimulus, points)), strict=True):
        assert difference(expected(each), rtl) is None
        starts = np.cumsum([job.slots for job in each.jobs])
        assert rtl.accept["job"] == (-1, *(starts[:-1] - 1))


@pytest.mark.parametrize(("latency", "interleave"), [(1, 4), (2, 4), (1, 2), (3, 2)])
def test_shortest_jobs_follow_as_fast_as_results_can_leave(latency, interleave):
    arch = half_array(4, 1, latency, interleave)
    one = {"m": 4 * interleave, "k": 1, "n": 1, "kept": 1, "group": 1}
    both = point(*(product(arch, Dataflow.OS, seed=seed, **one) for seed in (1, 2)))
    (rtl,) = seen(arch, stimulus(both))
    assert difference(expected(both), rtl) is None
    beats = 4 * interleave
    # Where the array waits for its drain, it waits not a slot longer than it must.
    assert drain_wait_slots(arch) == max(0, 3 * (interleave - 1) - (latency - 1))
    gap = rtl.emit[beats] - rtl.emit[beats - 1] - 1
    assert gap == both.jobs[0].slots - beats
    assert (gap == 0) or (drain_wait_slots(arch) == 0)


@pytest.mark.parametrize("flow", FLOWS)
def test_interleave_makes_the_same_product_as_much_faster_as_the_adder_is_deep(flow):
    latency, work = 3, {"m": 6, "k": 8, "n": 6, "kept": 2, "group": 4}
    streams, totals = [], []
    for interleave in (1, latency):
        arch = half_array(2, 1, latency, interleave)
        each = point(product(arch, flow, **work))
        (job,) = each.jobs
        (rtl,) = seen(arch, stimulus(each))
        assert difference(expected(each), rtl) is None
        assert rtl.counters["cycles"] == job.slots
        assert rtl.counters["mac_full"] == 6 * 6 * 8 // 2
        streams.append(job.folds * job.stream_slots)
        totals.append(rtl.counters["cycles"])
    stalled, fed = streams
    assert stalled == latency * fed
    # Load, skew and drain are all that the fed array does not do faster.
    assert totals[0] - totals[1] > 0.7 * (stalled - fed)


@pytest.mark.parametrize("flow", FLOWS)
def test_infinity_meets_no_padding_in_the_array(flow):
    arch = half_array(2, 2, 2, 3)
    act, weight = np.full((5, 11), np.inf, np.float16), np.zeros((11, 3), np.float16)
    weight[[1, 9], [0, 2]] = 3.0, -2.0
    job = gemm_job(arch, flow, m=5, k=11, n=3, kept=2, group=4)
    each = point((job, pack(job, act, weight)))
    (rtl,) = seen(arch, stimulus(each))
    assert difference(expected(each), rtl) is None
    words = {word >> shift & 0xFFFFFFFF for word in rtl.outputs for shift in (0, 32)}
    assert words == {0, 0x7F800000, 0xFF800000}


def scripted(jobs, *, side=0, top=0, out=0):
    quiet = Stalls.none(jobs)
    return Stalls(
        side=np.full_like(quiet.side, side),
        top=np.full_like(quiet.top, top),
        out=np.full_like(quiet.out, out),
    )


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("delays", [{"side": 3}, {"top": 3}, {"out": 4}, {"side": 1, "out": 7}])
@pytest.mark.parametrize(
    "arch",
    [bare_array(2, 3, max_m=4, overlap=True), half_array(1, 2, 3, 2, overlap=True)],
    ids=lambda arch: arch.precision.value,
)
def test_steady_delays_hold_the_array_exactly(flow, delays, arch):
    held = point(product(arch, flow, k=9, n=3))
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
    assert rtl.emit[1] < rtl.accept["side"][3] < rtl.emit[3]


def test_late_job_starts_after_an_idle_gap():
    arch = bare_array(3, 3, max_m=4)
    first, second = product(arch, Dataflow.OS), product(arch, Dataflow.WS)
    both = point(first, second)
    model, gap = expected(both), 50
    prompt = stimulus(both)
    jobs = feed(prompt.feeds["job"].words, (0, first[0].slots - 1 + gap))
    late = replace(prompt, feeds={**prompt.feeds, "job": jobs})
    (rtl,) = seen(arch, late)
    assert rtl.outputs == model.outputs
    assert rtl.counters == model.counters
    assert rtl.accept["job"] == (-1, model.accept["job"][1] + gap)
    own = len(first[1].top.valid)
    assert rtl.accept["top"] == (
        *model.accept["top"][:own],
        *(cycle + gap for cycle in model.accept["top"][own:]),
    )


@pytest.mark.parametrize(
    "arch",
    [bare_array(3, 3, max_m=4, overlap=True), half_array(1, 2, 2, 3, overlap=True)],
    ids=lambda arch: arch.precision.value,
)
def test_reset_in_the_middle_of_a_job_forgets_it(arch):
    size = {"m": 4, "k": 9, "n": 3}
    whole = point(product(arch, Dataflow.WS, **size), product(arch, Dataflow.OS, **size))
    for cut in (3, 17, 40, 79):
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
