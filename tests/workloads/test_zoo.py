from dataclasses import replace

import pytest

from workloads.graph import OpKind
from workloads.sparsity import NofM
from workloads.zoo import ZOO, build
from workloads.zoo.decoder import FAMILIES, decoder

GMAC = {
    # published: ResNet, VGG and MobileNet from their papers' FLOP tables, ViT and BERT by size
    "resnet18": (1.81, 0.005),
    "resnet50": (4.09, 0.005),
    "vgg19": (19.6, 0.05),
    "mobilenet-v1": (0.569, 0.001),
    "mobilenet-v2": (0.301, 0.001),
    "vit-b16": (17.56, 0.01),
    "bert-base": (11.17, 0.01),
}

PARAMETERS = {
    # published sizes less biases, norms, embeddings and position tables, in millions
    "resnet18": 11.68,
    "resnet50": 25.50,
    "vgg19": 143.65,
    "mobilenet-v1": 4.21,
    "mobilenet-v2": 3.47,
    "llama2-7b": 6607.08,
    "llama3-8b": 7504.66,
    "mistral-7b": 7110.39,
}


def weights(graph):
    return sum(spec.size for spec in graph.tensors.values() if spec.parameter)


def kinds(graph, kind):
    return [op for op in graph.ops if op.kind is kind]


@pytest.mark.parametrize("name", GMAC)
def test_build_default_size_has_the_published_macs(name):
    gmac, tolerance = GMAC[name]
    assert build(name).macs / 1e9 == pytest.approx(gmac, abs=tolerance)


@pytest.mark.parametrize("name", PARAMETERS)
def test_build_weights_have_the_published_number(name):
    assert weights(build(name)) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.006)


@pytest.mark.parametrize("name", ZOO)
def test_build_any_network_is_repeatable_and_shapes_only(name):
    graph = build(name)
    assert graph.values == {}
    assert build(name).digest() == graph.digest()


def test_sparsify_a_network_by_shape_draws_nothing():
    dense = build("resnet50")
    sparse = dense.sparsify(NofM(2, 8))
    assert sparse.values == {}
    assert sparse.ops == dense.ops


def test_build_long_decode_is_folded():
    assert len(build("llama2-7b", prefill=128, decode=2048).ops) < 3 * 2048 + 1500


def test_resnet18_has_twenty_convolutions_and_known_names():
    convs = kinds(build("resnet18"), OpKind.CONV)
    assert len(convs) == 20
    assert [op.name for op in convs][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert "layer2.0.downsample.0" in {op.name for op in convs}


def test_resnet50_strides_in_the_3x3_convolution():
    ops = {op.name: op for op in build("resnet50").gemm_ops}
    assert ops["layer2.0.conv1"].window.stride == (1, 1)
    assert ops["layer2.0.conv2"].window.stride == (2, 2)
    assert len(kinds(build("resnet50"), OpKind.CONV)) == 53


def test_resnet9_defaults_to_32_pixels():
    graph = build("resnet9")
    assert graph.tensors["input"].shape == (1, 32, 32, 3)
    assert len(kinds(graph, OpKind.CONV)) == 8
    assert graph.macs == 379_261_952


def test_vgg19_at_32_pixels_has_the_cifar_classifier():
    graph = build("vgg19", image=32)
    assert graph.macs == 398_136_320
    assert [op.gemm.n for op in kinds(graph, OpKind.GEMM)] == [10]


@pytest.mark.parametrize(("name", "count"), [("mobilenet-v1", 13), ("mobilenet-v2", 17)])
def test_mobilenet_depthwise_convolutions_are_groups_of_one(name, count):
    found = kinds(build(name), OpKind.DEPTHWISE)
    assert len(found) == count
    assert all(op.gemm.k == 9 and op.gemm.n == 1 for op in found)


@pytest.mark.parametrize("name", ["resnet50", "vit-b16", "mobilenet-v2"])
def test_build_batch_scales_macs_but_not_weights(name):
    one, four = build(name), build(name, batch=4)
    assert four.macs == 4 * one.macs
    assert weights(four) == weights(one)


def test_conv_windows_agree_with_their_products():
    for name in ("resnet18", "vgg19", "mobilenet-v2", "vit-b16"):
        for op in build(name, batch=2).gemm_ops:
            if op.window:
                height, width = op.window.out
                assert op.gemm.m == 2 * height * width
                assert op.gemm.k == op.window.kernel[0] * op.window.kernel[1] * op.window.channels


@pytest.mark.parametrize("name", ZOO)
def test_products_agree_with_the_shapes_of_their_tensors(name):
    graph = build(name)
    for op in graph.gemm_ops:
        act, weight, out = (graph.tensors[t] for t in (*op.inputs[:2], op.output))
        g = op.gemm
        assert weight.size == g.groups * g.k * g.n
        assert weight.shape[-2:] == (g.k, g.n)
        assert out.size == g.groups * g.m * g.n
        if op.window is None:
            assert act.size == g.groups * g.m * g.k


def test_bert_attention_products_have_heads_times_batch_groups():
    scores = next(op for op in build("bert-base", length=64, batch=2).ops if "scores" in op.name)
    assert scores.kind is OpKind.MATMUL
    assert (scores.gemm.groups, scores.gemm.m, scores.gemm.k, scores.gemm.n) == (24, 64, 64, 64)


def test_llama_prefill_has_the_published_macs():
    graph = build("llama2-7b", prefill=128)
    # 850.0 GMAC with the head on every token; ours runs it on the last one and says so.
    assert (graph.macs + 127 * 4096 * 32000) / 1e9 == pytest.approx(850.0, abs=0.05)
    assert any("last token" in note for note in graph.notes)


def test_llama_default_is_512_tokens_of_prefill():
    assert build("llama2-7b").digest() == build("llama2-7b", prefill=512).digest()


def test_decode_equals_its_steps_one_by_one():
    steps = build("opt-6.7b", prefill=7, decode=3).macs - build("opt-6.7b", prefill=7).macs
    linear = 32 * (4 * 4096**2 + 2 * 4096 * 16384) + 4096 * 50272
    attention = sum(2 * 32 * 32 * 128 * kv for kv in (8, 9, 10))
    assert steps == 3 * linear + attention


def test_decode_without_prefill_starts_from_an_empty_cache():
    graph = build("llama2-7b", decode=2)
    assert all(op.name.startswith("decode.") for op in graph.ops)
    scores = [op for op in graph.ops if op.name.endswith("scores")]
    assert [(op.name, op.gemm.n, op.repeat) for op in scores] == [
        ("decode.kv1.scores", 1, 32),
        ("decode.kv2.scores", 2, 32),
    ]


def test_prefill_and_decode_share_weights():
    both = build("llama2-7b", prefill=4, decode=4)
    assert weights(both) == weights(build("llama2-7b", prefill=4))
    projections = [op for op in both.ops if op.name.endswith("layers.3.mlp.up_proj")]
    assert [op.repeat for op in projections] == [1, 4]
    assert len({op.inputs[1] for op in projections}) == 1


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("resnet19", {}, "Unknown network 'resnet19'; known: resnet9, resnet18, .*llama2-7b"),
        ("resnet18", {"length": 3}, "resnet18 has no option 'length'; known: image, batch"),
        ("resnet18", {"batch": 0}, "option batch must be a whole number of at least 1, not 0"),
        ("resnet18", {"image": 2.5}, "option image must be a whole number of at least 1, not 2.5"),
        ("resnet18", {"batch": True}, "must be a whole number of at least 1, not True"),
        ("vit-b16", {"image": 100}, "16x16 patches, so 100 is no image size"),
        ("vgg19", {"image": 16}, "halves a 1x1 feature map: use a larger image"),
        ("llama2-7b", {"prefill": 0}, "needs prefill or decode of at least 1, not 0 and 0"),
        ("llama2-7b", {"decode": -1}, "option decode must be a whole number of at least 0"),
    ],
)
def test_build_bad_name_or_option_says_what_is_allowed(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(name, **options)


def test_a_decoder_of_any_size_has_the_layers_of_its_model():
    """decoder() with the sizes of a zoo model is that model, name aside."""
    sizes = {"layers": 32, "width": 4096, "heads": 32, "hidden": 11008, "vocabulary": 32000}
    graph = decoder("llama2-7b", "llama2-7b", **sizes, prefill=4, decode=2)
    assert graph == build("llama2-7b", prefill=4, decode=2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"like": "gpt"}, "Unknown decoder 'gpt'; known: opt-6.7b, llama2-7b"),
        ({"heads": 3}, "tiny: 3 heads do not divide a width of 64"),
        ({"kv_heads": 3}, "tiny: 3 kv_heads do not divide 4 heads"),
        ({"kv_heads": 8}, "tiny: 8 kv_heads do not divide 4 heads"),
        ({"kv_heads": 0}, "tiny: kv_heads must be a whole number of at least 1, not 0"),
        ({"layers": True}, "tiny: layers must be a whole number of at least 1, not True"),
        ({"hidden": 2.5}, "tiny: hidden must be a whole number of at least 1, not 2.5"),
        ({"head_size": 0}, "tiny: head_size must be a whole number of at least 1, not 0"),
    ],
)
def test_an_impossible_decoder_is_refused(change, sentence):
    """Unknown families and heads that do not fit are named."""
    sizes = {"layers": 1, "width": 64, "heads": 4, "hidden": 96, "vocabulary": 100}
    with pytest.raises(ValueError, match=sentence):
        decoder("tiny", **{"like": "opt-6.7b", **sizes, **change}, prefill=4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"norm": "BatchNorm"}, "unknown norm 'BatchNorm'; known: LayerNorm, RMSNorm"),
        ({"activation": "Tanh"}, "unknown activation 'Tanh'; known: Relu, Gelu, Silu"),
    ],
)
def test_an_unknown_kind_of_layer_is_refused(change, sentence):
    """Norms and activations are closed choices."""
    with pytest.raises(ValueError, match=sentence):
        replace(FAMILIES["opt-6.7b"], **change)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_grouped_queries_multiply_the_same_products_with_smaller_projections(phase):
    """Queries that share keys are rows of one product; only k and v projections shrink."""
    sizes = {"layers": 2, "width": 64, "heads": 8, "hidden": 96, "vocabulary": 100, phase: 5}
    own, shared = (
        {op.name: op for op in decoder("d", "llama2-7b", **sizes, kv_heads=n).ops} for n in (8, 2)
    )
    for name, op in own.items():
        narrow = name.endswith(("k_proj", "v_proj"))
        assert op.macs == shared[name].macs * (4 if narrow else 1)
    groups = {name: op.gemm.groups for name, op in shared.items() if name.endswith(".scores")}
    assert set(groups.values()) == {2}


def test_heads_may_be_wider_than_their_share():
    """head_size sets the width of queries, keys and values alone."""
    sizes = {"layers": 1, "width": 64, "heads": 3, "hidden": 96, "vocabulary": 100}
    graph = decoder("d", "llama2-7b", **sizes, head_size=32, prefill=4)
    shapes = {op.name.rpartition(".")[2]: op.gemm for op in graph.gemm_ops}
    assert [(shapes[p].k, shapes[p].n) for p in ("q_proj", "v_proj", "o_proj")] == [
        (64, 96),
        (64, 96),
        (96, 64),
    ]
    assert (shapes["scores"].groups, shapes["scores"].k) == (3, 32)
