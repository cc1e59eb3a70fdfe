"""Training steps of arbitrary layers: adjoint products, and counts that scale."""

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workloads.builder import GraphBuilder, conv_gemm
from workloads.graph import Op, OpKind, Phase, Window, WindowUse
from workloads.pruning import nnz_of
from workloads.sparsity import NofM
from workloads.training import Method

SMALL = st.integers(1, 3)


@st.composite
def windows(draw):
    window = Window(
        batch=draw(st.integers(1, 2)),
        image=(draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        channels=draw(SMALL),
        kernel=(draw(SMALL), draw(SMALL)),
        stride=(draw(SMALL), draw(SMALL)),
        padding=tuple(draw(st.integers(0, 2)) for _ in range(4)),
        dilation=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
    )
    assume(min(window.out) >= 1)
    return window


def conv_pair(window, groups, features):
    """A pointwise convolution and behind it one with `window`, so that the latter has a BP."""
    channels = groups * window.channels
    net = GraphBuilder()
    x = net.conv("first", net.tensor("x", (window.batch, *window.image, channels)), channels, 1)
    gemm = conv_gemm(window, groups, groups * features)
    weight = net.parameter("second.weight", gemm)
    out = net.tensor("second.out", (window.batch, *window.out, groups * features))
    net.ops.append(
        Op(
            name="second",
            kind=OpKind.CONV,
            inputs=(x, weight),
            output=out,
            gemm=gemm,
            window=window,
        )
    )
    return net.build("pair")


def pixels(op):
    """For each row of FF's product and kernel position: the image pixel read, or None."""
    w = op.window
    for b in range(w.batch):
        for y in range(w.out[0]):
            for x in range(w.out[1]):
                yield [
                    (b, row, col) if 0 <= row < w.image[0] and 0 <= col < w.image[1] else None
                    for row in (
                        y * w.stride[0] + i * w.dilation[0] - w.padding[0]
                        for i in range(w.kernel[0])
                    )
                    for col in (
                        x * w.stride[1] + j * w.dilation[1] - w.padding[1]
                        for j in range(w.kernel[1])
                    )
                ]


def rows_of(image, op, group):
    """Image windows of one group, (m, kh * kw * c), read pixel by pixel."""
    c = op.window.channels
    zero = np.zeros(c)
    part = image[..., group * c : (group + 1) * c]
    return np.array(
        [np.concatenate([zero if p is None else part[p] for p in r]) for r in pixels(op)]
    )


def scattered(columns, op, group, image):
    c = op.window.channels
    part = image[..., group * c : (group + 1) * c]
    for row, targets in zip(columns, pixels(op), strict=True):
        for position, p in enumerate(targets):
            if p is not None:
                part[p] += row[position * c : (position + 1) * c]


@settings(max_examples=30)
@given(windows(), st.integers(1, 2), SMALL, st.sampled_from(list(Method)), st.integers(0, 99))
def test_conv_products_are_adjoint_to_the_forward_one(window, groups, features, method, seed):
    """<dY, Y> = <dX, X> = <dW, W>, since a convolution is linear in each operand."""
    graph = conv_pair(window, groups, features)
    step = graph.training(method, sparsity=NofM(1, 1))  # any method, no zeros
    ops = {op.name: op for op in step.ops}
    ff, bp, wu = ops["second.ff"], ops["second.bp"], ops["second.wu"]
    scatter = WindowUse.SCATTER_N if method is Method.SDGP else WindowUse.SCATTER
    assert (bp.window_use, wu.window_use) == (scatter, WindowUse.GATHER_K)
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, graph.tensors[ff.inputs[0]].shape).astype(float)
    g = ff.gemm
    w = rng.integers(-4, 5, (groups, g.k, g.n)).astype(float)
    dy = rng.integers(-4, 5, (groups, g.m, g.n)).astype(float)
    y = np.array([rows_of(x, ff, i) @ w[i] for i in range(groups)])
    dx = np.zeros_like(x)
    for i in range(groups):
        product = dy[i] @ w[i].T
        shape = (bp.gemm.m, bp.gemm.n)
        assert shape == (product.T.shape if method is Method.SDGP else product.shape)
        scattered(product, bp, i, dx)
    dw = np.array([rows_of(x, wu, i).T @ dy[i] for i in range(groups)])
    assert dw.shape == (wu.gemm.groups, wu.gemm.m, wu.gemm.n)
    assert wu.gemm.k == g.m
    assert dx.shape == step.tensors[bp.output].shape
    assert (dy * y).sum() == (dx * x).sum() == (dw * w).sum()


@st.composite
def mlps(draw):
    """A chain of linear layers with residuals wherever sizes allow and a drawn bit says so."""
    widths = draw(st.lists(st.sampled_from([4, 8, 16]), min_size=2, max_size=6))
    batch = draw(st.integers(1, 4))
    residuals = draw(st.lists(st.booleans(), min_size=6, max_size=6))
    posts = draw(st.lists(st.sampled_from([(), ("Relu",), ("Gelu",)]), min_size=6, max_size=6))

    def graph(batch):
        net = GraphBuilder()
        x = net.tensor("x", (batch, widths[0]))
        for i, width in enumerate(widths[1:]):
            y = net.linear(f"fc{i}", x, width, post=posts[i])
            same = net.shape(y) == net.shape(x)
            x = net.add(f"add{i}", y, x, post=posts[-i]) if same and residuals[i] else y
        return net.build("mlp")

    return graph, batch


METHODS = st.sampled_from(list(Method))
NM = st.tuples(st.integers(0, 8), st.sampled_from([2, 4, 8])).map(lambda p: NofM(min(p), p[1]))


@given(mlps(), METHODS, NM, st.integers(2, 5))
def test_batch_scales_products_and_leaves_weights_alone(drawn, method, sparsity, times):
    graph, batch = drawn
    one, many = (graph(b).training(method, sparsity=sparsity) for b in (batch, times * batch))
    assert [op.name for op in one.ops] == [op.name for op in many.ops]
    assert many.macs == times * one.macs
    for small, large in zip(one.ops, many.ops, strict=True):
        grows = small.phase in (Phase.FF, Phase.BP)
        ratio = many.tensors[large.output].size / one.tensors[small.output].size
        if small.phase is not Phase.SELECT:
            assert ratio == (times if grows else 1), small.name


@given(mlps(), METHODS, NM)
def test_work_of_a_step_is_three_forwards_less_the_first_bp(drawn, method, sparsity):
    graph, batch = drawn
    inference = graph(batch)
    step = inference.training(method, sparsity=sparsity)
    assert step.macs == 3 * inference.macs - next(inference.gemm_ops).macs
    by_phase = {p: sum(op.macs for op in step.ops if op.phase is p) for p in Phase}
    assert by_phase[Phase.FF] == by_phase[Phase.WU] == inference.macs


@given(mlps(), METHODS, st.sampled_from([1, 2, 4]))
def test_density_one_costs_what_dense_costs(drawn, method, m):
    graph, batch = drawn
    full = graph(batch).training(method, sparsity=NofM(m, m))
    for op in full.gemm_ops:
        assert nnz_of(full, op.inputs[1]) == full.tensors[op.inputs[1]].size


@given(mlps(), METHODS, NM)
def test_gradients_have_the_shape_of_what_they_belong_to(drawn, method, sparsity):
    graph, batch = drawn
    step = graph(batch).training(method, sparsity=sparsity)
    made = {op.output for op in step.ops}
    assert len(made) == len(step.ops)
    for name, spec in step.tensors.items():
        if name.endswith(".grad"):
            owner = step.tensors[name.removesuffix(".grad").removesuffix(".pre")]
            assert spec == replace(
                owner, name=name, bits=16, parameter=False, sparsity=spec.sparsity
            )
        elif name not in made:
            assert spec.parameter or name in ("x", "labels")
