"""Model-only machines through the command line: run, report, explain, list, and no RTL."""

import json

import pytest

MODELS = ("dense-tpu", "dstc-like", "sigma-like", "stc-dual", "stc-flexible", "stc-like")


@pytest.mark.parametrize("arch", MODELS)
def test_run_prices_compares_and_reports(arch, command, topology, tmp_path):
    folder = tmp_path / "out"
    run = ("run", topology, "--arch", arch, "--sparsity", "2:4", "--baseline", "dense")
    code, out, err = command(*run, "--out", folder, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["energy_j"] > 0
    assert document["speedup"] == 1 if arch == "dense-tpu" else document["speedup"] > 1
    assert all(event["source"] for event in document["energy"]["events"])
    assert document == json.loads((folder / "result.json").read_text())
    assert (folder / "report.html").stat().st_size > 10_000
    code, out, _ = command("explain", topology, "--arch", arch, "--sparsity", "2:4")
    assert code == 0
    assert "of the products kept" in out


def test_run_resnet50_with_two_of_four_gains_less_than_two(command):
    run = ("run", "resnet50", "--arch", "stc-like", "--sparsity", "2:4", "--baseline", "dense")
    code, out, _ = command(*run, "--json")
    assert code == 0
    assert 1.5 < json.loads(out)["speedup"] < 2


def test_list_calls_them_model_only(command):
    _, out, _ = command("list", "archs", "--json")
    proofs = {row["name"]: row["proof"] for row in json.loads(out)["archs"]}
    assert {proofs[name] for name in MODELS} == {"model only"}
    assert proofs["systolic"] == "RTL"


@pytest.mark.parametrize("line", [("rtl", "--out", "verilog"), ("cosim",)])
def test_machines_without_rtl_say_so(line, command):
    code, out, err = command(*line, "--arch", "sigma-like")
    assert (code, out) == (2, "")
    assert "sigma-like: RTL of a FlexDpe needs precision int8" in err


def test_training_is_refused_in_one_sentence(command):
    code, _, err = command("run", "resnet9", "--arch", "dstc-like", "--phase", "train")
    assert code == 2
    assert "needs an arch with `training` units (sore, wuve), which 'dstc-like' has not" in err
