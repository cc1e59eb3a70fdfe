"""The FlexDpe array's RTL takes the machine's cycles; a broken part is found; its Verilog."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module

import rtl.flex_dpe.core as core
from mapping import map_graph
from rtl.cosim.campaign import compare
from rtl.cosim.check import difference
from rtl.cosim.flex_points import FlexPoint, flex_expected, flex_stimulus
from rtl.cosim.points import draw_points
from rtl.cosim.pysim import observe
from rtl.export import export
from rtl.flex_dpe import FlexDpeCore
from rtl.flex_dpe.adders import ForwardingTree
from rtl.flex_dpe.engine import Engine
from rtl.flex_dpe.stationary import Stationary
from rtl.testing import PAIRS, bare_flex
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.load import load_arch
from simulator.simulate import simulate
from simulator.units.flex_dpe import beat_slots, pack_product, run_sequence, unpack_product
from simulator.units.slot_streams import no_stalls
from workloads.gemm import gemm_graph
from workloads.sparsity import Explicit

pytestmark = pytest.mark.rtl

SEED = 50
ARCH = bare_flex(2, 4, 4)


@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
def test_preset_takes_the_cycles_of_its_rtl(density):
    """A masked product on flex-tiny: `simulate` and the RTL say the same cycles and sums."""
    arch = load_arch("flex-tiny", dataflow="ws")
    rng = np.random.default_rng(7)
    act, weight = (rng.integers(-128, 128, size, dtype=np.int8) for size in ((5, 37), (37, 6)))
    mask = rng.random(weight.shape) < density
    product = pack_product(arch, weight.T, mask.T, act)
    point = FlexPoint(
        jobs=product.jobs, beats=product.beats, stalls=no_stalls(product.jobs, beat_slots)
    )
    (seen,) = observe(FlexDpeCore(arch), [flex_stimulus(point)])
    graph = gemm_graph(*act.shape, weight.shape[1], weight=Explicit(mask))
    assert seen.counters["cycles"] == simulate(map_graph(graph, arch).schedule, arch).cycles
    assert difference(flex_expected(point), seen) is None
    results = run_sequence(product.jobs, product.beats).results
    wanted = act.astype(np.int64) @ np.where(mask, weight, 0)
    assert (unpack_product(product, results, weight.shape[1]) == wanted).all()


def corners(point):
    """Name the corners a point reaches."""
    arch = point.jobs[0].arch
    size, width = arch.peak_macs_per_cycle, arch.loads_per_cycle
    for job, beats in zip(point.jobs, point.beats, strict=True):
        there = run_sequence([job], [beats]).results.there[0]
        yield "full array" if job.nonzeros == size > 1 else ""
        yield "goes round" if job.start + job.nonzeros > size else ""
        yield "beat goes round" if job.nonzeros > size - width + job.held > job.held > 0 else ""
        yield "no load" if not job.loads else "loads"
        yield "starts inside a beat" if job.held else ""
        yield "drains" if job.drain else "goes on"
        yield "one cluster" if there.sum() == 1 < job.nonzeros else ""
        yield "many clusters" if there.sum() > 2 else ""
        yield "multicast" if len(set(beats.position.tolist())) < job.nonzeros else ""


def test_points_reach_every_corner():
    """The drawn points of CI meet all shapes of passes."""
    flex = [pair.params for pair in PAIRS if isinstance(pair.params, FlexDpe)]
    points = [point for arch in flex for point in draw_points(arch, 10, 20)]
    wanted = {
        "full array",
        "goes round",
        "beat goes round",
        "no load",
        "loads",
        "drains",
        "goes on",
    }
    wanted |= {"starts inside a beat", "one cluster", "many clusters", "multicast"}
    assert wanted <= {corner for point in points for corner in corners(point)}


class ShortTree(ForwardingTree):
    """A tree whose adders reach one level down only."""

    def _added(self, joins, sums, adder):
        return sums[adder] + sums[adder + 1]


class GreedyRegisters(Stationary):
    """Registers that take whole beats, even where the pass has begun."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        width = self.arch.loads_per_cycle
        for place, kept in enumerate(self.held):
            with m.If(self.load & (self.start >= width)):
                m.d.sync += kept.eq(self.beat[place % width])
        return m


class BlindEngine(Engine):
    """An engine that counts every multiplier as busy with a value."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.nonzero.eq(-1)
        return m


class EagerController(core.Controller):
    """A controller that never waits for the tree."""

    def elaborate(self, platform) -> Module:
        self.arch = replace(self.arch, dpes=1, dpe_size=1, loads_per_cycle=1)
        return super().elaborate(platform)


@pytest.mark.parametrize(
    ("name", "broken", "sentence"),
    [
        ("ForwardingTree", ShortTree, r"outputs\[\d+\]: model"),
        ("Stationary", GreedyRegisters, r"outputs\[\d+\]: model"),
        ("Engine", BlindEngine, "counter mac_full: model"),
        ("Controller", EagerController, r"accept_\w+(\[\d+\])?: model"),
    ],
)
def test_broken_part_is_found(monkeypatch, tmp_path, name, broken, sentence):
    """The comparison sees wrong sums, wrong values, wrong counts and a missing drain."""
    points = draw_points(ARCH, 8, SEED)
    assert [found for _, found in compare(ARCH, points, "pysim", tmp_path) if found] == []
    monkeypatch.setattr(core, name, broken)
    found = [found for _, found in compare(ARCH, points, "pysim", tmp_path) if found]
    assert found
    assert re.match(sentence, found[0])


def test_export_has_one_engine_module(tmp_path):
    """The Verilog carries the digest and elaborates the engine once."""
    paths = export(ARCH, tmp_path)
    text, short = paths.verilog.read_text(), ARCH.digest()[:12]
    described = json.loads(paths.parameters.read_text())
    assert paths.module == f"flex_dpe_{short}"
    assert text.count(f'(* sparseloom_digest = "{ARCH.digest()}" *)\nmodule flex_') == 2
    assert len(re.findall(rf"^ *flex_engine_{short} engine_\d \(", text, re.M)) == ARCH.dpes
    bits = {name: port["bits"] for name, port in described["ports"].items()}
    assert bits["top__payload"] == 4 * (8 + 3)
    assert bits["side__payload"] == 4 * 8
    assert bits["out__payload"] == 8 * (1 + 3 + 19)
    assert bits["job__payload"] == 3 + 4 + 2 + 32 + 1 + 2 * 5 * 4
