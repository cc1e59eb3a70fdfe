"""Exported Verilog is traceable, reproducible and written whole or not at all."""

import errno
import json
import re
from dataclasses import replace

import pytest

from rtl import export as export_module
from rtl.export import export, module_name, units, verilog_text
from rtl.testing import bare_array
from simulator.arch.sore import SoreParams
from simulator.arch.training_units import TrainingUnits
from simulator.arch.wuve import WuveParams

pytestmark = pytest.mark.rtl

ARCH = bare_array(2, 3, max_m=4, macs_per_pe=3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(ARCH, tmp_path_factory.mktemp("rtl") / "new")


def test_export_carries_the_digest_in_name_attribute_and_json(exported):
    text = exported.verilog.read_text()
    described = json.loads(exported.parameters.read_text())
    assert exported.verilog.name == f"{exported.module}.v"
    assert exported.module == module_name(ARCH) == f"nm_array_{ARCH.digest()[:12]}"
    assert text.count(f'(* sparseloom_digest = "{ARCH.digest()}" *)\nmodule nm_') == 2
    assert described["digest"] == ARCH.digest()
    assert described["parameters"] == ARCH.to_json()


def test_export_describes_every_port(exported):
    ports = json.loads(exported.parameters.read_text())["ports"]
    header = re.search(rf"module {exported.module}\((.*?)\);", exported.verilog.read_text(), re.S)
    names = {name.strip() for name in header.group(1).split(",")} - {"clk", "rst"}
    assert set(ports) == names
    assert ports["side__payload"] == {"direction": "input", "bits": 2 * (1 + 32)}
    assert ports["top__payload"] == {"direction": "input", "bits": 3 * (1 + 3 * 10)}
    assert ports["out__payload"] == {"direction": "output", "bits": 3 * 32}
    assert ports["side__ready"] == {"direction": "output", "bits": 1}


@pytest.mark.parametrize(
    ("params", "name", "lane", "beats"),
    [
        (SoreParams(lanes=3, max_n=2, max_m=8), "sore", "sore_lane", (3 * 16, 3 * (16 + 3))),
        (
            WuveParams(lanes=3, adder_latency=2, multiplier_latency=1),
            "wuve",
            "wuve_lane",
            (3 * 80, 3 * 80),
        ),
    ],
    ids=["sore", "wuve"],
)
def test_export_of_training_units_is_traceable_and_elaborates_a_lane_once(
    params, name, lane, beats, tmp_path
):
    """SORE's and WUVE's Verilog carries its digest, names its ports, and has one lane module."""
    paths = export(params, tmp_path)
    text, described = paths.verilog.read_text(), json.loads(paths.parameters.read_text())
    short = params.digest()[:12]
    assert paths.module == module_name(params) == f"{name}_{short}"
    assert text.count(f'(* sparseloom_digest = "{params.digest()}" *)\nmodule ') == 2
    assert described["parameters"] == params.to_json()
    ports = described["ports"]
    assert (ports["side__payload"]["bits"], ports["out__payload"]["bits"]) == beats
    assert "top__payload" not in ports
    assert text.count(f"module {lane}_{short}(") == 1
    assert len(re.findall(rf"^ *{lane}_{short} lane_\d \(", text, re.M)) == params.lanes


def test_units_of_a_machine_are_its_array_and_what_it_trains_with():
    """A machine without training units has its array alone."""
    sore = SoreParams(lanes=1, max_n=1, max_m=4)
    wuve = WuveParams(lanes=1, adder_latency=1, multiplier_latency=1)
    trainer = replace(ARCH, training=TrainingUnits(sore=sore, wuve=wuve))
    assert units(ARCH) == (ARCH,)
    assert units(trainer) == (trainer, sore, wuve)


def test_export_elaborates_the_element_once(exported):
    text = exported.verilog.read_text()
    element = f"nm_pe_{ARCH.digest()[:12]}"
    assert text.count(f"module {element}(") == 1
    assert len(re.findall(rf"^ *{element} pe_\d_\d \(", text, re.M)) == ARCH.pes


def test_export_is_reproducible_and_names_no_source_file(exported):
    text = exported.verilog.read_text()
    assert verilog_text(ARCH) == text
    assert ".py" not in text
    assert not re.search(r'"/|\(\* src', text)


def test_failed_export_leaves_nothing_behind(monkeypatch, tmp_path):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(export_module, "_parameters_text", broken)
    with pytest.raises(OSError, match="disk full"):
        export(ARCH, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_interrupted_write_removes_its_temporary_files(monkeypatch, tmp_path):
    real = export_module.os.fdopen
    opened = []

    def second_fails(handle, *args, **kwargs):
        opened.append(handle)
        if len(opened) > 1:
            real(handle, *args, **kwargs).close()
            raise OSError(errno.ENOSPC, "disk full")
        return real(handle, *args, **kwargs)

    monkeypatch.setattr(export_module.os, "fdopen", second_fails)
    with pytest.raises(ValueError, match="cannot be written: disk full"):
        export(ARCH, tmp_path)
    assert list(tmp_path.iterdir()) == []
