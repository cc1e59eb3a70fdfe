from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node, pp_ocr, product, run, saved

from workloads.frontends.onnx import load_onnx
from workloads.frontends.onnx_file import read_model, static_model
from workloads.graph import OpKind
from workloads.pruning import nnz_of
from workloads.sparsity import NofM

RNG = np.random.default_rng(0)


def weights(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def channels_last(x):
    return x[..., None, :].transpose(0, 2, 3, 1) if x.ndim == 3 else x.transpose(0, 2, 3, 1)


def from_groups(out, op, shape):
    """(g, m, n) to the (b, c, h, w) or (b, c, t) that ONNX stores."""
    batch, (height, width) = op.window.batch, op.window.out
    out = out.reshape(-1, batch, height, width, op.gemm.n).transpose(1, 0, 4, 2, 3)
    return out.reshape(shape)


# ---- the recogniser and its companions: real files, real weights -----------------------------


@pytest.fixture(scope="module")
def recogniser():
    return load_onnx(pp_ocr("rec"))


def test_load_recogniser_has_the_known_operators(recogniser):
    kinds = Counter(op.kind.value for op in recogniser.ops)
    assert kinds["conv"] + kinds["depthwise"] == 38
    assert kinds["depthwise"] == 14
    assert kinds["gemm"] + kinds["matmul"] == 13
    assert kinds["matmul"] == 4
    assert recogniser.macs == 702_469_440
    assert recogniser.unsupported == {}


def test_load_recogniser_assumes_its_line_image_and_says_so(recogniser):
    assert recogniser.tensors["x"].shape == (1, 48, 320, 3)
    assert recogniser.notes == ("Input 'x' has free sizes and is taken as 1x3x48x320",)


def test_load_recogniser_keeps_trained_weights(recogniser):
    total = sum(recogniser.tensors[op.inputs[1]].size for op in recogniser.gemm_ops
                if recogniser.tensors[op.inputs[1]].parameter)  # fmt: skip
    assert total == pytest.approx(2.67e6, rel=0.01)
    assert recogniser.values.keys() == {n for n, s in recogniser.tensors.items() if s.parameter}
    assert all(value.dtype == np.float32 for value in recogniser.values.values())


def test_load_recogniser_fuses_spelled_out_activations(recogniser):
    posts = Counter(op.post for op in recogniser.gemm_ops)
    assert posts[("Mul", "Add", "Add", "Clip", "Mul", "Div", "Mul", "Add")] == 28
    assert posts[("Sigmoid", "Mul")] == 5


def test_load_and_prune_recogniser():
    graph = load_onnx(pp_ocr("rec")).sparsify(NofM(2, 8))
    sparse = [
        op.inputs[1] for op in graph.gemm_ops if graph.tensors[op.inputs[1]].sparsity == NofM(2, 8)
    ]
    assert len(sparse) == 38 + 9 - 1
    assert all(nnz_of(graph, name) <= NofM(2, 8).nnz(graph.tensors[name].shape) for name in sparse)


@pytest.mark.parametrize(
    ("part", "macs", "shape"),
    [("det", 2_301_935_744, (1, 640, 640, 3)), ("cls", 16_315_376, (1, 48, 192, 3))],
)
def test_load_companions_have_the_known_macs(part, macs, shape):
    graph = load_onnx(pp_ocr(part))
    assert graph.macs == macs
    assert graph.tensors["x"].shape == shape


def test_load_batch_and_given_inputs_agree(recogniser):
    assert load_onnx(pp_ocr("rec"), batch=2).macs == 2 * recogniser.macs
    given = load_onnx(pp_ocr("rec"), inputs={"x": (2, 3, 48, 320)})
    assert given.macs == 2 * recogniser.macs
    assert given.notes == ()


def test_load_renamed_recogniser_takes_the_first_image_it_accepts(tmp_path, recogniser):
    path = tmp_path / "network.onnx"
    path.write_bytes(pp_ocr("rec").read_bytes())
    assert load_onnx(path).macs == recogniser.macs


@pytest.mark.parametrize("kind", ["conv", "depthwise", "gemm"])
def test_real_layer_equals_onnxruntime_through_im2col(kind):
    path = pp_ocr("rec")
    graph = load_onnx(path, fuse=False)
    static, _ = static_model(path, read_model(path), {}, 1)
    op = [op for op in graph.gemm_ops if op.kind.value == kind][3]
    source = next(n for n in static.graph.node if n.name == op.name)
    x = np.random.default_rng(1).normal(size=(1, 3, 48, 320)).astype(np.float32)
    act, expected = run(static, {"x": x}, [source.input[0], source.output[0]])
    out = product(graph, op, channels_last(act) if op.window else act)
    got = from_groups(out, op, expected.shape) if op.window else out.reshape(expected.shape)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "macs", "convs"),
    [
        ("squeezenet", 349_151_936, 26),
        ("inception_v2", 2_018_851_840, 69),
        ("shufflenet", 124_664_528, 49),
    ],
)
def test_load_public_architectures_have_their_macs(name, macs, convs):
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    graph = load_onnx(folder / f"light_{name}.onnx")
    assert graph.macs == macs
    found = [op for op in graph.gemm_ops if op.kind in (OpKind.CONV, OpKind.DEPTHWISE)]
    assert len(found) == convs
    assert graph.unsupported == {}


# ---- one operator at a time, against ONNX Runtime --------------------------------------------

CONVS = {
    "padded": ((2, 6, 9, 8), (4, 6, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "grouped": ((1, 6, 7, 7), (8, 3, 3, 3), {"group": 2}),
    "depthwise": ((1, 6, 7, 7), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "multiplied": ((1, 4, 7, 7), (8, 1, 3, 3), {"group": 4}),
    "dilated": ((1, 3, 11, 12), (5, 3, 3, 2), {"dilations": [2, 3]}),
    "same upper": ((1, 3, 8, 7), (5, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same lower": ((1, 3, 8, 7), (5, 3, 4, 2), {"auto_pad": "SAME_LOWER", "strides": [3, 1]}),
    "valid": ((1, 3, 8, 7), (5, 3, 4, 2), {"auto_pad": "VALID"}),
    "one axis": ((2, 3, 10), (4, 3, 3), {"pads": [1, 2], "strides": [2]}),
}


@pytest.mark.parametrize("case", CONVS)
def test_conv_equals_onnxruntime(case, tmp_path):
    shape, filters, attributes = CONVS[case]
    proto = model(
        [node("Conv", ["x", "w", "b"], ["y"], **attributes)],
        {"x": shape},
        {"w": weights(*filters), "b": weights(filters[0])},
    )
    graph = load_onnx(saved(proto, tmp_path))
    (op,) = graph.gemm_ops
    x = weights(*shape)
    (expected,) = run(proto, {"x": x}, ["y"])
    got = from_groups(product(graph, op, channels_last(x)), op, expected.shape)
    assert np.allclose(got, expected, atol=1e-5)
    depthwise = case in ("depthwise", "multiplied")
    assert op.kind is (OpKind.DEPTHWISE if depthwise else OpKind.CONV)
    assert graph.tensors["y"].shape == (expected.shape[0], *expected.shape[2:], expected.shape[1])


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"strides": [2, 2]}, OpKind.ELEMENTWISE),
        ({"strides": [3, 3]}, OpKind.MOVE),
        ({"strides": [2, 1], "group": 2}, OpKind.ELEMENTWISE),
    ],
)
def test_conv_transpose_is_a_product_then_col2im(attributes, kind, tmp_path):
    proto = model(
        [node("ConvTranspose", ["x", "w"], ["y"], **attributes)],
        {"x": (1, 4, 5, 6)},
        {"w": weights(4, 3, 3, 3)},
    )
    graph = load_onnx(saved(proto, tmp_path))
    op, scatter = graph.ops
    x = weights(1, 4, 5, 6)
    (expected,) = run(proto, {"x": x}, ["y"])
    columns = product(graph, op, channels_last(x))  # (g, pixels, (kh, kw, cout))
    groups, strides = op.gemm.groups, attributes["strides"]
    columns = columns.reshape(groups, 5, 6, 3, 3, 3)
    full = np.zeros((groups, 3, *expected.shape[2:]))
    for i in range(5):
        for j in range(6):
            place = full[:, :, i * strides[0] :][:, :, :3, j * strides[1] :][..., :3]
            place += columns[:, i, j].transpose(0, 3, 1, 2)
    assert np.allclose(full.reshape(expected.shape), expected, atol=1e-5)
    assert scatter.kind is kind
    assert op.macs == 5 * 6 * 4 * 3 * 9
    assert graph.tensors["y"].size == expected.size


@pytest.mark.parametrize("swap_a", [0, 1])
@pytest.mark.parametrize("swap_b", [0, 1])
def test_gemm_equals_onnxruntime(swap_a, swap_b, tmp_path):
    b = weights(5, 4) if swap_b else weights(4, 5)
    shape = (4, 3) if swap_a else (3, 4)
    proto = model(
        [node("Gemm", ["x", "w", "c"], ["y"], transA=swap_a, transB=swap_b, alpha=0.5)],
        {"x": shape},
        {"w": b, "c": weights(5)},
    )
    graph = load_onnx(saved(proto, tmp_path))
    (op,) = graph.gemm_ops
    x = weights(*shape)
    (expected,) = run(proto, {"x": x}, ["y"])
    assert op.kind is OpKind.GEMM
    assert np.allclose(product(graph, op, x.T if swap_a else x)[0], expected, atol=1e-5)


def test_gemm_with_a_computed_summand_adds_on_the_vector_unit(tmp_path):
    proto = model(
        [node("Gemm", ["x", "w", "c"], ["y"])], {"x": (3, 4), "c": (3, 5)}, {"w": weights(4, 5)}
    )
    first, second = load_onnx(saved(proto, tmp_path), fuse=False).ops
    assert (first.kind, second.kind) == (OpKind.GEMM, OpKind.ELEMENTWISE)
    assert second.inputs == (first.output, "c")
    assert second.output == "y"


def test_gemm_of_two_activations_is_a_matmul(tmp_path):
    proto = model([node("Gemm", ["a", "b"], ["y"], transB=1)], {"a": (3, 4), "b": (5, 4)})
    (op,) = load_onnx(saved(proto, tmp_path)).ops
    assert op.kind is OpKind.MATMUL
    assert (op.gemm.m, op.gemm.k, op.gemm.n) == (3, 4, 5)


@pytest.mark.parametrize(
    ("x", "w", "gemm"),
    [
        ((2, 3, 4), (4, 5), (1, 6, 4, 5)),
        ((2, 3, 4), (2, 4, 5), (2, 3, 4, 5)),
        ((2, 3, 4), (1, 4, 5), (1, 6, 4, 5)),
        ((3, 4), (4,), (1, 3, 4, 1)),
        ((4,), (4, 5), (1, 1, 4, 5)),
    ],
)
def test_matmul_by_a_constant_equals_onnxruntime(x, w, gemm, tmp_path):
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": x}, {"w": weights(*w)})
    graph = load_onnx(saved(proto, tmp_path))
    (op,) = graph.gemm_ops
    assert (op.gemm.groups, op.gemm.m, op.gemm.k, op.gemm.n) == gemm
    assert op.kind is OpKind.GEMM
    value = weights(*x)
    (expected,) = run(proto, {"x": value}, ["y"])
    assert np.allclose(product(graph, op, value).ravel(), expected.ravel(), atol=1e-5)


def test_matmul_constant_first_is_its_transpose(tmp_path):
    proto = model([node("MatMul", ["w", "x"], ["y"])], {"x": (4, 6)}, {"w": weights(5, 4)})
    graph = load_onnx(saved(proto, tmp_path))
    (op,) = graph.gemm_ops
    x = weights(4, 6)
    (expected,) = run(proto, {"x": x}, ["y"])
    assert (op.gemm.m, op.gemm.k, op.gemm.n) == (6, 4, 5)
    assert np.allclose(product(graph, op, x.T)[0].T, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "gemm"),
    [
        ((2, 8, 5, 3), (2, 8, 3, 7), (16, 5, 3, 7)),
        ((2, 8, 5, 3), (8, 3, 7), (16, 5, 3, 7)),
        ((2, 8, 5, 3), (3, 7), (1, 80, 3, 7)),
        ((5, 3), (4, 3, 7), (4, 5, 3, 7)),
        ((3,), (3, 7), (1, 1, 3, 7)),
    ],
)
def test_matmul_of_two_activations_has_groups(a, b, gemm, tmp_path):
    proto = model([node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b})
    (op,) = load_onnx(saved(proto, tmp_path)).ops
    assert op.kind is OpKind.MATMUL
    assert (op.gemm.groups, op.gemm.m, op.gemm.k, op.gemm.n) == gemm


def test_vector_operators_have_their_kind_and_passes(tmp_path):
    proto = model(
        [
            node("MaxPool", ["x"], ["p"], kernel_shape=[3, 3], strides=[2, 2]),
            node("Softmax", ["p"], ["s"], axis=1),
            node("Transpose", ["s"], ["t"], perm=[0, 2, 3, 1]),
            node("LayerNormalization", ["t", "scale"], ["n"]),
            node("Flatten", ["n"], ["y"]),
        ],
        {"x": (1, 4, 9, 9)},
        {"scale": weights(4)},
    )
    graph = load_onnx(saved(proto, tmp_path))
    found = [(op.source, op.kind, op.passes) for op in graph.ops]
    assert found == [
        ("MaxPool", OpKind.POOL, 3),  # nine reads of a quarter of the input
        ("Softmax", OpKind.SOFTMAX, 3),
        ("Transpose", OpKind.MOVE, 1),
        ("LayerNormalization", OpKind.NORM, 2),
        ("Flatten", OpKind.RESHAPE, 1),
    ]
    assert graph.ops[3].inputs == ("t", "scale")


def test_scalars_are_immediates_and_vectors_are_parameters(tmp_path):
    proto = model(
        [node("Mul", ["x", "two"], ["m"]), node("Add", ["m", "row"], ["y"])],
        {"x": (3, 4)},
        {"two": np.float32([2.0]), "row": weights(4)},
    )
    graph = load_onnx(saved(proto, tmp_path))
    assert [op.inputs for op in graph.ops] == [("x",), ("m", "row")]
    assert graph.tensors["row"].parameter


def test_embedding_reads_its_tokens_not_the_whole_table(tmp_path):
    proto = model([node("Gather", ["table", "ids"], ["y"])], {}, {"table": weights(1000, 8)})
    proto.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 5)))
    graph = load_onnx(saved(proto, tmp_path))
    (op,) = graph.ops
    assert op.inputs == ("ids",)
    assert graph.tensors["ids"].bits == 64
    assert graph.tensors["y"].shape == (1, 5, 8)


def test_split_becomes_one_move_an_output(tmp_path):
    proto = model(
        [node("Split", ["x"], ["a", "b"], axis=1), node("Add", ["a", "b"], ["y"])], {"x": (2, 6)}
    )
    proto.opset_import[0].version = 13
    graph = load_onnx(saved(proto, tmp_path))
    assert [(op.name, op.kind) for op in graph.ops][:2] == [
        ("Split.a", OpKind.MOVE),
        ("Split.a.1", OpKind.MOVE),
    ]


def test_lstm_is_opaque_counted_and_noted(tmp_path):
    proto = model(
        [
            node("LSTM", ["x", "w", "r"], ["y", "h", "c"], hidden_size=4),
            node("Relu", ["h"], ["z"]),
        ],
        {"x": (5, 1, 3)},
        {"w": weights(1, 16, 3), "r": weights(1, 16, 4)},
        outputs=("y", "z"),
    )
    graph = load_onnx(saved(proto, tmp_path))
    assert graph.unsupported == {"LSTM": 1}
    assert graph.notes == (
        "Operators known by name only, which cost nothing in any result: LSTM (1)",
    )
    assert graph.digraph().has_edge("LSTM.y", "LSTM.y.1")


def test_unknown_operator_is_opaque_and_the_rest_survives(tmp_path):
    proto = model(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Fancy", ["m"], ["f"], domain="acme"),
            node("MatMul", ["f", "w"], ["n"]),
            node("Fancy", ["n"], ["y"], domain="acme"),
        ],
        {"x": (3, 4)},
        {"w": weights(4, 4)},
        domains=("acme",),
    )
    graph = load_onnx(saved(proto, tmp_path))
    assert graph.unsupported == {"MatMul": 1, "acme::Fancy": 2}
    assert "MatMul (1), acme::Fancy (2)" in graph.notes[0]
    assert graph.macs == 48


def test_unknown_operator_with_noted_shape_hides_nothing_behind_it(tmp_path):
    proto = model(
        [node("Fancy", ["x"], ["f"], domain="acme"), node("MatMul", ["f", "w"], ["y"])],
        {"x": (3, 4)},
        {"w": weights(4, 4)},
        domains=("acme",),
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, (3, 4)))
    graph = load_onnx(saved(proto, tmp_path))
    assert graph.unsupported == {"acme::Fancy": 1}
    assert graph.macs == 48


def test_convolution_with_computed_filters_is_opaque(tmp_path):
    proto = model(
        [node("Relu", ["v"], ["w"]), node("Conv", ["x", "w"], ["y"])],
        {"x": (1, 2, 5, 5), "v": (3, 2, 3, 3)},
    )
    assert load_onnx(saved(proto, tmp_path)).unsupported == {"Conv": 1}


def test_unnamed_operators_get_names_of_their_own(tmp_path):
    nodes = [node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["y"])]
    nodes[0].name, nodes[1].name = "", "Relu_0"
    graph = load_onnx(saved(model(nodes, {"x": (2, 2)}), tmp_path))
    assert [op.name for op in graph.ops] == ["Relu_0", "Relu_0#1"]


def test_one_constant_in_two_layouts_becomes_two_parameters(tmp_path):
    proto = model(
        [
            node("Gemm", ["x", "w"], ["a"]),
            node("Gemm", ["a", "w"], ["y"], transB=1),
        ],
        {"x": (2, 3)},
        {"w": weights(3, 3)},
    )
    graph = load_onnx(saved(proto, tmp_path))
    one, two = (graph.values[op.inputs[1]] for op in graph.gemm_ops)
    assert np.array_equal(one, two.T)
    assert not np.array_equal(one, two)


def test_loading_twice_gives_the_same_digest():
    assert load_onnx(pp_ocr("cls")).digest() == load_onnx(pp_ocr("cls")).digest()
