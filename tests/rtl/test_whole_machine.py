"""Whole machines as Verilog, through the command line: buses by AXI4's names, each part once."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from rtl.export import machine_name
from simulator.arch.load import load_arch
from sparseloom.cli import invoke

pytestmark = pytest.mark.rtl

AXI4_PORTS = {
    "aw": "id addr len size burst lock cache prot qos valid ready",
    "w": "data strb last valid ready",
    "b": "id resp valid ready",
    "ar": "id addr len size burst lock cache prot qos valid ready",
    "r": "id data resp last valid ready",
}


@pytest.fixture
def exported(capsys, tmp_path):
    """Return a function that exports a preset: kinds of modules; name, ports and text of the top.

    The name has the machine's digest, and every port in the Verilog is described.
    """

    def export(preset):
        arguments = ["rtl", "--arch", preset, "--machine", "--out", str(tmp_path), "--json"]
        assert invoke(arguments) == 0
        answer = json.loads(capsys.readouterr().out)
        verilog, parameters = (Path(file).read_text() for file in answer["files"][-2:])
        arch, (*_, top) = load_arch(preset), answer["modules"]
        ports = json.loads(parameters)["ports"]
        header = re.search(rf"module {top}\((.*?)\);", verilog, re.S)
        assert top == machine_name(arch)
        assert top.endswith(arch.digest()[:12])
        assert f'sparseloom_digest = "{arch.digest()}"' in verilog
        assert set(ports) == {p.strip() for p in header.group(1).split(",")} - {"clk", "rst"}
        modules = [name.rpartition("_")[0] for name in answer["modules"]]
        return SimpleNamespace(modules=modules, ports=ports, text=verilog)

    return export


def ports_of(bus, *channels):
    return {f"{bus}_{c}{name}" for c in channels for name in AXI4_PORTS[c].split()}


def test_an_array_with_its_training_units_is_an_axi4_master(exported):
    """One PE module, and one bus for all data."""
    machine = exported("sat-tiny")
    assert machine.modules == ["nm_array", "sore", "wuve", "nm_machine"]
    bus = {name for name in machine.ports if name.startswith("m_axi_")}
    assert bus == ports_of("m_axi", *AXI4_PORTS)
    assert machine.ports["m_axi_awvalid"] == {"direction": "output", "bits": 1}
    assert machine.ports["m_axi_awready"] == {"direction": "input", "bits": 1}
    assert machine.ports["m_axi_araddr"] == {"direction": "output", "bits": 32}
    assert machine.ports["m_axi_wstrb"] == {"direction": "output", "bits": 8}
    assert machine.ports["m_axi_rdata"] == {"direction": "input", "bits": 64}
    assert machine.ports["m_axi_rready"] == {"direction": "output", "bits": 1}
    assert machine.ports["done"] == {"direction": "output", "bits": 1}
    assert machine.text.count("\nmodule nm_pe_") == 1


def test_a_core_of_dsp_chains_is_two_axi4_masters(exported):
    """Data by `m_axi_*`, the program by `p_axi_*`, only read; each part once."""
    core = exported("flightllm-tiny")
    assert core.modules == ["mpe", "dequantiser", "special", "dsp_machine"]
    assert {name for name in core.ports if name.startswith("p_axi_")} == ports_of(
        "p_axi", "ar", "r"
    )
    assert core.ports["m_axi_awvalid"] == {"direction": "output", "bits": 1}
    assert core.ports["m_axi_wdata"] == {"direction": "output", "bits": 32}
    assert core.ports["p_axi_araddr"] == {"direction": "output", "bits": 32}
    assert core.ports["p_axi_rdata"] == {"direction": "input", "bits": 32}
    assert core.text.count("\nmodule vpu_") == core.text.count("\nmodule special_lane_") == 1
