"""The pruned demo model through the array's own beats, bit for bit against numpy.

Operands are the weights' int8 codes: whole numbers, whose sums fp32 holds exactly in any order.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mapping import map_graph
from mapping.graph import packings
from mapping.problem import Problem
from simulator.arch.load import load_arch
from simulator.functional import im2col, product
from simulator.units.nm_beats import OPERANDS
from workloads.frontends import load
from workloads.graph import OpKind
from workloads.quantize import quantize
from workloads.sparsity import NofM

pytestmark = pytest.mark.slow
KINDS = (OpKind.CONV, OpKind.DEPTHWISE, OpKind.GEMM, OpKind.MATMUL)


INT8 = {"precision": "int8", "adder_latency": 1, "interleave": 1, "training": None}


@pytest.fixture(scope="module", params=[{}, INT8], ids=["fp16", "int8"])
def mapped(request):
    package = importlib.util.find_spec("rapidocr_onnxruntime").submodule_search_locations[0]
    (model,) = Path(package, "models").glob("*rec*.onnx")
    graph = load(model).sparsify(NofM(2, 8))
    arch = load_arch("sat-vcu1525", **request.param)
    mappings = {m.op: m for m in map_graph(graph, arch).mappings}
    return graph, arch, mappings


def weights_of(graph, op, rng):
    """Return int8[groups, k, n]: the pruned codes, or random ones for a product of activations."""
    shape = (op.gemm.groups, op.gemm.k, op.gemm.n)
    if op.inputs[1] not in graph.values:
        return rng.integers(-127, 128, shape).astype(np.int8)
    return quantize(graph.values[op.inputs[1]])[0].reshape(shape)


def check(graph, arch, mapping, op, rows):
    """Compare the first packed product of `op` on its first `rows` rows."""
    rng = np.random.default_rng(7)
    problem = Problem(gemm=op.gemm, window=op.window, compressed=None)
    packed = mapping.packed
    if packed > 1:
        assert packed in {op.gemm.groups // p.gemm.groups for p in packings(arch, problem)}
    weight = weights_of(graph, op, rng)
    w = op.window
    if w:
        image = rng.integers(-127, 128, (w.batch, *w.image, w.channels * packed)).astype(np.int8)
        own = [slice(g * w.channels, (g + 1) * w.channels) for g in range(packed)]
        acts = [im2col(w, image[..., s])[:rows] for s in own]
        taps = np.prod(w.kernel)
        act = np.stack([a.reshape(len(a), taps, w.channels) for a in acts], axis=2)
        act = act.reshape(len(act), -1)
    else:
        taps = 1
        acts = [rng.integers(-127, 128, (rows, op.gemm.k)).astype(np.int8)]
        act = acts[0]
    depth = op.gemm.k // taps
    block = np.zeros((taps, packed, depth, packed, op.gemm.n), dtype=np.int8)
    for g in range(packed):
        block[:, g, :, g] = weight[g].reshape(taps, depth, op.gemm.n)
    operand = OPERANDS[arch.precision]
    found = product(
        arch,
        mapping.setting,
        np.ascontiguousarray(act).astype(operand),
        block.reshape(op.gemm.k * packed, op.gemm.n * packed).astype(operand),
    )
    for g, own_act in enumerate(acts):
        expected = own_act.astype(np.int32) @ weight[g].astype(np.int32)
        np.testing.assert_array_equal(found[:, g * op.gemm.n : (g + 1) * op.gemm.n], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_one_tile_of_each_kind_equals_numpy_bit_for_bit(mapped, kind):
    graph, arch, mappings = mapped
    ops = [op for op in graph.gemm_ops if op.kind is kind]
    assert ops
    for op in ops:
        check(graph, arch, mappings[op.name], op, rows=16)


def test_one_whole_sparse_layer_equals_numpy_bit_for_bit(mapped):
    graph, arch, mappings = mapped
    op = max(
        (o for o in graph.gemm_ops if mappings[o.name].setting.indexed and o.gemm.groups == 1),
        key=lambda o: o.gemm.macs,
    )
    assert mappings[op.name].setting.kept == 2
    check(graph, arch, mappings[op.name], op, rows=op.gemm.m)
