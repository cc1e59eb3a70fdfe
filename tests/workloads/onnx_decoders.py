"""Small ONNX decoders for tests, spelt as exporters spell them."""

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH, SIZE, HEADS, HIDDEN, WORDS, TOKENS = 32, 8, 4, 48, 50, 6


@dataclass(kw_only=True)
class Writer:
    """Writes the operators of a decoder; every method returns the name of its result.

    norm: op, pow, square, division, power or mean (LayerNorm of small operators).
    rotary: "", half, split or pairs. activation: sigmoid, relu, erf, tanh. attention: small,
    or the name of a fused operator, "packed" GroupQueryAttention. past: cached keys and values.
    """

    layers: int = 2
    kv_heads: int = 2
    norm: str = "pow"
    rotary: str = "half"
    activation: str = "sigmoid"
    gated: bool = True
    attention: str = "small"
    tokens: int | str = TOKENS
    past: int | str = 0
    bits: int = 0
    kept: int = 16
    constants: bool = False
    bias: bool = False
    cast: bool = False
    last: bool = False
    seed: int = 0
    nodes: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)
    truth: dict = field(default_factory=dict)

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}.{i}" for i in range(outputs)]
        own = ("GroupQueryAttention", "MultiHeadAttention", "MatMulNBits")
        own += ("SkipSimplifiedLayerNormalization", "RotaryEmbedding", "FastGelu")
        domain = "com.microsoft" if kind in own else ""
        made = helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}", domain=domain)
        made.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes.append(made)
        return names[0] if outputs == 1 else names

    def const(self, value, dtype=np.float32):
        if self.constants and np.ndim(value) < 2:
            return self.op("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype)
        return name

    def matrix(self, x, name, k, n):
        """Multiply by a weight that has zeros of its own."""
        rng = np.random.default_rng([self.seed, len(self.truth)])
        value = rng.integers(-3, 4, (k, n)).astype(np.float32)
        value[np.arange(k) % 16 >= self.kept] = 0
        if self.bits:
            return self.packed(x, name, value)
        self.truth[name] = value
        if self.cast:
            weight = self.op("Cast", self.const(value, np.float16), to=TensorProto.FLOAT)
        else:
            weight = self.const(value)
        y = self.op("MatMul", x, weight)
        return self.op("Add", y, self.const(np.ones(n))) if self.bias else y

    def packed(self, x, name, value):
        """Multiply by blocks of 16 integers of 4 bits with a zero point of 7."""
        k, n = value.shape
        codes = (value.T + 7).astype(np.uint8).reshape(n, k // 16, 16)
        scales = np.linspace(0.5, 2, n * (k // 16), dtype=np.float32)
        self.truth[name] = (value.T.reshape(n, -1, 16) * scales.reshape(n, -1, 1)).reshape(n, k).T
        row = -(-(k // 16) // 2)
        zeros = np.full((n, row), 0x77, np.uint8)
        weight = self.const(codes[..., ::2] | codes[..., 1::2] << 4, np.uint8)
        inputs = (x, weight, self.const(scales), self.const(zeros.ravel(), np.uint8))
        return self.op("MatMulNBits", *inputs, K=k, N=n, bits=4, block_size=16)

    def normed(self, x):
        scale = self.const(np.ones(WIDTH))
        if self.norm in ("fused", "skip"):
            return self.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=1e-5)
        if self.norm == "op":
            return self.op("LayerNormalization", x, scale, scale, axis=-1)
        value = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1])) if self.norm == "mean" else x
        two = self.const(2.0)
        square = self.op("Mul", x, x) if self.norm == "square" else self.op("Pow", value, two)
        eps = self.op("Add", self.const(1e-5), self.op("ReduceMean", square, axes=[-1]))
        if self.norm == "power":
            return self.op(
                "Mul", scale, self.op("Mul", value, self.op("Pow", eps, self.const(-0.5)))
            )
        root = self.op("Sqrt", eps)
        if self.norm in ("division", "mean"):
            made = self.op("Div", value, root)
        elif self.norm == "square":
            made = self.op("Mul", self.op("Div", self.const(1.0), root), value)
        else:
            made = self.op("Mul", value, self.op("Reciprocal", root))
        made = self.op("Mul", made, scale)
        return self.op("Add", made, scale) if self.norm == "mean" else made

    def cut(self, x, start, stop, step=1):
        lists = [self.const([v], np.int64) for v in (start, stop, 3, step)]
        return self.op("Slice", x, *lists)

    def turned(self, x):
        """Turn (b, heads, t, size)."""
        if not self.rotary:
            return x
        count = self.tokens if isinstance(self.tokens, int) else 1
        wide = self.const(np.full((1, 1, count, SIZE), 0.5))
        narrow = self.const(np.full((1, 1, count, SIZE // 2), 0.5))
        if self.rotary == "pairs":
            even, odd = self.cut(x, 0, SIZE, 2), self.cut(x, 1, SIZE, 2)
        elif self.rotary == "split":
            even, odd = self.op("Split", x, axis=-1, outputs=2)
        else:
            even, odd = self.cut(x, 0, SIZE // 2), self.cut(x, SIZE // 2, SIZE)
        if self.rotary == "half":
            swapped = self.op("Concat", self.op("Neg", odd), even, axis=-1)
            return self.op("Add", self.op("Mul", x, wide), self.op("Mul", swapped, wide))
        one = self.op("Sub", self.op("Mul", even, narrow), self.op("Mul", odd, narrow))
        two = self.op("Add", self.op("Mul", narrow, even), self.op("Mul", narrow, odd))
        return self.op("Concat", one, two, axis=-1)

    def heads(self, x, count):
        shape = self.const([0, -1, count, SIZE], np.int64)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def cached(self, x, name):
        if not self.past:
            return x
        self.inputs[name] = ("batch", self.kv_heads, self.past, SIZE)
        return self.op("Concat", name, x, axis=2)

    def repeated(self, x):
        """Let every head have its keys: (b, kv, t, size) to (b, heads, t, size)."""
        if self.kv_heads == HEADS:
            return x
        x = self.op("Unsqueeze", x, self.const([2], np.int64))
        shape = [1, 1, HEADS // self.kv_heads, 1, 1]
        x = self.op("Expand", x, self.const(shape, np.int64))
        return self.op("Reshape", x, self.const([0, HEADS, -1, SIZE], np.int64))

    def attend(self, x, layer):
        counts = (HEADS, self.kv_heads, self.kv_heads)
        if self.attention == "packed":
            y = self.matrix(x, "qkv", WIDTH, sum(counts) * SIZE)
            cuts = SIZE * np.cumsum(counts)[:2]
            parts = np.split(self.truth.pop("qkv"), cuts, axis=1)
            self.truth |= {f"{layer}.{p}": part for p, part in zip("qkv", parts, strict=True)}
            return self.fused(y, "", "")
        q, k, v = (
            self.matrix(x, f"{layer}.{part}", WIDTH, n * SIZE)
            for part, n in zip("qkv", counts, strict=True)
        )
        if self.attention != "small":
            return self.fused(q, k, v)
        q, k = self.turned(self.heads(q, HEADS)), self.turned(self.heads(k, self.kv_heads))
        k, v = (
            self.repeated(self.cached(y, f"past.{layer}.{p}"))
            for y, p in ((k, "k"), (self.heads(v, self.kv_heads), "v"))
        )
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Mul", scores, self.const(0.35))
        scores = self.op("Add", scores, self.const(np.zeros((1, 1, 1, 1))))
        weights = self.op("Softmax", scores, axis=-1)
        context = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        return self.op("Reshape", context, self.const([0, 0, HEADS * SIZE], np.int64))

    def fused(self, q, k, v):
        size = {"num_heads": HEADS}
        if self.attention == "MultiHeadAttention":
            return self.op(self.attention, q, k, v, **size)
        size["kv_num_heads"] = self.kv_heads
        tables = [self.const(np.full((TOKENS, SIZE // 2), 0.5)) for _ in range(2)]
        lengths = [self.const([TOKENS - 1], np.int32), self.const([TOKENS], np.int32)]
        kind = "GroupQueryAttention"
        if self.attention == "packed":
            more = ["", "", "", "", *lengths, *tables]
            return self.op(kind, q, *more, do_rotary=1, **size)
        places = self.const(np.arange(TOKENS)[None], np.int64)
        q, k = (self.op("RotaryEmbedding", y, places, *tables) for y in (q, k))
        return self.op(kind, q, k, v, "", "", *lengths, **size)

    def active(self, x):
        match self.activation:
            case "relu":
                return self.op("Relu", x)
            case "erf":
                part = self.op("Erf", self.op("Div", x, self.const(1.41)))
                part = self.op("Mul", x, self.op("Add", part, self.const(1.0)))
                return self.op("Mul", part, self.const(0.5))
            case "tanh":
                cubic = self.op("Mul", self.op("Pow", x, self.const(3.0)), self.const(0.044))
                part = self.op("Mul", self.op("Add", x, cubic), self.const(0.8))
                part = self.op("Add", self.op("Tanh", part), self.const(1.0))
                return self.op("Mul", self.op("Mul", x, self.const(0.5)), part)
            case "fast":
                return self.op("FastGelu", x)
        return self.op("Mul", x, self.op("Sigmoid", x))

    def feed(self, x, layer):
        if not self.gated:
            y = self.active(self.matrix(x, f"{layer}.up", WIDTH, HIDDEN))
        else:
            y = self.active(self.matrix(x, f"{layer}.gate", WIDTH, HIDDEN))
            y = self.op("Mul", y, self.matrix(x, f"{layer}.up", WIDTH, HIDDEN))
        return self.matrix(y, f"{layer}.down", HIDDEN, WIDTH)

    def joined(self, x, y):
        """Return the stream x with y added, and its norm."""
        if self.norm == "skip" and y:
            kind, scale = "SkipSimplifiedLayerNormalization", self.const(np.ones(WIDTH))
            normed, _, _, x = self.op(kind, x, y, scale, outputs=4)
            return x, normed
        x = self.op("Add", y, x) if y else x
        return x, self.normed(x)

    def layer(self, x, y, number):
        """Return the stream, and what is still to be added to it."""
        x, normed = self.joined(x, y)
        context = self.attend(normed, number)
        x, normed = self.joined(x, self.matrix(context, f"{number}.o", HEADS * SIZE, WIDTH))
        return x, self.feed(normed, number)

    def model(self):
        """Return the whole model."""
        words = self.const(np.zeros((WORDS, WIDTH)))
        x = self.op("Gather", words, "ids", axis=0)
        if not self.rotary:
            x = self.op("Add", x, self.const(np.zeros((1, 1, WIDTH))))
        y = ""
        for number in range(self.layers):
            x, y = self.layer(x, y, number)
        x = self.joined(x, y)[1]
        if self.last:
            x = self.op("Gather", x, self.const([-1], np.int64), axis=1)
        self.matrix(x, "head", WIDTH, WORDS)
        return self.finished()

    def finished(self):
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", self.tokens])
        more = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in self.inputs.items()
        ]
        out = helper.make_tensor_value_info(self.nodes[-1].output[0], TensorProto.FLOAT, None)
        constants = [numpy_helper.from_array(v, n) for n, v in self.weights.items()]
        graph = helper.make_graph(self.nodes, "decoder", [ids, *more], [out], constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
