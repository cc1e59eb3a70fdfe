"""Decoder LLMs by shape: OPT-6.7B (arXiv 2205.01068), LLaMA-2-7B (2307.09288) and their kin.

Llama-3-8B (arXiv 2407.21783) and Mistral-7B (2310.06825) differ in sizes from LLaMA-2-7B.

`prefill` tokens run through every layer at once. Each of `decode` steps then runs one token at
KV lengths prefill + 1 ... prefill + decode. Decode is folded, never unrolled: an operator with
weights appears once per layer with repeat = decode, and the two attention products, which
depend on the KV length alone, once per KV length with repeat = layers. Both phases read the
same weights, and in both the language-model head runs on the last token only.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from workloads.builder import GraphBuilder
from workloads.canonical import Spec
from workloads.graph import OpKind, WorkloadGraph
from workloads.zoo.attention import GKN, GMK, attention, norm, products

__all__ = [
    "ACTIVATIONS",
    "FAMILIES",
    "NORMS",
    "DecoderShape",
    "check_field",
    "decoder",
    "decoder_graph",
    "llama2_7b",
    "llama3_8b",
    "mistral_7b",
    "opt_6_7b",
    "shape_like",
]

DEFAULT_PREFILL = 512

MOST_LAYERS: Final = 10_000
"""Layers of a decoder: each has operators of its own."""

NORMS: Final = ("LayerNorm", "RMSNorm")
ACTIVATIONS: Final = ("Relu", "Gelu", "Silu")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape(Spec):
    """A decoder LLM without its weights.

    `heads` queries of `head_size` read `kv_heads` keys and values (grouped-query attention, if
    fewer). `hidden` is the width between the projections of the feed-forward part: a `gated` one
    multiplies a projection behind the activation by another, the other kind has one in front of
    the activation. `rotary` turns queries and keys; else positions come with the tokens.
    Raises ValueError for sizes and kinds that no decoder has.
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    vocabulary: int
    norm: str
    activation: str
    gated: bool
    rotary: bool

    def __post_init__(self) -> None:
        for field in fields(self):
            check_field(self.name, field.name, getattr(self, field.name))
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name}: {self.kv_heads} kv_heads do not divide {self.heads} heads"
            )

    @property
    def names(self) -> "_Names":
        """How the source model of this kind names its parts."""
        return _LLAMA_NAMES if self.gated else _OPT_NAMES


def check_field(owner: str, name: str, value: object) -> None:
    """Raise ValueError, naming the owner, for a value that the field of a DecoderShape cannot have.

    >>> check_field("mine.yaml, line 2", "heads", 0)
    Traceback (most recent call last):
    ValueError: mine.yaml, line 2: heads must be a whole number of at least 1, not 0
    """
    kind = next(field.type for field in fields(DecoderShape) if field.name == name)
    known = {"norm": NORMS, "activation": ACTIVATIONS}.get(name)
    if kind is int and (type(value) is not int or value < 1):
        raise ValueError(f"{owner}: {name} must be a whole number of at least 1, not {value!r}")
    if name == "layers" and isinstance(value, int) and value > MOST_LAYERS:
        raise ValueError(f"{owner}: layers must be at most {MOST_LAYERS:,}, not {value}")
    if name == "name" and not isinstance(value, str):
        raise ValueError(f"{owner}: name must be a text, not {value!r}")
    if kind is bool and type(value) is not bool:
        raise ValueError(f"{owner}: {name} must be true or false, not {value!r}")
    if known and value not in known:
        raise ValueError(f"{owner}: unknown {name} {value!r}; known: {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Names of a layer's parts, as in the source model of the family."""

    stem: str
    attention_norm: str
    output: str
    feed_norm: str
    final_norm: str


_OPT_NAMES = _Names(
    stem="model.decoder.layers",
    attention_norm="self_attn_layer_norm",
    output="out_proj",
    feed_norm="final_layer_norm",
    final_norm="model.decoder.final_layer_norm",
)
_LLAMA_NAMES = _Names(
    stem="model.layers",
    attention_norm="input_layernorm",
    output="o_proj",
    feed_norm="post_attention_layernorm",
    final_norm="model.norm",
)

OPT = DecoderShape(
    name="opt-6.7b",
    layers=32,
    width=4096,
    heads=32,
    kv_heads=32,
    head_size=128,
    hidden=16384,
    vocabulary=50272,
    norm="LayerNorm",
    activation="Relu",
    gated=False,
    rotary=False,
)
LLAMA = DecoderShape(
    name="llama2-7b",
    layers=32,
    width=4096,
    heads=32,
    kv_heads=32,
    head_size=128,
    hidden=11008,
    vocabulary=32000,
    norm="RMSNorm",
    activation="Silu",
    gated=True,
    rotary=True,
)
LLAMA3 = replace(LLAMA, name="llama3-8b", kv_heads=8, hidden=14336, vocabulary=128256)
MISTRAL = replace(LLAMA3, name="mistral-7b", vocabulary=32000)

FAMILIES: Final = {shape.name: shape for shape in (OPT, LLAMA)}
"""Decoders whose layers others may be like."""

_Attend = Callable[[GraphBuilder, str, str, str, str], str]
"""Attention of one layer: (builder, name, q, k, v) to context."""


def _layer(shape: DecoderShape, net: GraphBuilder, layer: str, x: str, attend: _Attend) -> str:
    names, attn = shape.names, f"{layer}.self_attn"
    y = norm(net, f"{layer}.{names.attention_norm}", x, shape.norm)
    features = (shape.heads, shape.kv_heads, shape.kv_heads)
    q, k, v = (
        net.linear(f"{attn}.{p}_proj", y, n * shape.head_size)
        for p, n in zip("qkv", features, strict=True)
    )
    if shape.rotary:
        q = net.vector(f"{attn}.rotary_q", OpKind.ELEMENTWISE, (q,), "RotaryEmbedding")
        k = net.vector(f"{attn}.rotary_k", OpKind.ELEMENTWISE, (k,), "RotaryEmbedding")
    context = attend(net, attn, q, k, v)
    x = net.add(f"{attn}.add", net.linear(f"{attn}.{names.output}", context, shape.width), x)
    y = norm(net, f"{layer}.{names.feed_norm}", x, shape.norm)
    return net.add(f"{layer}.add", _feed_forward(shape, net, layer, y), x)


def _feed_forward(shape: DecoderShape, net: GraphBuilder, layer: str, x: str) -> str:
    if not shape.gated:
        y = net.linear(f"{layer}.fc1", x, shape.hidden, post=(shape.activation,))
        return net.linear(f"{layer}.fc2", y, shape.width)
    mlp = f"{layer}.mlp"
    gate = net.linear(f"{mlp}.gate_proj", x, shape.hidden, post=(shape.activation,))
    up = net.linear(f"{mlp}.up_proj", x, shape.hidden)
    gated = net.vector(f"{mlp}.gated", OpKind.ELEMENTWISE, (gate, up), "Mul")
    return net.linear(f"{mlp}.down_proj", gated, shape.width)


def _phase(
    net: GraphBuilder, shape: DecoderShape, batch: int, tokens: int, attend: _Attend
) -> None:
    """Append embedding, every layer and the head for `tokens` tokens a sequence."""
    ids = net.tensor("tokens", (batch, tokens))
    width, names = shape.width, shape.names
    x = net.vector("embed_tokens", OpKind.MOVE, (ids,), "Gather", shape=(batch, tokens, width))
    for i in range(shape.layers):
        x = _layer(shape, net, f"{names.stem}.{i}", x, attend)
    if tokens > 1:
        x = net.vector("last_token", OpKind.MOVE, (x,), "Gather", shape=(batch, 1, width))
    net.linear("lm_head", norm(net, names.final_norm, x, shape.norm), shape.vocabulary)


def _cached(net: GraphBuilder, name: str, q: str, k: str, v: str) -> str:
    """Keep the layer's order; the products themselves stand in the kv operators."""
    inputs = (v, q, k)
    return net.vector(f"{name}.context", OpKind.RESHAPE, inputs, "Attention", shape=net.shape(q))


def _decode_products(net: GraphBuilder, shape: DecoderShape, batch: int, kv_lengths: range) -> None:
    groups, size = batch * shape.kv_heads, shape.head_size
    net.repeat = shape.layers
    for kv in kv_lengths:
        q = net.tensor(f"kv{kv}.query", (groups, shape.heads // shape.kv_heads, size), dims=GMK)
        k = net.tensor(f"kv{kv}.keys", (groups, size, kv), dims=GKN)
        v = net.tensor(f"kv{kv}.values", (groups, kv, size), dims=GKN)
        products(net, f"kv{kv}", q, k, v)


def decoder_graph(
    shape: DecoderShape,
    *,
    prefill: int | None = None,
    decode: int | None = None,
    batch: int = 1,
) -> WorkloadGraph:
    """Return the phases of a decoder; prefill defaults to 512 tokens without decode.

    Raises ValueError if both are 0.
    """
    if prefill is None and decode is None:
        prefill = DEFAULT_PREFILL
    prefill, decode = prefill or 0, decode or 0
    if prefill + decode < 1:
        raise ValueError(f"{shape.name} needs prefill or decode of at least 1, not 0 and 0")
    net = GraphBuilder()
    net.notes.append("The language-model head runs on the last token of each sequence only")
    if prefill:
        net.prefix = "prefill."
        net.notes.append("Prefill attention computes all scores, masked ones included")
        _phase(
            net,
            shape,
            batch,
            prefill,
            lambda b, n, q, k, v: attention(b, n, q, k, v, shape.heads, shape.kv_heads),
        )
    if decode:
        net.prefix, net.repeat = "decode.", decode
        net.notes.append(
            f"Decode attention is listed once per KV length with repeat = {shape.layers} layers"
        )
        _phase(net, shape, batch, 1, _cached)
        _decode_products(net, shape, batch, range(prefill + 1, prefill + decode + 1))
    return net.build(shape.name)


def opt_6_7b(
    *, prefill: int | None = None, decode: int | None = None, batch: int = 1
) -> WorkloadGraph:
    """Build OPT-6.7B; prefill defaults to 512 tokens when decode is not given either."""
    return decoder_graph(OPT, prefill=prefill, decode=decode, batch=batch)


def llama2_7b(
    *, prefill: int | None = None, decode: int | None = None, batch: int = 1
) -> WorkloadGraph:
    """Build LLaMA-2-7B; prefill defaults to 512 tokens when decode is not given either."""
    return decoder_graph(LLAMA, prefill=prefill, decode=decode, batch=batch)


def llama3_8b(
    *, prefill: int | None = None, decode: int | None = None, batch: int = 1
) -> WorkloadGraph:
    """Build Llama-3-8B, four queries to a key; prefill defaults to 512 tokens without decode."""
    return decoder_graph(LLAMA3, prefill=prefill, decode=decode, batch=batch)


def mistral_7b(
    *, prefill: int | None = None, decode: int | None = None, batch: int = 1
) -> WorkloadGraph:
    """Build Mistral-7B, four queries to a key; prefill defaults to 512 tokens without decode."""
    return decoder_graph(MISTRAL, prefill=prefill, decode=decode, batch=batch)


def shape_like(
    like: str,
    *,
    name: str,
    layers: int,
    width: int,
    heads: int,
    hidden: int,
    vocabulary: int,
    **others: Any,
) -> DecoderShape:
    """Return the shape of a decoder with the layers of `like`, llama2-7b or opt-6.7b.

    `others` are fields of `DecoderShape`. Without them keys and values have as many heads as
    queries, heads share the width, and the rest is that of `like`. Raises ValueError for an
    unknown `like`, for fields that no decoder has, and for heads that do not divide the width.
    """
    if like not in FAMILIES:
        raise ValueError(f"Unknown decoder {like!r}; known: {', '.join(FAMILIES)}")
    shape = replace(
        FAMILIES[like],
        name=name,
        layers=layers,
        width=width,
        heads=heads,
        hidden=hidden,
        vocabulary=vocabulary,
        **{"kv_heads": heads, **others},
    )
    if "head_size" in others:
        return shape
    if width % heads:
        raise ValueError(f"{name}: {heads} heads do not divide a width of {width}")
    return replace(shape, head_size=width // heads)


def decoder(
    name: str,
    like: str,
    *,
    prefill: int | None = None,
    decode: int | None = None,
    batch: int = 1,
    **fields: Any,
) -> WorkloadGraph:
    """Build a decoder of any size; `fields` and what is raised are those of `shape_like`.

    >>> decoder("tiny", "llama2-7b", layers=2, width=64, heads=4, hidden=96, vocabulary=100,
    ...         prefill=16).macs
    1186048
    """
    shape = shape_like(like, name=name, **fields)
    return decoder_graph(shape, prefill=prefill, decode=decode, batch=batch)
