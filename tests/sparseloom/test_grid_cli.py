"""The grid as users run it: list, RTL, co-simulation, tables, pages and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import sparseloom as sl
from simulator.arch.accelerator import without_rtl
from workloads.recording import recorded


def grid_file(folder, **changes):
    """Write a machine file: grid-tiny with some parameters changed."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({"base": "grid-tiny", "parameters": changes}))
    return path


def refused(answer, *parts):
    """Check that bad input ended in exit code 2 and one sentence that holds every part."""
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("sparseloom: ")
    for part in parts:
        assert part in err


def test_grid_presets_are_listed_with_rtl_and_sources(command):
    """Every number of every grid names its source."""
    archs = {row["name"]: row for row in json.loads(command("list", "archs", "--json")[1])["archs"]}
    for name in ("grid-tiny", "s4-like", "sparten-like", "eyeriss-v2-pe", "delta-rnn-like"):
        wide = name == "delta-rnn-like"
        assert archs[name]["proof"] == ("model only" if wide else "RTL")
        assert {"rows", "chunk", "skip", "dram.latency_cycles"} <= set(archs[name]["sources"])
    assert archs["stc-like"]["proof"] == "model only"


def test_rtl_and_cosim_of_a_small_grid(command):
    """Verilog carries the digest; model and RTL agree at random points."""
    code, out, _ = command("rtl", "--arch", "grid-tiny", "--out", "verilog", "--json")
    answer = json.loads(out)
    assert (code, len(answer["files"])) == (0, 2)
    assert answer["module"].startswith("pe_grid_")
    assert answer["digest"] in Path(answer["files"][0]).read_text()
    code, out, _ = command("cosim", "--arch", "grid-tiny", "--points", 3, "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"], answer["points_by_unit"]) == (0, True, {"pe_grid": 3})


def test_rtl_and_cosim_of_a_grid_with_delta_encoder(command, tmp_path):
    """A grid that takes differences has a second unit, its rows' encoder."""
    path = grid_file(tmp_path, rows=1, delta_chunks=2)
    code, out, _ = command("rtl", "--arch", path, "--out", "verilog", "--json")
    names = [module.rsplit("_", 1)[0] for module in json.loads(out)["modules"]]
    assert (code, names) == (0, ["pe_grid", "delta_encoder"])
    code, out, _ = command("cosim", "--arch", path, "--points", 4, "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"]) == (0, True)
    assert answer["points_by_unit"] == {"pe_grid": 2, "delta_encoder": 2}


def test_grid_too_wide_for_rtl_is_refused(command):
    """768 columns are more ports than the generator numbers; fewer, and the encoder, have RTL."""
    why = ("at most 65,000 bits of chunks a cycle", "chunks of 64 are 443,713")
    refused(command("cosim", "--arch", "delta-rnn-like"), *why)
    code, out, _ = command("rtl", "--arch", "delta-rnn-like", "--out", "verilog", "--json")
    answer = json.loads(out)
    assert (code, len(answer["modules"])) == (0, 1)
    assert answer["module"].startswith("delta_encoder_")
    assert answer["notes"][0].startswith("The grid of delta-rnn-like is a model only. RTL of a")
    assert all(part in answer["notes"][0] for part in why)
    assert without_rtl(sl.arch("delta-rnn-like", cols=111)) is None


def test_rtl_and_cosim_of_flexible_engines(command):
    """SIGMA in small has RTL; the published array says why it has none."""
    archs = {row["name"]: row for row in json.loads(command("list", "archs", "--json")[1])["archs"]}
    assert (archs["flex-tiny"]["proof"], archs["sigma-like"]["proof"]) == ("RTL", "model only")
    code, out, _ = command("rtl", "--arch", "flex-tiny", "--out", "verilog", "--json")
    answer = json.loads(out)
    assert answer["digest"] in Path(answer["files"][0]).read_text()
    code, out, _ = command("cosim", "--arch", "flex-tiny", "--points", 3, "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"], answer["points_by_unit"]) == (0, True, {"flex_dpe": 3})
    for name in ("rtl", "cosim"):
        options = ("--out", "x") if name == "rtl" else ()
        refused(command(name, "--arch", "sigma-like", *options), "needs precision int8, not fp16")


def test_run_shows_what_zeros_of_each_side_leave(command):
    """Table, document and page hold weight, activation and effectual products."""
    arguments = ("--arch", "grid-tiny", "--image", 8, "--sparsity", "unstructured:0.4")
    code, out, err = command("run", "resnet9", *arguments, "--baseline", "dense", "--out", "out")
    assert (code, err) == (0, "")
    assert "MACs with an activation" in out
    assert " activations " in out
    document = json.loads(Path("out/result.json").read_text())
    assert document["macs_dense"] > document["macs_weight"] > document["macs_effectual"] > 0
    assert document["macs_act"] < document["macs_dense"]  # borders are zeros
    assert document["energy_j"] > 0
    assert {"fifo", "imbalance"} <= {row["cause"] for row in document["bottlenecks"]}
    page = Path("out/report.html").read_text()
    assert "<th>activations</th>" in page
    assert "MACs with a weight" in page


def test_other_machines_show_no_columns_of_a_grid(command):
    """The table of an array stays as it was."""
    code, out, _ = command("run", "resnet9", "--arch", "nm-tiny", "--image", 8)
    assert code == 0
    assert "MACs with" not in out
    assert "dataflow" in out


def test_explain_speaks_of_a_grid(command):
    """Losses have the grid's names."""
    code, out, _ = command(
        "explain", "resnet9", "--arch", "grid-tiny", "--image", 8, "--sparsity", "unstructured:0.4"
    )
    assert code == 0
    assert "in front of PEs" in out


def test_explain_says_what_the_balance_of_features_is_worth(command, tmp_path):
    """The run without greedy balance is that of a grid that keeps features in order."""
    arguments = ("resnet9", "--image", 8, "--sparsity", "unstructured:0.4")
    code, out, _ = command("explain", *arguments, "--arch", "grid-tiny", "--json")
    document = json.loads(out)
    (balance,) = document["optimisations"]
    path = grid_file(tmp_path, balance="none")
    plain = json.loads(command("run", *arguments, "--arch", path, "--json")[1])
    assert (code, balance["name"]) == (0, "greedy balance")
    assert balance["cycles_without"] == plain["cycles"] > document["cycles"]
    assert balance["worth"] == plain["cycles"] / document["cycles"]
    unbalanced = json.loads(command("explain", *arguments, "--arch", path, "--json")[1])
    assert unbalanced["optimisations"] == []


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"chunk": 65}, ("chunk must be 1 to 64, not 65",)),
        ({"chunk": 0}, ("chunk must be 1 to 64, not 0",)),
        ({"fifo_depth": 0}, ("fifo_depth must be at least 1, not 0",)),
        ({"macs_per_pe": 9}, ("macs_per_pe must be 1 to chunk = 8, not 9",)),
        ({"skip": "zeros"}, ("skip", "'zeros'", "weights")),
        ({"balance": "best"}, ("balance", "'best'", "greedy")),
        ({"fifo": 3}, ("unknown key 'fifo'", "fifo_depth")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_grid_names_key_found_and_allowed(command, tmp_path, changes, parts):
    """A machine file is told its line, what was found and what may be."""
    path = grid_file(tmp_path, **changes)
    refused(command("run", "resnet9", "--arch", path), "grid.yaml", *parts)


def test_training_on_a_grid_names_machines_that_train(command):
    """No grid trains."""
    answer = command("run", "resnet9", "--arch", "sparten-like", "--phase", "train")
    refused(answer, "'sparten-like'", "sat-vcu1525")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (np.zeros((1, 3, 5, 5), np.float32), ("takes float32 of shape", "(1, 3, 5, 5)")),
        (np.zeros(0, np.float32), ("takes float32 of shape", "(0,)")),
        (b"no picture", ("no readable image",)),
    ],
    ids=["shape", "empty", "bytes"],
)
def test_records_that_do_not_fit_the_model_are_refused(command, tmp_path, content, parts):
    """What is recorded must be an input of this very model."""
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 1, 1], [0.5] * 12)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    save(model, "model.onnx")
    path = tmp_path / ("record.png" if isinstance(content, bytes) else "record.npy")
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    refused(command("run", "model.onnx", "--arch", "grid-tiny", "--record", path), *parts)


@pytest.mark.parametrize(
    ("masks", "sentence"),
    [
        ({"activation": np.ones((4, 9), bool)}, r"shape \(4, 9\), but its tensor has shape"),
        ({"activation": np.ones((4, 8))}, "must be boolean, not float64"),
        ({"other": np.ones((4, 8), bool)}, "was it recorded on another model"),
        ({"weight": np.ones((8, 4), bool)}, "is a weight"),
    ],
    ids=["shape", "dtype", "model", "weight"],
)
def test_masks_of_another_model_are_refused(masks, sentence):
    """Recorded masks belong to tensors of this graph, boolean and of their shape."""
    with pytest.raises(ValueError, match=sentence):
        recorded(sl.gemm(4, 8, 4), masks)


@pytest.mark.parametrize("mask", [np.ones((0, 4)), np.array(["a"])], ids=["empty", "text"])
def test_explicit_masks_hold_something_numeric(mask):
    """An empty or textual mask is refused when it is made."""
    with pytest.raises(ValueError, match="An explicit mask"):
        sl.gemm(4, 8, 4, activation=sl.Explicit(mask))


@pytest.mark.parametrize("sizes", [(0, 8, 4), (4, 0, 4), (4, 8, 0)])
def test_empty_products_are_refused(sizes):
    """A product needs a row, a position and a feature."""
    with pytest.raises(ValueError, match="must be a whole number from 1 up, not 0"):
        sl.gemm(*sizes)
