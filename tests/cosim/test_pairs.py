"""Every pair: result bits, every acceptance's cycle and every counter equal, without tolerance."""

import numpy as np
import pytest

from rtl.cosim.campaign import draw_points
from rtl.cosim.check import difference
from rtl.cosim.pysim import observe
from rtl.cosim.stimulus import stimulus
from rtl.cosim.verilated import observe as observe_verilated
from rtl.testing import PAIRS, VERILATED, Pair, bare_array
from simulator.arch import Dataflow, Precision
from simulator.arch.nm_job import drain_wait_slots
from simulator.units.nm_array import run_sequence

SEED = 20
POINTS = 10
HALF_POINTS = 4
"""Points of an fp16 array in Amaranth's own simulator, which is slow on adders."""

VERILATED_POINTS = 40


def played(pair, points):
    dut = pair.dut(pair.params)
    return list(observe(dut, [pair.drive(stimulus(point)) for point in points]))


def assert_agreement(pair, points, observations):
    assert len(observations) == len(points)
    for point, seen in zip(points, observations, strict=True):
        found = difference(pair.model(point), seen)
        assert found is None, f"{point}: {found}"


def few_points(arch):
    points = POINTS if arch.precision is Precision.INT8 else HALF_POINTS
    return draw_points(arch, points, SEED)


@pytest.mark.rtl
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pair_agrees_in_amaranths_simulator(pair):
    points = few_points(pair.params)
    assert_agreement(pair, points, played(pair, points))


@pytest.mark.rtl
@pytest.mark.cocotb
@pytest.mark.parametrize("pair", VERILATED, ids=str)
def test_pair_agrees_under_verilator_and_cocotb(pair, tmp_path):
    points = draw_points(pair.params, VERILATED_POINTS, SEED)
    stimuli = [stimulus(point) for point in points]
    assert_agreement(pair, points, observe_verilated(pair.params, stimuli, tmp_path))


@pytest.mark.long
@pytest.mark.rtl
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pair_agrees_at_many_points(pair):
    points = draw_points(pair.params, 400, SEED + 1)
    assert_agreement(pair, points, played(pair, points))


@pytest.mark.long
@pytest.mark.rtl
@pytest.mark.cocotb
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "arch",
    [
        bare_array(8, 8, max_m=16, macs_per_pe=1),
        bare_array(5, 7, max_m=12, macs_per_pe=5, overlap=True),
        bare_array(16, 16, max_m=8, macs_per_pe=2, overlap=True),
        bare_array(
            8,
            8,
            max_m=8,
            precision=Precision.FP16,
            adder_latency=6,
            interleave=8,
            overlap=True,
        ),
        bare_array(7, 5, max_m=4, precision=Precision.FP16, adder_latency=4, interleave=2),
    ],
    ids=lambda arch: str(Pair(params=arch)),
)
def test_large_array_agrees_at_many_points_under_verilator(arch, tmp_path):
    points = draw_points(arch, 500, SEED + 2)
    stimuli = [stimulus(point) for point in points]
    assert_agreement(Pair(params=arch), points, observe_verilated(arch, stimuli, tmp_path))


def drawn_points():
    return [point for pair in PAIRS for point in few_points(pair.params)]


def half_points():
    halves = [pair.params for pair in PAIRS if pair.params.precision is Precision.FP16]
    return [point for arch in halves for point in few_points(arch)]


def half_corners(point):
    """Name the corners of fp16 arrays a point reaches."""
    arch = point.jobs[0].arch
    latency, interleave = arch.adder_latency, arch.interleave
    yield ("I < L", "I = L", "I > L")[(interleave >= latency) + (interleave > latency)]
    yield f"overlap={arch.overlap}"
    yield "waits for the drain" if drain_wait_slots(arch) else ""
    for job in point.jobs:
        yield f"{job.dataflow} alternates" if interleave > 1 else f"{job.dataflow} alone"
        yield f"{job.dataflow} stalls" if latency > interleave else ""
        streamed = job.dataflow is not Dataflow.OS
        yield "ragged block" if streamed and job.length % interleave else ""
        yield "blocks" if streamed and job.length > interleave > 1 else ""
    outputs = run_sequence(point.jobs, point.beats, point.stalls).outputs
    yield "infinity" if np.isinf(outputs).any() else ""
    yield "NaN" if np.isnan(outputs).any() else ""
    small = np.concatenate([np.abs(b.side.value[b.side.value != 0]).ravel() for b in point.beats])
    yield "subnormal operand" if (small < 2.0**-14).any() else ""


def test_fp16_points_reach_every_corner():
    reached = {name for point in half_points() for name in half_corners(point)}
    flows = list(Dataflow)
    wanted = {f"{flow} {how}" for flow in flows for how in ("alternates", "alone", "stalls")}
    wanted |= {"I < L", "I = L", "I > L", "overlap=False", "overlap=True", "waits for the drain"}
    wanted |= {"ragged block", "blocks", "infinity", "NaN", "subnormal operand"}
    assert wanted <= reached


def test_points_are_many_and_structures_are_distinct():
    assert len(drawn_points()) >= 200
    assert len({pair.params for pair in PAIRS}) == len(PAIRS) >= 24
    halves = [pair for pair in VERILATED if pair.params.precision is Precision.FP16]
    assert len(VERILATED) - len(halves) <= 6
    assert len(halves) <= 2
    assert (8, 8) in {(pair.params.rows, pair.params.cols) for pair in VERILATED}


def corners(point):
    """Name the corners a point reaches."""
    jobs, stalls = point.jobs, point.stalls
    yield from (f"{job.dataflow} overlap={job.arch.overlap}" for job in jobs)
    delays = [d.any() for d in (stalls.side, stalls.top, stalls.out)]
    yield "no stall" if not any(delays) else "stalled"
    yield "three stalls" if all(delays) else ""
    yield "back-pressure only" if delays == [False, False, True] else ""
    if len(jobs) > 1 and jobs[0].dataflow is not jobs[1].dataflow:
        yield f"{jobs[0].dataflow} before {jobs[1].dataflow}"
    for job, beats in zip(jobs, point.beats, strict=True):
        weight = beats.side if job.dataflow is Dataflow.IS else beats.top
        yield "1:1" if job.group == 1 else ""
        yield "dense" if job.kept == job.group > 1 else "sparse"
        yield "folds" if job.folds > 2 else ""
        yield "partial last slot" if job.kept % job.arch.macs_per_pe else ""
        yield "all zero" if not weight.value[weight.valid].any() else ""
        yield "ragged side" if not beats.side.valid.all() else ""
        yield "ragged top" if not beats.top.valid.all() else ""
        yield "short fold" if job.stream_slots < job.arch.rows else ""
        yield "long fold" if job.stream_slots > job.arch.rows + job.load_slots else ""


def test_points_reach_every_corner():
    reached = {name for point in drawn_points() for name in corners(point)}
    flows = list(Dataflow)
    wanted = {f"{flow} overlap={overlap}" for flow in flows for overlap in (False, True)}
    wanted |= {f"{a} before {b}" for a in flows for b in flows if a is not b}
    wanted |= {"no stall", "three stalls", "back-pressure only", "1:1", "dense", "sparse"}
    wanted |= {"folds", "partial last slot", "all zero", "ragged side", "ragged top"}
    wanted |= {"short fold", "long fold"}
    assert wanted <= reached
