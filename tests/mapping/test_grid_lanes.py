"""Weights are packed as they lie in memory, and stand as their transpose would."""

import numpy as np
import pytest

from mapping.grid_lanes import packed, weight_lanes
from simulator.arch.pe_grid import Balance
from simulator.units.pe_chunks import pack_words
from workloads.builder import GraphBuilder
from workloads.gemm import gemm_graph
from workloads.pruning import mask_of
from workloads.sparsity import Unstructured


def depthwise():
    """Return a graph of one convolution with a group for each channel."""
    net = GraphBuilder()
    net.conv("conv", net.tensor("x", (1, 6, 6, 5)), 10, 3, groups=5)
    return net.build("depthwise")


@pytest.mark.parametrize("balance", Balance)
@pytest.mark.parametrize("chunk", [1, 5, 8, 63, 64])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 200, 37), (1, 64, 8), (2, 7, 1)])
def test_weights_are_packed_like_their_vectors(balance, chunk, m, k, n):
    """Every chunk of every feature has its bits, whole and in parts, in balanced order."""
    graph = gemm_graph(m, k, n).sparsify(Unstructured(0.4), first_layer=True)
    (op,) = graph.gemm_ops
    vectors = mask_of(graph, op.inputs[1]).T
    lanes = weight_lanes(graph, op, balance)
    if balance is Balance.GREEDY:
        vectors = vectors[np.argsort(-vectors.sum(axis=1), kind="stable")]
    assert np.array_equal(lanes.stored.nonzeros, vectors.sum(axis=1)[None])
    size = 3
    for tiles in (range(-(-n // size)), range(max(0, n // size - 1), -(-n // size))):
        part = vectors[tiles.start * size : tiles.stop * size]
        found = packed(lanes, size, chunk, range(1), tiles)
        words = pack_words(part, chunk)
        assert np.array_equal(found.words[:, : words.shape[1]], words)
        assert not found.words[:, words.shape[1] :].any()
        assert np.array_equal(found.present[0], part.sum(axis=0))


@pytest.mark.parametrize("chunk", [4, 64])
def test_weights_of_groups_are_packed_group_by_group(chunk):
    """Words of a group follow those of the group before it."""
    graph = depthwise().sparsify(Unstructured(0.5), first_layer=True)
    (op,) = graph.gemm_ops
    lanes = weight_lanes(graph, op)
    mask = mask_of(graph, op.inputs[1]).reshape(op.gemm.groups, op.gemm.k, op.gemm.n)
    found = packed(lanes, 1, chunk, range(1, 4), range(op.gemm.n))
    words = [pack_words(mask[group].T, chunk) for group in range(1, 4)]
    assert np.array_equal(found.words, np.concatenate(words, axis=1))
    assert np.array_equal(found.present, mask[1:4].sum(axis=2))
