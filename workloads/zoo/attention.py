"""Multi-head attention by shape, shared by the transformer families.

Heads times batch are the groups of both products. Splitting and merging heads are views: a
machine reads them with strides.
"""

from workloads.builder import GraphBuilder
from workloads.graph import OpKind

__all__ = ["merge_heads", "norm", "products", "split_heads"]

GMK = ("g", "m", "k")
GKN = ("g", "k", "n")


def norm(net: GraphBuilder, name: str, x: str, source: str = "LayerNorm") -> str:
    """Append a normalisation: one pass for the statistics, one to apply them."""
    return net.vector(name, OpKind.NORM, (x,), source, passes=2)


def split_heads(net: GraphBuilder, name: str, x: str, groups: int, size: int) -> str:
    """View (b, t, width) as (b * groups, rows of `size` of the group, size)."""
    batch, tokens, width = net.shape(x)
    shape = (batch * groups, tokens * width // (groups * size), size)
    return net.vector(name, OpKind.RESHAPE, (x,), "SplitHeads", shape=shape, dims=GMK)


def merge_heads(net: GraphBuilder, name: str, x: str, groups: int, tokens: int) -> str:
    """View (b * groups, rows, size) as (b, tokens, rest)."""
    rows, size = net.shape(x)[1:]
    shape = (net.shape(x)[0] // groups, tokens, groups * rows * size // tokens)
    return net.vector(name, OpKind.RESHAPE, (x,), "MergeHeads", shape=shape)


def products(net: GraphBuilder, name: str, q: str, k: str, v: str) -> str:
    """Append scores, softmax (three passes) and context of (g, m, d), (g, d, l) and (g, l, d)."""
    scores = net.matmul(f"{name}.scores", q, k)
    weights = net.vector(f"{name}.softmax", OpKind.SOFTMAX, (scores,), "Softmax", passes=3)
    return net.matmul(f"{name}.context", weights, v)


def attention(
    net: GraphBuilder, name: str, q: str, k: str, v: str, heads: int, kv_heads: int | None = None
) -> str:
    """Append self-attention of (b, t, d) queries, keys and values, every key visible.

    With fewer `kv_heads` than `heads`, the queries that share keys are rows of one product.
    """
    groups = kv_heads or heads
    size = net.shape(q)[2] // heads
    queries = split_heads(net, f"{name}.split_q", q, groups, size)
    values = split_heads(net, f"{name}.split_v", v, groups, size)
    batched, tokens, _ = net.shape(values)
    keys = net.vector(
        f"{name}.split_k",
        OpKind.RESHAPE,
        (k,),
        "SplitHeads",
        shape=(batched, size, tokens),
        dims=GKN,
    )
    context = products(net, name, queries, keys, values)
    return merge_heads(net, f"{name}.merge", context, groups, tokens)
