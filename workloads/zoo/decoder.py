"""Decoder LLMs by shape: OPT-6.7B (arXiv 2205.01068) and LLaMA-2-7B (arXiv 2307.09288).

`prefill` tokens run through every layer at once. Each of `decode` steps then runs one token at
KV lengths prefill + 1 ... prefill + decode. Decode is folded, never unrolled: an operator with
weights appears once per layer with repeat = decode, and the two attention products, which
depend on the KV length alone, once per KV length with repeat = layers. Both phases read the
same weights, and in both the language-model head runs on the last token only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from workloads.builder import GraphBuilder
from workloads.graph import OpKind, WorkloadGraph
from workloads.zoo.attention import GKN, GMK, attention, norm, products

__all__ = ["decoder", "llama2_7b", "opt_6_7b"]

DEFAULT_PREFILL = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What sets one decoder family apart."""

    name: str
    layers: int
    width: int
    heads: int
    hidden: int  # width between the projections of the feed-forward part
    vocabulary: int
    stem: str  # prefix of layer names in the source model
    layer: Callable[["_Family", GraphBuilder, str, str, "_Attend"], str]
    final_norm: tuple[str, str]  # name, operator


_Attend = Callable[[GraphBuilder, str, str, str, str], str]
"""Attention of one layer: (builder, name, q, k, v) to context."""


def _opt_layer(family: _Family, net: GraphBuilder, layer: str, x: str, attend: _Attend) -> str:
    width = family.width
    y = norm(net, f"{layer}.self_attn_layer_norm", x)
    q, k, v = (net.linear(f"{layer}.self_attn.{p}_proj", y, width) for p in "qkv")
    context = attend(net, f"{layer}.self_attn", q, k, v)
    x = net.add(
        f"{layer}.self_attn.add", net.linear(f"{layer}.self_attn.out_proj", context, width), x
    )
    y = norm(net, f"{layer}.final_layer_norm", x)
    y = net.linear(f"{layer}.fc1", y, family.hidden, post=("Relu",))
    return net.add(f"{layer}.add", net.linear(f"{layer}.fc2", y, width), x)


def _llama_layer(family: _Family, net: GraphBuilder, layer: str, x: str, attend: _Attend) -> str:
    width, attn, mlp = family.width, f"{layer}.self_attn", f"{layer}.mlp"
    y = norm(net, f"{layer}.input_layernorm", x, "RMSNorm")
    q, k, v = (net.linear(f"{attn}.{p}_proj", y, width) for p in "qkv")
    q = net.vector(f"{attn}.rotary_q", OpKind.ELEMENTWISE, (q,), "RotaryEmbedding")
    k = net.vector(f"{attn}.rotary_k", OpKind.ELEMENTWISE, (k,), "RotaryEmbedding")
    x = net.add(f"{attn}.add", net.linear(f"{attn}.o_proj", attend(net, attn, q, k, v), width), x)
    y = norm(net, f"{layer}.post_attention_layernorm", x, "RMSNorm")
    gate = net.linear(f"{mlp}.gate_proj", y, family.hidden, post=("Silu",))
    up = net.linear(f"{mlp}.up_proj", y, family.hidden)
    gated = net.vector(f"{mlp}.gated", OpKind.ELEMENTWISE, (gate, up), "Mul")
    return net.add(f"{layer}.add", net.linear(f"{mlp}.down_proj", gated, width), x)


OPT = _Family(
    name="opt-6.7b",
    layers=32,
    width=4096,
    heads=32,
    hidden=16384,
    vocabulary=50272,
    stem="model.decoder.layers",
    layer=_opt_layer,
    final_norm=("model.decoder.final_layer_norm", "LayerNorm"),
)

LLAMA = _Family(
    name="llama2-7b",
    layers=32,
    width=4096,
    heads=32,
    hidden=11008,
    vocabulary=32000,
    stem="model.layers",
    layer=_llama_layer,
    final_norm=("model.norm", "RMSNorm"),
)


def _phase(net: GraphBuilder, family: _Family, batch: int, tokens: int, attend: _Attend) -> None:
    """Append embedding, every layer and the head for `tokens` tokens a sequence."""
    ids = net.tensor("tokens", (batch, tokens))
    width = family.width
    x = net.vector("embed_tokens", OpKind.MOVE, (ids,), "Gather", shape=(batch, tokens, width))
    for i in range(family.layers):
        x = family.layer(family, net, f"{family.stem}.{i}", x, attend)
    if tokens > 1:
        x = net.vector("last_token", OpKind.MOVE, (x,), "Gather", shape=(batch, 1, width))
    net.linear(
        "lm_head", norm(net, family.final_norm[0], x, family.final_norm[1]), family.vocabulary
    )


def _cached(net: GraphBuilder, name: str, q: str, k: str, v: str) -> str:
    """Keep the layer's order; the products themselves stand in the kv operators."""
    return net.vector(f"{name}.context", OpKind.RESHAPE, (v, q, k), "Attention")


def _decode_products(net: GraphBuilder, family: _Family, batch: int, kv_lengths: range) -> None:
    groups, size = batch * family.heads, family.width // family.heads
    net.repeat = family.layers
    for kv in kv_lengths:
        q = net.tensor(f"kv{kv}.query", (groups, 1, size), dims=GMK)
        k = net.tensor(f"kv{kv}.keys", (groups, size, kv), dims=GKN)
        v = net.tensor(f"kv{kv}.values", (groups, kv, size), dims=GKN)
        products(net, f"kv{kv}", q, k, v)


def _build(family: _Family, batch: int, prefill: int | None, decode: int | None) -> WorkloadGraph:
    if prefill is None and decode is None:
        prefill = DEFAULT_PREFILL
    prefill, decode = prefill or 0, decode or 0
    if prefill + decode < 1:
        raise ValueError(f"{family.name} needs prefill or decode of at least 1, not 0 and 0")
    net = GraphBuilder()
    net.notes.append("The language-model head runs on the last token of each sequence only")
    if prefill:
        net.prefix = "prefill."
        net.notes.append("Prefill attention computes all scores, masked ones included")
        _phase(
            net,
            family,
            batch,
            prefill,
            lambda b, n, q, k, v: attention(b, n, q, k, v, family.heads),
        )
    if decode:
        net.prefix, net.repeat = "decode.", decode
        net.notes.append(
            f"Decode attention is listed once per KV length with repeat = {family.layers} layers"
        )
        _phase(net, family, batch, 1, _cached)
        _decode_products(net, family, batch, range(prefill + 1, prefill + decode + 1))
    return net.build(family.name)


def opt_6_7b(
    *, prefill: int | None = None, decode: int | None = None, batch: int = 1
) -> WorkloadGraph:
    """Build OPT-6.7B; prefill defaults to 512 tokens when decode is not given either."""
    return _build(OPT, batch, prefill, decode)


def llama2_7b(
    *, prefill: int | None = None, decode: int | None = None, batch: int = 1
) -> WorkloadGraph:
    """Build LLaMA-2-7B; prefill defaults to 512 tokens when decode is not given either."""
    return _build(LLAMA, batch, prefill, decode)


def decoder(
    name: str,
    like: str,
    *,
    layers: int,
    width: int,
    heads: int,
    hidden: int,
    vocabulary: int,
    prefill: int | None = None,
    decode: int | None = None,
    batch: int = 1,
) -> WorkloadGraph:
    """Build a decoder of any size with the layers of `like`, llama2-7b or opt-6.7b.

    Raises ValueError for an unknown `like` and for heads that do not divide the width.

    >>> decoder("tiny", "llama2-7b", layers=2, width=64, heads=4, hidden=96, vocabulary=100,
    ...         prefill=16).macs
    1186048
    """
    families = {family.name: family for family in (OPT, LLAMA)}
    if like not in families:
        raise ValueError(f"Unknown decoder {like!r}; known: {', '.join(families)}")
    if width % heads:
        raise ValueError(f"{name}: {heads} heads do not divide a width of {width}")
    family = replace(
        families[like],
        name=name,
        layers=layers,
        width=width,
        heads=heads,
        hidden=hidden,
        vocabulary=vocabulary,
    )
    return _build(family, batch, prefill, decode)
