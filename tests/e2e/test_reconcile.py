"""Books that must balance from end to end: bytes moved equal encoded sizes."""

import numpy as np
import pytest

import sparseloom as sl
from simulator.arch.formats import dense, nm_index
from simulator.counts import total
from simulator.formats import encode
from workloads.pruning import mask_of


def _tiles(extent, size):
    return [slice(start, min(start + size, extent)) for start in range(0, extent, size)]


def _fetched_bits(act_bits, weight, shape, encode_tile):
    """Walk the loops of a mapping and fetch a tile whenever it is not the one at hand."""
    m, (k, n) = act_bits.shape[0], weight.shape
    outer, inner = _tiles(m, shape.m), _tiles(n, shape.n)
    pairs = [(a, b) for a in outer for b in inner]
    if shape.order == "nm":
        pairs = [(a, b) for b in inner for a in outer]
    held = {"act": None, "weight": None}
    acts = weights = metadata = 0
    for rows, cols in pairs:
        for depth in _tiles(k, shape.k):
            if held["act"] != (rows, depth):
                held["act"] = (rows, depth)
                acts += int(act_bits[rows, depth].sum())
            if held["weight"] != (depth, cols):
                held["weight"] = (depth, cols)
                tile = encode_tile(weight[depth, cols])
                weights, metadata = weights + tile.value_bits, metadata + tile.metadata_bits
    return acts, weights, metadata


@pytest.mark.parametrize(("m", "k", "n"), [(16, 64, 24), (5, 37, 3), (1, 8, 1), (700, 900, 260)])
@pytest.mark.parametrize("nm", [(2, 8), (1, 4), (3, 5), None])
@pytest.mark.parametrize("buffers", [65536, 6000])
def test_dram_traffic_is_the_encoded_tiles_the_mapping_fetches(m, k, n, nm, buffers):
    buffer = {"capacity_bytes": buffers}
    machine = sl.arch("nm-tiny", act_buffer=buffer, weight_buffer=buffer, out_buffer=buffer)
    graph = sl.gemm(m, k, n, weight=sl.NofM(*nm) if nm else sl.Dense())
    mapped = sl.map(graph, machine)
    counts = sl.simulate(mapped, machine).counts
    weight = mask_of(graph, "weight").astype(np.int8)

    def encode_tile(tile):
        fmt = nm_index(tile.shape, n=nm[0], m=nm[1]) if nm else dense(tile.shape)
        return encode(np.ascontiguousarray(tile), fmt)

    act_bits = np.full((m, k), 8)
    acts, weights, metadata = _fetched_bits(act_bits, weight, mapped.mappings[0].shape, encode_tile)
    assert counts["dram", "read", "full"] == acts + weights
    assert counts.get(("dram", "read", "metadata"), 0) == metadata
    assert total(counts, "dram", "write") == 8 * m * n
    assert counts["act_buffer", "write", "full"] == acts
    assert total(counts, "weight_buffer", "write") == weights + metadata


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_gating_counts_every_zero_and_saves_no_time(density):
    machine = sl.arch("nm-tiny")
    dense = sl.simulate(sl.gemm(32, 64, 16), machine)
    gated = sl.simulate(sl.gemm(32, 64, 16, weight=sl.Unstructured(density)), machine)
    assert gated.cycles == dense.cycles
    offered = sum(n for (c, _, _), n in dense.counts.items() if c == "mac")
    assert sum(n for (c, _, _), n in gated.counts.items() if c == "mac") == offered
    assert gated.counts["mac", "int8", "full"] == 32 * round(64 * 16 * density)
    assert sl.price(gated).energy_pj <= sl.price(dense).energy_pj
