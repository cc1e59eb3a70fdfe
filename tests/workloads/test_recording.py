import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node, run, saved
from PIL import Image

from workloads.errors import WorkloadError
from workloads.frontends.onnx import load_onnx
from workloads.gemm import gemm_graph
from workloads.recording import recorded
from workloads.sparsity import Explicit

RNG = np.random.default_rng(5)


def network(image=6):
    """Convolution, ReLU, convolution, flatten, matrix product on a (1, 3, image, image) input."""
    weights = {
        "w1": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "w2": RNG.normal(size=(2, 4, 1, 1)).astype(np.float32),
        "w3": RNG.normal(size=(2 * image * image, 5)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "w2"], ["b"]),
        node("Relu", ["b"], ["s"]),
        node("Flatten", ["s"], ["f"]),
        node("MatMul", ["f", "w3"], ["y"]),
    ]
    return model(nodes, {"x": (1, 3, image, image)}, weights)


@pytest.fixture
def path(tmp_path):
    return saved(network(), tmp_path)


def masks(graph):
    specs = {op.inputs[0]: graph.tensors[op.inputs[0]] for op in graph.gemm_ops}
    return {name: spec.sparsity.mask for name, spec in specs.items()}


def test_recorded_masks_are_where_the_models_own_tensors_are_not_zero(path):
    """Every activation a product reads, in the graph's channels-last layout."""
    x = RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)
    x[0, :, 0] = 0
    found = masks(load_onnx(path, inputs={"x": x}))
    proto = onnx.load(path)
    r, f = run(proto, {"x": x}, ("r", "f"))
    assert list(found) == ["x", "r", "f"]
    assert np.array_equal(found["x"], np.moveaxis(x, 1, -1) != 0)
    assert np.array_equal(found["r"], np.moveaxis(r, 1, -1) != 0)
    assert np.array_equal(found["f"], f != 0)
    assert 0 < found["r"].mean() < 1


def test_recording_leaves_weights_and_shapes_alone(path):
    plain = load_onnx(path)
    graph = load_onnx(path, inputs={"x": np.ones((1, 3, 6, 6), np.float32)})
    assert graph.ops == plain.ops
    assert all(np.array_equal(graph.values[n], v) for n, v in plain.values.items())
    assert graph.digest() != plain.digest()


def test_record_reads_images_and_numpy_files_alike(path, tmp_path):
    """An image is normalised as documented; the same numbers in an .npy or .npz give the same."""
    pixels = RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    x = (pixels / np.float32(255) - np.float32([0.485, 0.456, 0.406])) / np.float32(
        [0.229, 0.224, 0.225]
    )
    x = np.ascontiguousarray(x.astype(np.float32).transpose(2, 0, 1)[None])
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    files = [tmp_path / name for name in ("picture.png", "x.npy", "x.npz")]
    graphs = [load_onnx(path, record=file) for file in files]
    graphs.append(load_onnx(path, inputs={"x": x}))
    assert len({graph.digest() for graph in graphs}) == 1


def test_record_scales_an_image_to_the_models_size(path, tmp_path):
    Image.new("L", (50, 20), 128).save(tmp_path / "grey.png")
    assert masks(load_onnx(path, record=tmp_path / "grey.png"))["x"].shape == (1, 6, 6, 3)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"x": np.ones((1, 3, 5, 6), np.float32)}, "input 'x' takes shape 1x3x6x6"),
        ({"x": np.array([["a"] * 6] * 6 * 3).reshape(1, 3, 6, 6)}, "takes float32 of shape"),
        ({"z": np.ones((1, 3, 6, 6), np.float32)}, "has no input 'z'; known: x"),
    ],
)
def test_recording_inputs_that_do_not_fit_are_refused(path, inputs, sentence):
    with pytest.raises(WorkloadError, match=sentence):
        load_onnx(path, inputs=inputs)


def test_record_refuses_files_it_cannot_read(path, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "bad.npy").write_text("no array")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "other.npz", z=np.ones((1, 3, 6, 6), np.float32))
    whole = (tmp_path / "other.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    (tmp_path / "pickled.npy").write_text("hello")
    np.savez(tmp_path / "none.npz")
    np.savez(tmp_path / "object.npz", x=np.array([{}], object))
    for name, sentence in (
        ("missing.png", "missing.png' does not exist"),
        ("text.png", "is no readable image"),
        ("bad.npy", "is no readable numpy file"),
        ("object.npy", "is no readable numpy file"),
        ("other.npz", "runs on inputs x, not on z"),
        ("none.npz", "runs on inputs x, not on none"),
        ("short.npz", "short.npz is no readable numpy file: "),
        ("flipped.npz", "flipped.npz is no readable numpy file: Bad CRC-32 for file 'z.npy'$"),
        ("object.npz", "object.npz is no readable numpy file: Object arrays cannot be loaded"),
        ("pickled.npy", r"pickled.npy is no readable numpy file: This file contains [^.]*$"),
    ):
        with pytest.raises(WorkloadError, match=sentence):
            load_onnx(path, record=tmp_path / name)
    with pytest.raises(WorkloadError, match="give arrays as inputs or a file to record, not both"):
        load_onnx(path, inputs={"x": np.ones((1, 3, 6, 6), np.float32)}, record=tmp_path / "a.png")


def test_record_of_an_image_needs_a_model_of_one_image(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    flat = saved(model([node("Relu", ["x"], ["y"])], {"x": (2, 3)}), tmp_path, "flat.onnx")
    with pytest.raises(WorkloadError, match=r"the model's input of shape \(2, 3\) is no image"):
        load_onnx(flat, record=tmp_path / "picture.png")
    two = model([node("Add", ["x", "z"], ["y"])], {"x": (1, 3, 4, 4), "z": (1, 3, 4, 4)})
    with pytest.raises(WorkloadError, match=r"the model has inputs x, z; give an \.npz"):
        load_onnx(saved(two, tmp_path, "two.onnx"), record=tmp_path / "picture.png")


def test_record_gives_whole_number_inputs_the_bytes(tmp_path):
    graph = helper.make_graph(
        [node("Cast", ["x"], ["c"], to=TensorProto.FLOAT), node("Conv", ["c", "w"], ["y"])],
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 1, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pixels = np.diag([9, 0, 1, 255]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    found = masks(load_onnx(saved(proto, tmp_path), record=tmp_path / "picture.png"))
    assert np.array_equal(found["c"][0, ..., 0], pixels != 0)


def test_recorded_checks_every_mask():
    graph = gemm_graph(4, 8, 2)
    mask = RNG.random((4, 8)) < 0.5
    assert recorded(graph, {"activation": mask}).tensors["activation"].sparsity == Explicit(mask)
    for masks_, sentence in (
        ({"x": mask}, "has no tensor 'x': was it recorded on another model"),
        ({"weight": np.ones((8, 2), bool)}, "Tensor 'weight' is a weight"),
        ({"activation": mask.astype(float)}, "Mask of 'activation' must be boolean, not float64"),
        ({"activation": mask.T}, r"has shape \(8, 4\), but its tensor has shape \(4, 8\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            recorded(graph, masks_)


def test_a_model_whose_products_read_its_inputs_alone_is_recorded(tmp_path):
    """The zeros of an input are known without running anything."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 8], [0.5] * 512)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    path = saved(
        helper.make_model(
            helper.make_graph([node], "g", [x], [y], [weight]),
            opset_imports=[helper.make_opsetid("", 13)],
            ir_version=8,
        ),
        tmp_path,
        "one.onnx",
    )
    values = np.arange(64, dtype=np.float32)[None] % 3
    graph = load_onnx(path, inputs={"x": values})
    assert np.array_equal(graph.tensors["x"].sparsity.mask, values != 0)
