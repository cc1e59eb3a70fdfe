"""Every pair agrees at random points, without tolerance: array, PE (a 1x1 array), all other units.

An agreement compares, of the software model and the RTL, every word of the results bit for bit,
the cycle in which every job, every operand beat and every result beat is accepted, and every
counter: without stalls, under steady back-pressure and under random stalls of all streams.
"""

from dataclasses import replace

import numpy as np
import pytest

from rtl.cosim.campaign import compare
from rtl.cosim.points import POINTS as POINTS_OF
from rtl.cosim.points import draw_points
from rtl.pe_grid.testing import bare_grid
from rtl.testing import PAIRS, VERILATED, VERILATED_LONG, Pair, bare_array, bare_flex
from simulator.arch import Dataflow, NMArray, Precision
from simulator.arch.delta import DeltaParams
from simulator.arch.dequantiser import DequantiserParams
from simulator.arch.dsp_cells import ChainParams, DspSlice, MpeParams
from simulator.arch.nm_job import drain_wait_slots
from simulator.arch.pe_grid import PEGrid
from simulator.arch.sore import SoreFormat, SoreParams
from simulator.arch.special import SpecialParams
from simulator.arch.wuve import WuveParams
from simulator.units.nm_array import run_sequence

SEED = 20
POINTS = 10
HALF_POINTS = 4
"""Points of an fp16 array in Amaranth's own simulator, which is slow on adders."""

VERILATED_POINTS = 60


def disagreements(params, points, engine, directory):
    """Return a sentence for every point at which bits, cycles or counters differ."""
    played = list(compare(params, points, engine, directory))
    assert len(played) == len(points)
    return [f"{p}: {found}" for p, (_, found) in zip(points, played, strict=True) if found]


def few_points(params):
    slow = isinstance(params, NMArray) and params.precision is Precision.FP16
    return draw_points(params, HALF_POINTS if slow else POINTS, SEED)


@pytest.mark.rtl
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pair_agrees_in_amaranths_simulator(pair, tmp_path):
    """Bits, cycles of all acceptances and counters of the Amaranth design equal the model's."""
    assert disagreements(pair.params, few_points(pair.params), "pysim", tmp_path) == []


@pytest.mark.rtl
@pytest.mark.cocotb
@pytest.mark.parametrize("pair", VERILATED, ids=str)
def test_pair_agrees_under_verilator_and_cocotb(pair, tmp_path):
    """Bits, cycles of all acceptances and counters of the exported Verilog equal the model's."""
    points = draw_points(pair.params, VERILATED_POINTS, SEED)
    assert disagreements(pair.params, points, "verilator", tmp_path) == []


@pytest.mark.long
@pytest.mark.rtl
@pytest.mark.cocotb
@pytest.mark.parametrize("pair", VERILATED_LONG, ids=str)
def test_further_pairs_agree_under_verilator_and_cocotb(pair, tmp_path):
    """The same, for structures whose builds the default run does without."""
    points = draw_points(pair.params, VERILATED_POINTS, SEED)
    assert disagreements(pair.params, points, "verilator", tmp_path) == []


@pytest.mark.long
@pytest.mark.rtl
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_pair_agrees_at_many_points_in_amaranths_simulator(pair, tmp_path):
    """The short test's comparison, at 400 other points of every pair."""
    points = draw_points(pair.params, 400, SEED + 1)
    assert disagreements(pair.params, points, "pysim", tmp_path) == []


LARGE = (
    bare_array(8, 8, max_m=16, macs_per_pe=1),
    bare_array(5, 7, max_m=12, macs_per_pe=5, overlap=True),
    bare_array(16, 16, max_m=8, macs_per_pe=2, overlap=True),
    bare_array(
        8, 8, max_m=8, precision=Precision.FP16, adder_latency=6, interleave=8, overlap=True
    ),
    bare_array(7, 5, max_m=4, precision=Precision.FP16, adder_latency=4, interleave=2),
    SoreParams(lanes=32, max_n=16, max_m=16),
    WuveParams(lanes=16, adder_latency=7, multiplier_latency=4),
    MpeParams(chain=ChainParams(stages=32, full_range=False), vpus=2, depth=16),
    bare_flex(4, 16, 16),
    DequantiserParams(lanes=32),
    SpecialParams(lanes=16),
)


@pytest.mark.long
@pytest.mark.rtl
@pytest.mark.cocotb
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("params", LARGE, ids=lambda params: str(Pair(params=params)))
def test_large_unit_agrees_at_many_points_under_verilator_and_cocotb(params, tmp_path):
    """The short test's comparison, at 500 points of sizes that are built."""
    points = draw_points(params, 500, SEED + 2)
    assert disagreements(params, points, "verilator", tmp_path) == []


STRUCTURES = 50
"""Random structures of each kind in the long profile, in Amaranth's simulator: no build each."""

STRUCTURE_POINTS = 12


def random_array(rng, most_side):
    rows, cols = (int(side) for side in rng.integers(1, most_side, 2, endpoint=True))
    max_m = int(rng.integers(1, 17))
    overlap = bool(rng.integers(2))
    if rng.random() < 0.5:
        macs = int(rng.integers(1, max_m, endpoint=True))
        return bare_array(rows, cols, max_m=max_m, macs_per_pe=macs, overlap=overlap)
    latency, interleave = (int(depth) for depth in rng.integers(1, 8, 2))
    return bare_array(
        rows,
        cols,
        max_m=max_m,
        precision=Precision.FP16,
        adder_latency=latency,
        interleave=interleave,
        overlap=overlap,
    )


def random_pe(rng):
    return random_array(rng, 1)


def random_small_array(rng):
    return random_array(rng, 4)


def random_sore(rng):
    max_m = int(rng.integers(1, 33))
    return SoreParams(
        lanes=int(rng.integers(1, 5)),
        max_n=int(rng.integers(1, max_m, endpoint=True)),
        max_m=max_m,
        value=SoreFormat(rng.choice(["fp16", "int8"])),
    )


def random_wuve(rng):
    return WuveParams(
        lanes=int(rng.integers(1, 4)),
        adder_latency=int(rng.integers(1, 13)),
        multiplier_latency=int(rng.integers(1, 9)),
    )


def random_mpe(rng):
    group = int(rng.choice([1, 2, 4]))
    groups = int(rng.integers(1, 16 // group + 1))
    load_groups = int(rng.choice([n for n in range(1, groups + 1) if groups % n == 0]))
    chain = ChainParams(
        stages=group * groups,
        group=group,
        load_groups=load_groups,
        full_range=bool(rng.integers(2)),
        dsp=DspSlice(rng.choice(list(DspSlice))),
    )
    vpus, mpus, depth = (int(size) for size in rng.integers(1, [3, 3, 9]))
    return MpeParams(chain=chain, vpus=vpus, mpus=mpus, depth=depth)


def random_dequantiser(rng):
    return DequantiserParams(lanes=int(rng.integers(1, 17)))


def random_delta(rng):
    grid = bare_grid(1, 1, int(rng.integers(1, 20)))
    return DeltaParams(grid=replace(grid, delta_chunks=int(rng.integers(1, 8))))


def random_flex(rng):
    dpes, size = (1 << int(bits) for bits in rng.integers(0, 4, 2))
    most = (dpes * size).bit_length()
    return bare_flex(dpes, size, 1 << int(rng.integers(most)))


def random_special(rng):
    return SpecialParams(lanes=int(rng.integers(1, 9)))


@pytest.mark.long
@pytest.mark.rtl
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(STRUCTURES))
@pytest.mark.parametrize(
    "structure",
    [
        random_pe,
        random_small_array,
        random_sore,
        random_wuve,
        random_mpe,
        random_dequantiser,
        random_delta,
        random_flex,
        random_special,
    ],
)
def test_unit_of_random_structure_agrees_in_amaranths_simulator(structure, seed, tmp_path):
    """The short test's comparison, at 600 points of 50 random structures of each kind of unit."""
    params = structure(np.random.default_rng([SEED, seed]))
    points = draw_points(params, STRUCTURE_POINTS, SEED + 3)
    assert disagreements(params, points, "pysim", tmp_path) == []


def kind(params):
    if isinstance(params, NMArray):
        return "pe" if params.pes == 1 else "array"
    return type(params).__name__


def test_every_kind_of_unit_has_at_least_a_hundred_points():
    """The default run has 100 random points of every kind of unit, the long one 500."""
    # The grid itself has a list of its own, in test_grid_pairs.
    units = {each.__name__ for each in POINTS_OF if each not in (NMArray, PEGrid)}
    points = dict.fromkeys(("pe", "array", *units), 0)
    for pair in PAIRS:
        points[kind(pair.params)] += len(few_points(pair.params))
    for pair in VERILATED:
        points[kind(pair.params)] += VERILATED_POINTS
    assert min(points.values()) >= 100
    assert STRUCTURES * STRUCTURE_POINTS >= 500


ARRAYS = [pair for pair in PAIRS if isinstance(pair.params, NMArray)]


def drawn_points():
    return [point for pair in ARRAYS for point in few_points(pair.params)]


def half_points():
    halves = [pair.params for pair in ARRAYS if pair.params.precision is Precision.FP16]
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


def test_structures_are_distinct_and_builds_few():
    """No structural point is checked twice, and a default run compiles few units."""
    assert len({pair.params for pair in PAIRS}) == len(PAIRS) >= 24
    assert len({pair.params for pair in VERILATED}) == len(VERILATED) <= 11
    assert {"4x4-m4-q2", "sore-5x8of16-fp16", "wuve-3-add4-mul2"} <= set(map(str, VERILATED))


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
