"""The Python surface: what it exports, how fast it loads, what its steps return."""

import doctest
import subprocess
import sys

import pytest

import sparseloom as sl
from cost_models import HOROWITZ_45NM
from sparseloom import api, tables

PUBLIC = [
    "load",
    "arch",
    "gemm",
    "map",
    "simulate",
    "price",
    "compare",
    "run",
    "encode",
    "decode",
    "Dense",
    "NofM",
    "Unstructured",
    "Block",
    "Balanced",
    "ConstantFanIn",
    "Positional",
    "Explicit",
    "Result",
    "Cost",
    "Format",
    "MapperResult",
    "WorkloadGraph",
]


@pytest.mark.parametrize("name", sorted({*PUBLIC, *sl.__all__}))
def test_every_public_name_resolves(name):
    assert getattr(sl, name).__name__ == name
    assert name in dir(sl)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sparseloom' has no attribute 'nonsense'"):
        _ = sl.nonsense


def test_import_loads_no_heavy_library():
    code = (
        "import sys, sparseloom, sparseloom.cli\n"
        "heavy = {'numpy', 'networkx', 'onnx', 'matplotlib', 'amaranth', 'pandas', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [sl, api, tables], ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_steps_agree_with_one_call_of_simulate():
    graph = sl.gemm(16, 64, 8, weight=sl.NofM(2, 8))
    machine = sl.arch("nm-tiny")
    mapped = sl.map(graph, machine)
    results = [sl.simulate(workload, machine) for workload in (graph, mapped, mapped.schedule)]
    assert len({result.digest() for result in results}) == 1
    assert results[0].macs_effectual == 16 * 64 * 8 // 4


def test_simulate_takes_a_preset_name():
    graph = sl.gemm(16, 64, 8)
    assert sl.simulate(graph, "nm-tiny") == sl.simulate(graph, sl.arch("nm-tiny"))


@pytest.mark.parametrize("m", [1, 33, 200])
@pytest.mark.parametrize("flow", ["os", "ws", "is"])
def test_ideal_systolic_equals_scale_sim_closed_form(m, flow):
    k, n, r, c = 70, 45, 16, 8
    machine = sl.arch("systolic", rows=r, cols=c, dataflow=flow, memory="ideal")
    folds = {
        "os": -(-m // r) * -(-n // c) * (r + c + k - 2),
        "ws": -(-k // r) * -(-n // c) * (2 * r + c + m - 2),
        "is": -(-k // r) * -(-m // c) * (2 * r + c + n - 2),
    }
    assert sl.simulate(sl.gemm(m, k, n), machine).cycles == folds[flow]


def test_price_with_another_dram_changes_only_main_memory():
    result = sl.simulate(sl.gemm(16, 64, 8), "nm-tiny")
    default, hbm = sl.price(result), sl.price(result, dram="hbm2")
    changed = {e for e in default.breakdown if default.breakdown[e] != hbm.breakdown[e]}
    assert {component for component, _, _ in changed} == {"dram"}
    assert default.table_digest == HOROWITZ_45NM.digest()


def test_map_unknown_mapper_lists_the_known():
    with pytest.raises(ValueError, match="Unknown mapper 'magic'; known: exhaustive"):
        sl.map(sl.gemm(4, 4, 4), "nm-tiny", mapper="magic")


def test_map_reports_every_operator_once():
    seen = []
    graph = sl.load("resnet9")
    sl.map(graph, "sat-vcu1525", on_op=seen.append)
    assert seen == [op.name for op in graph.ops]


def test_simulate_takes_no_name():
    """A network's name is no graph yet; it is refused, not answered with nothing."""
    with pytest.raises(ValueError, match=r"a graph, as `load` returns, .*, not 'resnet9'"):
        sl.simulate("resnet9", "nm-tiny")
