"""Damaged and hostile files end in one sentence that names the file."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node, pp_ocr, saved

from workloads.errors import WorkloadError
from workloads.frontends.onnx import load_onnx


def relu(shape=(1, 3), **inputs):
    return model([node("Relu", ["x"], ["y"])], {"x": shape, **inputs})


def refused(path, match, **options):
    with pytest.raises(WorkloadError, match=match) as caught:
        load_onnx(path, **options)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    refused(tmp_path / "none.onnx", r"File '.*none\.onnx' does not exist")


def test_folder_is_no_file(tmp_path):
    (tmp_path / "dir.onnx").mkdir()
    refused(tmp_path / "dir.onnx", r"File '.*dir\.onnx' is a folder, not a file")


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.onnx"
    path.touch()
    refused(path, "has 0 bytes; an ONNX file has 1 to")


@pytest.mark.parametrize("content", [b"hello, world\n" * 50, bytes(range(256)) * 8, b"\x00" * 64])
def test_other_format_is_refused(content, tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    refused(path, "not a readable ONNX model|holds no operators")


def test_truncated_model_is_refused_wherever_it_is_cut(tmp_path):
    whole = pp_ocr("cls").read_bytes()
    path = tmp_path / "cut.onnx"
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, "not a readable ONNX model|holds no operators|refuses the model")


def test_name_that_is_no_text_is_refused(tmp_path, capfd):
    raw = relu().SerializeToString()
    path = tmp_path / "bytes.onnx"
    path.write_bytes(raw.replace(b"Relu.y", b"Relu\xff\xfe"))
    refused(path, "its field 'name' holds bytes that are no UTF-8 text")
    assert capfd.readouterr() == ("", "")


def test_unknown_data_type_is_refused(tmp_path):
    proto = model(
        [node("Fancy", ["x"], ["f"], domain="acme"), node("MatMul", ["f", "w"], ["y"])],
        {"x": (3, 4)},
        {"w": np.ones((4, 4), "f4")},
        domains=("acme",),
    )
    proto.graph.initializer[0].data_type = 77
    refused(saved(proto, tmp_path), "'w' of data type 77 and shape .* cannot be read")


def test_weight_that_is_not_finite_is_refused(tmp_path):
    weight = np.float32([[1.0], [np.inf]])
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 2)}, {"w": weight})
    refused(
        saved(proto, tmp_path), r"\(MatMul\) is malformed: its weight 'w' holds values that are"
    )


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_end_in_a_graph_or_one_sentence(seed, tmp_path, capfd):
    rng = np.random.default_rng(seed)
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["a"], ["b"]),
        node("Flatten", ["b"], ["c"]),
        node("Gemm", ["c", "v"], ["y"], transB=1),
    ]
    weights = {"w": np.ones((4, 3, 3, 3), "f4"), "v": np.ones((5, 4), "f4")}
    whole = model(nodes, {"x": ("n", 3, None, None)}, weights).SerializeToString()
    path = tmp_path / "flipped.onnx"
    graphs, sentences = 0, []
    for _ in range(300):
        raw = bytearray(whole)
        for place in rng.integers(len(raw), size=rng.integers(1, 5)):
            raw[place] = rng.integers(256)
        path.write_bytes(raw)
        try:
            load_onnx(path)
            graphs += 1
        except WorkloadError as error:
            sentences.append(str(error))
    assert graphs > 0
    assert len(sentences) > 0
    assert all("flipped.onnx" in sentence for sentence in sentences)
    assert capfd.readouterr() == ("", "")


def test_graph_without_operators_is_refused(tmp_path):
    refused(saved(model([], {"x": (1,)}), tmp_path), "holds no operators")


def external(location, folder, content=b"\x00" * 48):
    proto = model([node("Gemm", ["x", "w"], ["y"])], {"x": (1, 3)}, {"w": np.zeros((3, 4), "f4")})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "model").mkdir()
    (folder / "secret.bin").write_bytes(content)
    (folder / "model" / "good.bin").write_bytes(content)
    return saved(proto, folder / "model")


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "/etc/hostname"])
def test_external_weights_outside_the_folder_are_refused(location, tmp_path):
    refused(external(location, tmp_path), "outside the model's folder")


def test_external_weights_behind_a_link_are_refused(tmp_path):
    path = external("link.bin", tmp_path)
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    refused(path, "outside the model's folder")


def test_external_weights_missing_are_refused(tmp_path):
    refused(external("gone.bin", tmp_path), "weight file 'gone.bin' of 'w' does not exist")


def test_external_weights_too_short_are_refused(tmp_path):
    refused(external("good.bin", tmp_path, b"\x00" * 20), "weights cannot be loaded|refuses")


def test_external_weights_beside_the_model_are_read(tmp_path):
    content = np.arange(12, dtype="<f4").tobytes()
    graph = load_onnx(external("good.bin", tmp_path, content))
    assert graph.values["w"].tolist() == np.arange(12).reshape(3, 4).tolist()


def test_external_weights_in_a_subgraph_are_checked_too(tmp_path):
    inner = helper.make_tensor("c", TensorProto.FLOAT, (1,), [1.0])
    inner.ClearField("float_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="../secret.bin")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=inner)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, (1,))],
    )
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    refused(saved(model(nodes, {"x": (1,)}), tmp_path), "outside the model's folder")


def test_tensor_with_absurd_dims_is_refused(tmp_path):
    proto = relu()
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[1 << 21, 1 << 21]))
    refused(saved(proto, tmp_path), r"tensor 'w' claims shape \(2097152, 2097152\)")


def test_tensor_with_negative_dims_is_refused(tmp_path):
    proto = relu()
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[-1]))
    refused(saved(proto, tmp_path), "sizes must not be negative")


def test_constant_that_explodes_when_folded_is_refused(tmp_path):
    proto = model(
        [node("ConstantOfShape", ["s"], ["c"]), node("Mul", ["x", "c"], ["y"])], {"x": (1,)}
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.int64([1 << 20, 1 << 15]), "s"))
    refused(saved(proto, tmp_path), "would build a constant of 34359738368 elements")


def test_input_of_absurd_size_is_refused(tmp_path):
    path = saved(relu(("n", "m")), tmp_path)
    refused(path, "exceeds 1099511627776 elements", inputs={"x": (1 << 21, 1 << 21)})


def test_inconsistent_model_is_refused_by_onnxruntime(tmp_path):
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 3)}, {"w": np.ones((4, 5), "f4")})
    refused(saved(proto, tmp_path), "ONNX Runtime refuses the model|shapes cannot be inferred")


def test_inconsistent_model_that_onnxruntime_cannot_judge_is_refused(tmp_path):
    proto = model(
        [
            node("Conv", ["x", "w"], ["f"], strides=[0, 0]),
            node("Fancy", ["f"], ["y"], domain="acme"),
        ],
        {"x": (1, 2, 5, 5)},
        {"w": np.ones((3, 2, 3, 3), "f4")},
        domains=("acme",),
    )
    proto.graph.value_info.append(
        helper.make_tensor_value_info("f", TensorProto.FLOAT, (1, 3, 3, 3))
    )
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 3, 3))
    )
    refused(saved(proto, tmp_path), "is malformed|cannot be inferred")


def test_free_size_that_cannot_be_guessed_says_how_to_give_it(tmp_path):
    path = saved(relu(("batch", "length", 8)), tmp_path)
    refused(path, r"input 'x' has free sizes \(1x\?x8\) .* inputs=\{'x': \(1, \?, 8\)\}")
    assert load_onnx(path, inputs={"x": (1, 5, 8)}).tensors["x"].shape == (1, 5, 8)


def test_free_batch_is_the_batch(tmp_path):
    graph = load_onnx(saved(relu(("n", 8)), tmp_path), batch=3)
    assert graph.tensors["x"].shape == (3, 8)


def test_free_image_is_assumed_and_noted(tmp_path):
    graph = load_onnx(saved(relu((None, 3, None, None)), tmp_path))
    assert graph.notes == ("Input 'x' has free sizes and is taken as 1x3x224x224",)


def test_free_width_of_a_fixed_height_is_the_line_image(tmp_path):
    graph = load_onnx(saved(relu((None, 3, 48, None)), tmp_path))
    assert graph.tensors["x"].shape == (1, 3, 48, 320)


def test_free_width_of_another_height_is_square(tmp_path):
    graph = load_onnx(saved(relu((None, None, 96, 3)), tmp_path))
    assert graph.tensors["x"].shape == (1, 96, 96, 3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"inputs": {"z": (1,)}}, "has no input 'z'; known: x"),
        ({"inputs": {"x": (1, 4)}}, "input 'x' takes shape 1x3 with sizes of at least 1, not 1x4"),
        ({"inputs": {"x": (1,)}}, "input 'x' takes shape 1x3"),
        ({"batch": 2}, "input 'x' has a fixed batch of 1, so batch=2 is not possible"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(options, match, tmp_path):
    refused(saved(relu(), tmp_path), match, **options)


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_batch_that_is_no_count_is_refused(batch, tmp_path):
    with pytest.raises(WorkloadError, match="batch must be a whole number of at least 1"):
        load_onnx(saved(relu(), tmp_path), batch=batch)


def test_guessed_sizes_that_fail_say_how_to_give_them(tmp_path):
    nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    proto = model(nodes, {"x": (None, 3, None, None)}, {"w": np.ones((3 * 7 * 11, 2), "f4")})
    path = saved(proto, tmp_path)
    refused(path, r"guessed, give them as inputs=\{'x': \(1, 3, 224, 224\)\}")
    assert load_onnx(path, inputs={"x": (1, 3, 7, 11)}).macs == 3 * 7 * 11 * 2


def test_loading_writes_nothing_and_stays_silent(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    load_onnx(pp_ocr("cls"))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_importing_workloads_does_not_import_onnx():
    code = (
        "import sys, workloads, workloads.frontends, workloads.frontends.onnx, workloads.zoo;"
        "sys.exit(any(name.split('.')[0] in ('onnx', 'onnxruntime') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_onnx_version_is_the_one_tested():
    assert int(onnx.__version__.split(".")[0]) == 1
