"""Encoder transformers by shape: ViT-B/16 (arXiv 2010.11929) and BERT-base (arXiv 1810.04805)."""

from workloads.builder import GraphBuilder, feature_map
from workloads.graph import OpKind, WorkloadGraph
from workloads.zoo.attention import attention, norm

__all__ = ["bert_base", "vit_b16"]

LAYERS = 12
WIDTH = 768
HEADS = 12
HIDDEN = 3072
GELU = ("Gelu",)


def _self_attention(net: GraphBuilder, layer: str, x: str) -> str:
    q, k, v = (net.linear(f"{layer}.attention.{p}", x, WIDTH) for p in ("query", "key", "value"))
    context = attention(net, f"{layer}.attention", q, k, v, HEADS)
    return net.linear(f"{layer}.attention.output", context, WIDTH)


def _feed_forward(net: GraphBuilder, layer: str, x: str) -> str:
    hidden = net.linear(f"{layer}.intermediate", x, HIDDEN, post=GELU)
    return net.linear(f"{layer}.output", hidden, WIDTH)


def _pre_norm_layer(net: GraphBuilder, layer: str, x: str) -> str:
    y = _self_attention(net, layer, norm(net, f"{layer}.layernorm_before", x))
    x = net.add(f"{layer}.attention.add", y, x)
    y = _feed_forward(net, layer, norm(net, f"{layer}.layernorm_after", x))
    return net.add(f"{layer}.add", y, x)


def _post_norm_layer(net: GraphBuilder, layer: str, x: str) -> str:
    y = net.add(f"{layer}.attention.add", _self_attention(net, layer, x), x)
    x = norm(net, f"{layer}.attention.norm", y)
    y = net.add(f"{layer}.add", _feed_forward(net, layer, x), x)
    return norm(net, f"{layer}.norm", y)


def _first_token(net: GraphBuilder, name: str, x: str) -> str:
    batch, _, width = net.shape(x)
    return net.vector(name, OpKind.MOVE, (x,), "Gather", shape=(batch, width))


def vit_b16(*, image: int = 224, batch: int = 1) -> WorkloadGraph:
    """Build ViT-B/16: 12 layers of width 768 on 16x16 patches plus a class token, 17.6 GMAC."""
    if image % 16:
        raise ValueError(f"vit-b16 cuts the image into 16x16 patches, so {image} is no image size")
    net = GraphBuilder()
    x = net.tensor("input", feature_map(batch, image, 3))
    x = net.conv("embeddings.patch", x, WIDTH, 16, stride=16)
    tokens = (image // 16) ** 2 + 1
    x = net.vector(
        "embeddings.class_token", OpKind.MOVE, (x,), "Concat", shape=(batch, tokens, WIDTH)
    )
    x = net.vector("embeddings.position", OpKind.ELEMENTWISE, (x,), "Add")
    for i in range(LAYERS):
        x = _pre_norm_layer(net, f"encoder.layer.{i}", x)
    net.linear("classifier", _first_token(net, "class_token", norm(net, "layernorm", x)), 1000)
    return net.build("vit-b16")


def bert_base(*, length: int = 128, batch: int = 1) -> WorkloadGraph:
    """Build BERT-base with its pooler: 12 layers of width 768, 11.2 GMAC at 128 tokens."""
    net = GraphBuilder()
    tokens = net.tensor("tokens", (batch, length))
    x = net.vector(
        "embeddings.words", OpKind.MOVE, (tokens,), "Gather", shape=(batch, length, WIDTH)
    )
    x = net.vector("embeddings.position", OpKind.ELEMENTWISE, (x,), "Add")
    x = norm(net, "embeddings.norm", x)
    for i in range(LAYERS):
        x = _post_norm_layer(net, f"encoder.layer.{i}", x)
    net.linear("pooler", _first_token(net, "first_token", x), WIDTH, post=("Tanh",))
    return net.build("bert-base")
