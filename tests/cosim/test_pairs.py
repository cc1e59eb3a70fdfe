"""Every pair: result bits, every acceptance's cycle and every counter equal, without tolerance."""

import pytest

from rtl.cosim.campaign import draw_points
from rtl.cosim.check import difference
from rtl.cosim.pysim import observe
from rtl.cosim.stimulus import stimulus
from rtl.cosim.verilated import observe as observe_verilated
from rtl.testing import PAIRS, VERILATED, Pair, bare_array
from simulator.arch import Dataflow

SEED = 20
POINTS = 10
VERILATED_POINTS = 40


def played(pair, points):
    dut = pair.dut(pair.params)
    return list(observe(dut, [pair.drive(stimulus(point)) for point in points]))


def assert_agreement(pair, points, observations):
    assert len(observations) == len(points)
    for point, seen in zip(points, observations, strict=True):
        found = difference(pair.model(point), seen)
        assert found is None, f"{point}: {found}"


@pytest.mark.rtl
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pair_agrees_in_amaranths_simulator(pair):
    points = draw_points(pair.params, POINTS, SEED)
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
    ],
    ids=lambda arch: f"{arch.rows}x{arch.cols}",
)
def test_large_array_agrees_at_many_points_under_verilator(arch, tmp_path):
    points = draw_points(arch, 500, SEED + 2)
    stimuli = [stimulus(point) for point in points]
    assert_agreement(Pair(params=arch), points, observe_verilated(arch, stimuli, tmp_path))


def drawn_points():
    return [point for pair in PAIRS for point in draw_points(pair.params, POINTS, SEED)]


def test_points_are_many_and_structures_are_distinct():
    assert len(drawn_points()) >= 200
    assert len({pair.params for pair in PAIRS}) == len(PAIRS) >= 24
    assert len(VERILATED) <= 6
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
