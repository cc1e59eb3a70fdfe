import pytest
from onnx_models import model, node, saved

from workloads.errors import WorkloadError
from workloads.frontends import load
from workloads.zoo import build


def test_load_zoo_name_passes_its_options():
    assert load("resnet9", batch=2).digest() == build("resnet9", batch=2).digest()


def test_load_graph_is_itself():
    graph = build("resnet9")
    assert load(graph) is graph


def test_load_csv_path_reads_a_topology(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text("Layer,M,N,K,\na,1,2,3,\n")
    assert load(path).macs == load(str(path)).macs == 6


def test_load_onnx_path_passes_its_options(tmp_path):
    path = saved(model([node("Relu", ["x"], ["y"])], {"x": ("n", 3)}), tmp_path)
    assert load(str(path), batch=2).tensors["y"].shape == (2, 3)


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        (3, {}, "A workload is a name, a file or a graph, not 3"),
        ("resnet19", {}, "Unknown workload 'resnet19': give a network .*resnet9, .*or a SCALE-Sim"),
        (
            "model.pt",
            {},
            r"Unknown workload 'model\.pt'.*an \.onnx file or a SCALE-Sim topology \.csv",
        ),
        ("none.onnx", {}, r"File 'none\.onnx' does not exist"),
        ("none.csv", {}, r"File 'none\.csv' does not exist"),
        ("none.onnx", {"image": 32}, "none.onnx has no option 'image'; known: inputs, batch"),
        ("none.csv", {"batch": 2}, "none.csv takes no options, but batch was given"),
        (build("resnet9"), {"batch": 2}, "A workload graph takes no options, but batch was given"),
    ],
)
def test_load_unknown_source_or_option_says_what_is_known(source, options, sentence):
    with pytest.raises(WorkloadError, match=sentence):
        load(source, **options)
