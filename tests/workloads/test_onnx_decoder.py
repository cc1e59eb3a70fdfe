"""ONNX decoders: recognised however they are spelt, refused by name if they are something else."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_decoders import HEADS, HIDDEN, SIZE, TOKENS, WIDTH, WORDS, Writer
from onnx_models import run, saved

from workloads.errors import WorkloadError
from workloads.frontends import load
from workloads.frontends.decoder_terms import Unrecognised
from workloads.frontends.onnx_nodes import Node
from workloads.frontends.onnx_weights import unpack
from workloads.zoo.decoder import decoder

SPELLINGS = {
    "llama": {},
    "opt": {
        "norm": "op",
        "rotary": "",
        "gated": False,
        "activation": "relu",
        "kv_heads": 4,
        "bias": True,
    },
    "square by multiplication": {"norm": "square"},
    "division by root": {"norm": "division"},
    "power of -1/2": {"norm": "power"},
    "layer norm of small operators": {"norm": "mean"},
    "norms in one operator": {"norm": "fused"},
    "constants by operator": {"norm": "fused", "constants": True},
    "rotary by split": {"rotary": "split"},
    "rotary of pairs": {"rotary": "pairs"},
    "one head of keys": {"kv_heads": 1},
    "gelu by erf": {"gated": False, "activation": "erf"},
    "gelu by tanh": {"activation": "tanh"},
    "gelu in one operator": {"activation": "fast"},
    "grouped attention": {"attention": "GroupQueryAttention", "norm": "fused"},
    "packed attention": {"attention": "packed", "norm": "skip"},
    "multi-head attention": {"attention": "MultiHeadAttention", "kv_heads": 4, "rotary": ""},
    "four-bit weights": {"bits": 4, "attention": "packed"},
    "half-precision weights": {"cast": True},
    "last token only": {"last": True},
    "cached keys of any length": {"past": "past", "tokens": "new", "rotary": ""},
    "a decode step": {"past": 5, "tokens": 1},
}
ACTIVATIONS = {"sigmoid": "Silu", "relu": "Relu", "erf": "Gelu", "tanh": "Gelu", "fast": "Gelu"}


def written(folder, **kinds):
    """Return the writer of a decoder and its file."""
    writer = Writer(**kinds)
    return writer, saved(writer.model(), folder, "mine.onnx")


def expected(writer, **lengths):
    """Return the decoder by shape that a writer spells."""
    return decoder(
        "mine",
        "llama2-7b",
        layers=writer.layers,
        width=WIDTH,
        heads=HEADS,
        kv_heads=writer.kv_heads,
        hidden=HIDDEN,
        vocabulary=WORDS,
        norm="LayerNorm" if writer.norm in ("op", "mean") else "RMSNorm",
        activation=ACTIVATIONS[writer.activation],
        gated=writer.gated,
        rotary=bool(writer.rotary),
        **lengths,
    )


@pytest.mark.parametrize("kinds", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_the_same_decoder(tmp_path, kinds):
    """The graph is that of the shape, for lengths that were never exported."""
    writer, path = written(tmp_path, **kinds)
    for lengths in ({"prefill": 3}, {"prefill": 9, "decode": 4}, {"decode": 2, "batch": 3}):
        found, wanted = load(path, **lengths), expected(writer, **lengths)
        assert (found.name, found.ops, found.tensors) == ("mine", wanted.ops, wanted.tensors)
    assert any("Decoder recognised in the ONNX graph" in note for note in found.notes)


@pytest.mark.parametrize("kinds", SPELLINGS.values(), ids=SPELLINGS)
def test_every_weight_is_where_its_projection_reads_it(tmp_path, kinds):
    """Values are the file's, cut into columns where one matrix makes several projections."""
    writer, path = written(tmp_path, **kinds)
    found = load(path, prefill=2)
    stem = "model.layers" if writer.gated else "model.decoder.layers"
    names = {"head": "lm_head"}
    for layer in range(writer.layers):
        for part in "qkv":
            names[f"{layer}.{part}"] = f"{stem}.{layer}.self_attn.{part}_proj"
        parts = {"o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj"}
        parts["down"] = "mlp.down_proj"
        if not writer.gated:
            parts = {"o": "self_attn.out_proj", "up": "fc1", "down": "fc2"}
        names |= {f"{layer}.{part}": f"{stem}.{layer}.{name}" for part, name in parts.items()}
    truth = {f"{names[key]}.weight": value for key, value in writer.truth.items()}
    assert truth.keys() == found.values.keys()
    for name, value in truth.items():
        assert np.array_equal(found.values[name], value), name


def test_a_decoder_without_lengths_is_the_graph_it_was(tmp_path):
    """Without prefill and decode the operators of the file are what runs."""
    _, path = written(tmp_path)
    graph = load(path)
    assert {op.source for op in graph.ops} >= {"Gather", "MatMul", "Softmax", "Slice"}
    assert not any(op.name.startswith(("prefill.", "decode.")) for op in graph.ops)


def test_packed_integers_are_what_onnx_runtime_multiplies_by():
    """Blocks, low halves first, zero points and a ragged last block: identity times the weight."""
    rng = np.random.default_rng(3)
    n, k, block = 5, 40, 16
    for bits, zeros in ((4, True), (4, False), (8, True)):
        size = (n, 3, block * bits // 8)
        width = 3 if bits == 8 else 2
        constants = {
            "b": rng.integers(0, 256, size, dtype=np.uint8),
            "s": rng.random(3 * n).astype(np.float32),
            **({"z": rng.integers(0, 256, n * width, dtype=np.uint8)} if zeros else {}),
        }
        settings = {"N": n, "K": k, "bits": bits, "block_size": block}
        proto = helper.make_node(
            "MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", **settings
        )
        graph = helper.make_graph(
            [proto],
            "product",
            [helper.make_tensor_value_info("x", 1, [k, k])],
            [helper.make_tensor_value_info("y", 1, [k, n])],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        (product,) = run(model, {"x": np.eye(k, dtype=np.float32)}, ["y"])
        node = Node(
            name="p",
            type="MatMulNBits",
            inputs=("x", *constants),
            outputs=("y",),
            attributes=settings,
        )
        np.testing.assert_allclose(unpack(node, constants).T, product, rtol=1e-6)


@pytest.mark.parametrize("kinds", [{}, {"bits": 4, "attention": "packed"}, {"turned": True}])
def test_weights_too_large_to_load_are_known_by_shape(tmp_path, monkeypatch, kinds):
    """The decoder is the same, its weights have no values, and a note says so."""
    writer = Transposed() if kinds.pop("turned", False) else Writer(**kinds)
    path = tmp_path / "mine.onnx"
    onnx.save_model(
        writer.model(), path, save_as_external_data=True, location="mine.data", size_threshold=0
    )
    whole = load(path, prefill=4, decode=2)
    assert whole.values
    size = path.stat().st_size
    assert (tmp_path / "mine.data").stat().st_size > size
    monkeypatch.setattr("workloads.frontends.onnx_file.MAX_FILE_BYTES", size)
    monkeypatch.setattr("workloads.frontends.onnx_file.MAX_SHAPE_ELEMENTS", 64)
    found = load(path, prefill=4, decode=2)
    assert (found.ops, found.tensors) == (whole.ops, whole.tensors)
    assert not found.values
    assert any("too large to load are taken as dense" in note for note in found.notes)
    with pytest.raises(
        WorkloadError, match=rf"weights take \d+ bytes; at most {size} bytes can be"
    ):
        load(path)


class Transposed(Writer):
    """Weights as they are trained: (n, k)."""

    def matrix(self, x, name, k, n):
        value = np.ones((n, k))
        self.truth[name] = value.T
        return self.op("MatMul", x, self.op("Transpose", self.const(value), perm=[1, 0]))


class Gpt(Writer):
    """One matrix makes queries, keys and values."""

    def attend(self, x, layer):
        y = self.matrix(x, f"{layer}.qkv", WIDTH, 3 * WIDTH)
        q, k, v = self.op("Split", y, outputs=3, axis=2)
        return self.fused(q, k, v)


def test_columns_of_one_matrix_are_three_projections(tmp_path):
    """A Split along the features gives each its columns."""
    writer = Gpt(kv_heads=4, attention="MultiHeadAttention", rotary="")
    found = load(saved(writer.model(), tmp_path, "mine.onnx"), prefill=2)
    assert found.ops == expected(writer, prefill=2).ops
    whole = [found.values[f"model.layers.1.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert np.array_equal(np.concatenate(whole, axis=1), writer.truth["1.qkv"])


class HeadNorm(Writer):
    """Queries have a norm of their own."""

    def heads(self, x, count):
        return self.op("LayerNormalization", super().heads(x, count), self.const(np.ones(SIZE)))


class Stale(Writer):
    """A norm divides by the root of another."""

    root = ""

    def op(self, kind, *inputs, **more):
        if kind == "Div":
            self.root = self.root or inputs[1]
            inputs = (inputs[0], self.root)
        return super().op(kind, *inputs, **more)


class Tempered(Writer):
    """Scores go through a tangent."""

    def op(self, kind, *inputs, **more):
        made = super().op(kind, *inputs, **more)
        if kind == "MatMul" and inputs[1] == f"t{len(self.nodes) - 2}.0":
            return super().op("Tanh", made)
        return made


class Quick(Writer):
    """An activation that is neither SiLU nor GELU."""

    def active(self, x):
        return self.op("Mul", x, self.op("Sigmoid", self.op("Mul", x, self.const(1.7))))


class Softcap(Writer):
    """Scores are capped inside the fused operator."""

    def fused(self, q, k, v):
        y = super().fused(q, k, v)
        self.nodes[-1].attribute.extend([helper.make_attribute("softcap", 30.0)])
        return y


class FewTurned(Writer):
    """Tables turn a part of each head inside the fused operator."""

    def const(self, value, dtype=np.float32):
        table = np.shape(value) == (TOKENS, SIZE // 2)
        return super().const(value[:, : SIZE // 4] if table else value, dtype)


class Loose(Writer):
    """Packed weights that come from outside."""

    def finished(self):
        self.inputs["loose"] = (WIDTH, 2, 8)
        next(n for n in self.nodes if n.op_type == "MatMulNBits").input[1] = "bytes"
        self.nodes.insert(0, helper.make_node("Cast", ["loose"], ["bytes"], to=2))
        return super().finished()


class Partial(Writer):
    """Only half of a head's elements turn."""

    def turned(self, x):
        table = self.const(np.full((1, 1, TOKENS, SIZE // 2), 0.5))
        front, back = self.cut(x, 0, SIZE // 2), self.cut(x, SIZE // 2, SIZE)
        return self.op("Concat", self.op("Mul", front, table), back, axis=-1)


class OneTurned(Writer):
    """Keys keep their place, queries turn."""

    def turned(self, x):
        return super().turned(x) if self.nodes[-1].input[0] in self.queries() else x

    def queries(self):
        sizes = {n: list(v) for n, v in self.weights.items() if v.dtype == np.int64}
        return [x.output[0] for x in self.nodes if sizes.get((*x.input, "")[1], [0])[-2:-1] == [4]]


class Parallel(Writer):
    """Attention and the feed-forward part read the same norm."""

    def layer(self, x, y, number):
        x, normed = self.joined(x, y)
        made = self.matrix(self.attend(normed, number), f"{number}.o", WIDTH, WIDTH)
        return self.op("Add", x, made), self.feed(normed, number)


class Uneven(Writer):
    """Layers differ."""

    def layer(self, x, y, number):
        self.gated = number == 0
        return super().layer(x, y, number)


class TwoNorms(Writer):
    """The norm of attention is of another kind."""

    def attend(self, x, layer):
        self.norm = "op"
        return super().attend(x, layer)

    def feed(self, x, layer):
        self.norm = "pow"
        return super().feed(x, layer)


class Aside(Writer):
    """A product that nothing reads."""

    def feed(self, x, layer):
        self.matrix(x, f"{layer}.aside", WIDTH, WIDTH)
        return super().feed(x, layer)


class Shared(Writer):
    """Layers that are one and the same."""

    def const(self, value, dtype=np.float32):
        same = (n for n, v in self.weights.items() if v.shape == np.shape(value) == (HIDDEN, WIDTH))
        return next(same, None) or super().const(value, dtype)


class Capped(Writer):
    """Something follows the head."""

    def finished(self):
        self.op("Tanh", self.nodes[-1].output[0])
        return super().finished()


class Headless(Writer):
    """No words come out."""

    def finished(self):
        del self.nodes[-1]
        return super().finished()


class Stranger(Writer):
    """An operator of nobody's."""

    def active(self, x):
        self.op("Sin", x)
        return super().active(x)


@pytest.mark.parametrize(
    ("writer", "sentence"),
    [
        (
            HeadNorm(),
            r"operator '\S+' \(LayerNormalization\) on the projection '\S+' is no part of",
        ),
        (Stale(norm="division"), r"\(Div\) on the residual stream and a norm's root is no part"),
        (Tempered(), r"\(Tanh\) on attention scores is no part of a decoder that is known here"),
        (Quick(), r"Mul and Sigmoid and Mul of the projection '\S+', is none of Relu, Gelu, Silu"),
        (
            Softcap(attention="GroupQueryAttention"),
            r"\(GroupQueryAttention\) on the projection '\S+' in rotary form and the",
        ),
        (
            FewTurned(attention="packed"),
            r"\(GroupQueryAttention\) on the projection '\S+' is no part",
        ),
        (Loose(bits=4), r"operator '\S+' \(MatMulNBits\) on the stream's RMSNorm is no part of"),
        (Partial(), r"\(Concat\) on the projection '\S+' in rotary form is no part of a decoder"),
        (OneTurned(), r"\(MatMul\) on attention weights and the projection '\S+' is no part"),
        (Parallel(), r"\(Add\) on the projection '\S+' and the residual stream is no part"),
        (Uneven(), r"layer 1 differs in shape from layer 0"),
        (TwoNorms(), r"a layer has norms of two kinds, "),
        (Aside(), r"its products take \d+ multiply-accumulates, but those of the decoder .* \d+"),
        (Shared(), r"its matrices hold \d+ weights, but those of the decoder recognised in it"),
        (Capped(), r"something follows the language-model head '\S+'"),
        (Headless(), r"no operator fetches tokens from a table of the size of a constant matrix"),
        (Stranger(), r"\(Sin\) on the projection '\S+' is no part of a decoder"),
        (Writer(layers=0), r"it has no layers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Writer) else "",
)
def test_what_is_no_known_decoder_is_named(tmp_path, writer, sentence):
    """One sentence with the file and the operator, or what does not add up."""
    path = saved(writer.model(), tmp_path, "mine.onnx")
    with pytest.raises(WorkloadError, match=rf"mine\.onnx: .*{sentence}"):
        load(path, prefill=4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prefill": 4, "image": 3}, r"as a decoder has no option 'image'; known: prefill, decode"),
        ({"prefill": 4, "record": "x.npy"}, r"has no option 'record'"),
        ({"prefill": -1}, r"option prefill must be a whole number of at least 0, not -1"),
        ({"prefill": 0}, r"mine\.onnx as a decoder needs prefill or decode of at least 1$"),
        ({"decode": 4, "inputs": {"none": (1, 4)}}, r"has no input 'none'; known: ids"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, sentence):
    """Lengths are whole numbers, and only shapes of inputs go with them."""
    _, path = written(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load(path, **options)


def test_weights_of_another_width_are_refused():
    """Only four and eight bits are unpacked."""
    settings = {"N": 4, "K": 16, "bits": 2, "block_size": 16}
    names = {"name": "p", "type": "MatMulNBits", "inputs": ("x", "b", "s"), "outputs": ("y",)}
    with pytest.raises(Unrecognised, match=r"operator 'p' has weights of 2 bits, not 4 or 8"):
        unpack(Node(**names, attributes=settings), {})
