"""The demo, in process: a trained model from its wheel to a report, and again."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sparseloom.cli import invoke
from sparseloom.runs import run
from workloads.frontends import load
from workloads.pruning import sparsify
from workloads.sparsity import NofM

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    """Return the PP-OCRv4 recogniser that the rapidocr-onnxruntime wheel ships."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    assert spec is not None, "install rapidocr-onnxruntime --no-deps to run the demo"
    (path,) = Path(spec.submodule_search_locations[0], "models").glob("*rec*.onnx")
    return path


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    arguments = ["run", str(model), "--arch", "sat-vcu1525", "--sparsity", "2:8"]
    assert invoke([*arguments, "--baseline", "dense", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "result.json").read_text())


def test_demo_simulates_the_whole_model_dense_and_sparse(document):
    # 702.5 M MACs in 38 convolutions (14 depthwise or grouped) and 13 products.
    assert document["macs_dense"] == 702_469_440
    kinds = [op["kind"] for op in document["ops"] if op["macs_dense"]]
    assert len(kinds) == 51
    assert document["unsupported"] == {}
    assert document["speedup"] > 1
    assert document["energy_j"] < document["baseline_energy_j"]
    assert 0 < document["utilisation"] <= 1


def test_demo_counts_the_products_of_the_pruned_weights(model):
    done = run(model, arch="sat-vcu1525", sparsity="2:8")
    graph = sparsify(load(model), NofM(2, 8))
    expected = 0
    for op in graph.gemm_ops:
        weight = graph.values.get(op.inputs[1])
        if weight is None:
            expected += op.macs
        else:
            kept = np.abs(weight.astype(np.float64)) > 2.0**-25  # half of fp16's least subnormal
            expected += op.gemm.m * op.repeat * int(np.count_nonzero(kept))
    assert done.result.counts["mac", "fp16", "full"] == done.result.macs_effectual == expected


def test_demo_report_names_every_operator(folder, document):
    page = (folder / "report.html").read_text()
    assert all(op["name"] in page for op in document["ops"])
    assert page.count("<img ") == 5


def test_demo_again_writes_the_same_bytes(model, folder, tmp_path):
    arguments = ["run", str(model), "--arch", "sat-vcu1525", "--sparsity", "2:8"]
    assert invoke([*arguments, "--baseline", "dense", "--out", str(tmp_path)]) == 0
    for name in ("result.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_demo_report_rebuilds_from_its_result(folder):
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert invoke(["report", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == page
