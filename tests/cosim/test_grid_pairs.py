"""The PEGrid's RTL does what its model says: bits, every acceptance's cycle, every counter."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module

import rtl.pe_grid.core as core
from rtl.cosim.campaign import compare
from rtl.cosim.check import difference
from rtl.cosim.grid_points import GridPoint, grid_expected, grid_stimulus
from rtl.cosim.play import feed
from rtl.cosim.points import draw_points
from rtl.cosim.pysim import observe
from rtl.export import export
from rtl.pe_grid import GridElement, PEGridCore
from rtl.pe_grid.testing import PAIRS, VERILATED, bare_grid
from rtl.testing import Pair
from simulator.arch.pe_grid import Skip, ZeroAction
from simulator.units.pe_chunks import grid_job, pack
from simulator.units.pe_trace import GridStalls

pytestmark = pytest.mark.rtl

SEED = 30
POINTS = 4
VERILATED_POINTS = 40


def name(grid):
    return str(Pair(params=grid))


def disagreements(grid, points, engine, directory):
    """Return a sentence for every point at which bits, cycles or counters differ."""
    played = list(compare(grid, points, engine, directory))
    assert len(played) == len(points)
    return [f"{p}: {found}" for p, (_, found) in zip(points, played, strict=True) if found]


def played(grid, points):
    return list(observe(PEGridCore(grid), [grid_stimulus(point) for point in points]))


@pytest.mark.parametrize("grid", PAIRS, ids=name)
def test_grid_agrees_in_amaranths_simulator(grid, tmp_path):
    """Result bits, cycles of every acceptance and emission, and all counters are the model's."""
    points = draw_points(grid, POINTS, SEED)
    assert disagreements(grid, points, "pysim", tmp_path) == []


@pytest.mark.cocotb
@pytest.mark.parametrize("grid", VERILATED, ids=name)
def test_exported_grid_agrees_under_verilator_and_cocotb(grid, tmp_path):
    """The exported Verilog does what the model says, as the Amaranth sources do."""
    points = draw_points(grid, VERILATED_POINTS, SEED)
    assert disagreements(grid, points, "verilator", tmp_path) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("grid", PAIRS, ids=name)
def test_grid_agrees_at_many_points(grid, tmp_path):
    """The same at 200 points of each structure."""
    points = draw_points(grid, 200, SEED + 1)
    assert disagreements(grid, points, "pysim", tmp_path) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(60))
def test_grid_of_any_structure_agrees(seed, tmp_path):
    """The same at random structural parameters."""
    rng = np.random.default_rng([SEED, seed])
    chunk, rows = int(rng.integers(1, 20)), int(rng.integers(1, 4))
    grid = bare_grid(
        rows,
        int(rng.integers(1, 4)),
        chunk,
        depth=int(rng.choice([1, 2, 3, 5, 24])),
        macs=int(rng.integers(1, min(chunk, 5), endpoint=True)),
        skip=list(Skip)[rng.integers(4)],
        zero=list(ZeroAction)[rng.integers(2)],
        look_ahead=bool(rng.integers(2)),
        drain_rows=int(rng.choice([1, rows])),
    )
    points = draw_points(grid, 40, SEED)
    assert disagreements(grid, points, "pysim", tmp_path) == []


@pytest.mark.long
@pytest.mark.cocotb
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "grid",
    [
        bare_grid(4, 2, 64, macs=3, drain_rows=2),
        bare_grid(8, 8, 16, depth=4),
        bare_grid(6, 5, 10, depth=3, macs=2, look_ahead=True, drain_rows=3),
    ],
    ids=name,
)
def test_large_exported_grid_agrees_at_many_points(grid, tmp_path):
    """Larger grids and the widest chunk, under Verilator and cocotb."""
    points = draw_points(grid, 300, SEED + 2)
    assert disagreements(grid, points, "verilator", tmp_path) == []


def corners(point):
    """Name the corners a point reaches."""
    grid, stalls = point.jobs[0].arch, point.stalls
    model = grid_expected(point).counters
    yield f"skip {grid.skip}"
    yield f"look ahead {grid.look_ahead}"
    yield f"{len(point.jobs)} jobs"
    delays = [d.any() for d in (stalls.side, stalls.top, stalls.out)]
    yield "no stall" if not any(delays) else "stalled"
    yield "three stalls" if all(delays) else ""
    yield "back-pressure only" if delays == [False, False, True] else ""
    for cause in ("vacant", "imbalance", "drain"):
        yield cause if model[f"pe_{cause}"] else ""
    yield "gated" if model["mac_gated"] else ""
    yield "computed zeros" if model["mac_full"] > model["effectual"] else ""
    yield "accumulates over jobs" if point.jobs[-1].accumulate and len(point.jobs) > 1 else ""
    for job, beats in zip(point.jobs, point.beats, strict=True):
        yield "accumulates" if job.accumulate else ""
        both = beats.side.mask.any(axis=2)[:, :, None] & beats.top.mask.any(axis=2)[:, None]
        yield "tiles" if job.tiles > 2 else ""
        yield "one chunk" if job.chunks == 1 else ""
        yield "tile deeper than the FIFO" if job.chunks > grid.fifo_depth + 1 else ""
        yield "FIFO deeper than the tile" if job.chunks <= grid.fifo_depth > 1 else ""
        yield "several empty in a row" if job.chunks > 2 and not both.any() else ""
        full = beats.side.mask.all(axis=2).any(), beats.top.mask.all(axis=2).any()
        yield "full chunks" if all(full) and grid.chunk > 4 else ""


def test_points_reach_every_corner():
    """The drawn points of CI meet all modes, stalls and shapes of chunks."""
    points = [point for grid in PAIRS for point in draw_points(grid, POINTS, SEED)]
    reached = {corner for point in points for corner in corners(point)}
    wanted = {f"skip {skip}" for skip in Skip} | {"look ahead True", "look ahead False"}
    wanted |= {"1 jobs", "2 jobs", "no stall", "three stalls", "back-pressure only"}
    wanted |= {"vacant", "imbalance", "drain", "gated", "computed zeros", "tiles", "one chunk"}
    wanted |= {"tile deeper than the FIFO", "FIFO deeper than the tile"}
    wanted |= {"several empty in a row", "full chunks", "accumulates", "accumulates over jobs"}
    assert wanted <= reached
    assert len(set(PAIRS)) == len(PAIRS) >= 20
    assert len(points) >= 100


def whole_point(grid, act, weight, **masks):
    job = grid_job(grid, m=len(act), k=len(weight), n=weight.shape[1])
    return GridPoint(
        jobs=(job,), beats=(pack(job, act, weight, **masks),), stalls=GridStalls.none((job,))
    )


@pytest.mark.long
def test_accumulator_wraps_at_32_bits():
    """131073 products of (-128)^2 leave the range of int32."""
    grid = bare_grid(1, 1, 64, macs=64)
    act = np.full((1, 131_073), -128, np.int8)
    point = whole_point(grid, act, act.T.copy())
    (seen,) = played(grid, [point])
    assert seen.outputs == (2**31 + 2**14,)
    assert difference(grid_expected(point), seen) is None


def test_late_job_starts_after_an_idle_gap():
    """A job offered late moves everything behind it by the gap; nothing is counted while idle."""
    grid = bare_grid(2, 2, 4, depth=2)
    first, second = (whole_point(grid, *operands(seed)) for seed in (1, 2))
    both = GridPoint(
        jobs=first.jobs + second.jobs,
        beats=first.beats + second.beats,
        stalls=GridStalls.none(first.jobs + second.jobs),
    )
    model, gap = grid_expected(both), 40
    stimulus = grid_stimulus(both)
    late = (0, model.accept["job"][1] + gap)
    feeds = {**stimulus.feeds, "job": feed(stimulus.feeds["job"].words, late)}
    (seen,) = observe(PEGridCore(grid), [replace(stimulus, feeds=feeds, limit_cycles=500)])
    assert seen.outputs == model.outputs
    assert seen.counters == model.counters
    assert seen.accept["job"] == (-1, model.accept["job"][1] + gap)
    own = first.jobs[0].beats
    moved = tuple(cycle + gap for cycle in model.accept["side0"][own:])
    assert seen.accept["side0"] == model.accept["side0"][:own] + moved


def test_wait_for_the_first_chunk_of_a_job_is_not_counted():
    """A job's window opens with the first chunk it accepts, on whatever stream."""
    grid = bare_grid(2, 2, 4, depth=2)
    first, second = (whole_point(grid, *operands(seed)) for seed in (1, 2))
    jobs = first.jobs + second.jobs
    stalls, late = GridStalls.none(jobs), first.jobs[0].beats
    stalls.side[late] += 9
    stalls.top[late] += (9, 7)
    both = GridPoint(jobs=jobs, beats=first.beats + second.beats, stalls=stalls)
    (seen,) = played(grid, [both])
    assert difference(grid_expected(both), seen) is None
    apart = [grid_expected(point).counters["cycles"] for point in (first, second)]
    assert seen.counters["cycles"] == sum(apart) + 2


def operands(seed):
    rng = np.random.default_rng(seed)
    act, weight = (rng.integers(-2, 3, s).astype(np.int8) for s in ((4, 11), (11, 5)))
    return act, weight


@pytest.mark.parametrize("cut", [2, 9, 23])
def test_reset_in_the_middle_of_a_job_forgets_it(cut):
    """After a reset the grid runs the next job as if it were the first."""
    grid = bare_grid(2, 2, 4, depth=2)
    point = whole_point(grid, *operands(3))
    broken = replace(grid_stimulus(point), limit_cycles=cut)
    _, seen = observe(PEGridCore(grid), [broken, grid_stimulus(point)])
    assert difference(grid_expected(point), seen) is None


def test_export_has_one_pe_module_and_every_stream(tmp_path):
    """The Verilog carries the digest, elaborates the PE once and names a stream for each lane."""
    grid = bare_grid(2, 3, 5, drain_rows=2)
    paths = export(grid, tmp_path)
    text, short = paths.verilog.read_text(), grid.digest()[:12]
    described = json.loads(paths.parameters.read_text())
    assert paths.module == f"pe_grid_{short}"
    assert text.count(f'(* sparseloom_digest = "{grid.digest()}" *)\nmodule ') == 2
    assert len(re.findall(rf"^ *grid_pe_{short} pe_\d_\d \(", text, re.M)) == grid.pes
    assert described["parameters"] == grid.to_json()
    bits = {name: port["bits"] for name, port in described["ports"].items()}
    payloads = {name: bits[f"{name}__payload"] for name in ("side1", "top2", "out")}
    assert payloads == {"side1": 5 + 5 * 8, "top2": 5 + 5 * 8, "out": 2 * 3 * 32}
    assert "side2__payload" not in bits


class HastyElement(GridElement):
    """A PE that frees no place in the cycle in which it pops a chunk."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        for kind in ("act", "weight"):
            fifo = getattr(m.submodules, f"{kind}_fifo")
            m.d.comb += getattr(self, f"{kind}_space").eq(fifo.level != self.grid.fifo_depth)
        return m


class WastefulElement(GridElement):
    """A PE that counts every multiplier use as effectual."""

    def _match(self, m: Module, chunk, active, left):
        products = super()._match(m, chunk, active, left)
        m.d.comb += self.tally.effectual.eq(self.tally.full + self.tally.gated)
        return products


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [(HastyElement, r": accept_\w+\[\d\]: model"), (WastefulElement, ": counter effectual: model")],
)
def test_broken_element_is_found(monkeypatch, tmp_path, broken, sentence):
    """The comparison sees a PE that is late by a cycle, and one that counts wrong."""
    grid = bare_grid(2, 2, 4, skip=Skip.WEIGHTS)
    monkeypatch.setattr(core, "GridElement", broken)
    found = disagreements(grid, draw_points(grid, 4, SEED), "pysim", tmp_path)
    assert found
    assert re.search(sentence, found[0])
