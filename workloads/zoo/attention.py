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


def split_heads(net: GraphBuilder, name: str, x: str, heads: int) -> str:
    """View (b, t, heads * size) as (b * heads, t, size)."""
    batch, tokens, width = net.shape(x)
    shape = (batch * heads, tokens, width // heads)
    return net.vector(name, OpKind.RESHAPE, (x,), "SplitHeads", shape=shape, dims=GMK)


def merge_heads(net: GraphBuilder, name: str, x: str, heads: int) -> str:
    """View (b * heads, t, size) as (b, t, heads * size)."""
    groups, tokens, size = net.shape(x)
    shape = (groups // heads, tokens, heads * size)
    return net.vector(name, OpKind.RESHAPE, (x,), "MergeHeads", shape=shape)


def products(net: GraphBuilder, name: str, q: str, k: str, v: str) -> str:
    """Append scores, softmax (three passes) and context of (g, m, d), (g, d, l) and (g, l, d)."""
    scores = net.matmul(f"{name}.scores", q, k)
    weights = net.vector(f"{name}.softmax", OpKind.SOFTMAX, (scores,), "Softmax", passes=3)
    return net.matmul(f"{name}.context", weights, v)


def attention(net: GraphBuilder, name: str, q: str, k: str, v: str, heads: int) -> str:
    """Append self-attention of (b, t, d) queries, keys and values, every key visible."""
    queries = split_heads(net, f"{name}.split_q", q, heads)
    values = split_heads(net, f"{name}.split_v", v, heads)
    groups, tokens, size = net.shape(values)
    keys = net.vector(
        f"{name}.split_k",
        OpKind.RESHAPE,
        (k,),
        "SplitHeads",
        shape=(groups, size, tokens),
        dims=GKN,
    )
    context = products(net, name, queries, keys, values)
    return merge_heads(net, f"{name}.merge", context, heads)
