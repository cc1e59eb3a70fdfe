"""A training step executed operator by operator equals derivatives of the network's own loss."""

from dataclasses import replace

import numpy as np
import pytest

from workloads.builder import GraphBuilder
from workloads.graph import OpKind, Phase, WindowUse
from workloads.pruning import prune
from workloads.sparsity import Dense, NofM
from workloads.training import SGD

# ---------------------------------------------------------------------------------------------
# The step as its graph states it: products by im2col and col2im, in float64.


def windows(shape, window):
    """Flat image index of every (pixel, kernel position), -1 in the padding: (m, kh * kw)."""
    top, left, _, _ = window.padding
    height, width = window.image
    b, y, x, i, j = np.ogrid[
        : window.batch,
        : window.out[0],
        : window.out[1],
        : window.kernel[0],
        : window.kernel[1],
    ]
    row = y * window.stride[0] + i * window.dilation[0] - top
    col = x * window.stride[1] + j * window.dilation[1] - left
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    flat = np.where(inside, (b * height + row) * width + col, -1)
    assert shape[:3] == (window.batch, height, width)
    return flat.reshape(window.batch * window.out[0] * window.out[1], -1)


def split(x, groups, features):
    """(b, h, w, g * n) or (m, g * n) to (g, m, n)."""
    return np.moveaxis(x.reshape(-1, groups, features), 1, 0)


def im2col(x, window, groups):
    pixels = np.concatenate(
        [
            x.reshape(-1, groups, window.channels),
            np.zeros_like(x[:1, 0, 0:1]).reshape(1, groups, -1),
        ]
    )
    taken = pixels[windows(x.shape, window)]  # (m, kh * kw, g, c)
    return np.moveaxis(taken, 2, 0).reshape(groups, len(taken), -1)


def col2im(columns, window, shape):
    groups, m, _ = columns.shape
    image = np.zeros((np.prod(shape[:3]) + 1, groups, window.channels))
    parts = np.moveaxis(columns.reshape(groups, m, -1, window.channels), 0, 2)
    np.add.at(image, windows(shape, window), parts)
    return image[:-1].reshape(shape)


def product(graph, op, env):
    """One product in the convention of its phase, from tensors in their own layout."""
    g, first, second = op.gemm, env[op.inputs[0]], env[op.inputs[1]]
    shape = graph.tensors[op.output].shape
    if op.phase is Phase.FF:
        left = im2col(first, op.window, g.groups) if op.window else first
        out = left.reshape(g.groups, g.m, g.k) @ second.reshape(g.groups, g.k, g.n)
        return np.moveaxis(out, 0, 1).reshape(shape) if op.window else out.reshape(shape)
    if op.phase is Phase.WU:
        assert (op.window_use is WindowUse.GATHER_K) == (op.window is not None)
        left = im2col(first, op.window, g.groups) if op.window else first
        left = left.reshape(g.groups, g.k, g.m)
        return (np.swapaxes(left, 1, 2) @ split(second, g.groups, g.n)).reshape(shape)
    if op.kind is OpKind.MATMUL:
        if op.name.endswith(".bp_0"):
            left, right = first, np.swapaxes(second, 1, 2)
        else:
            left, right = np.swapaxes(first, 1, 2), second
        return left.reshape(g.groups, g.m, g.k) @ right.reshape(g.groups, g.k, g.n)
    if graph.tensors[op.inputs[0]].parameter:  # SDGP: dX^T = W dY^T
        out = first.reshape(g.groups, g.m, g.k) @ second.reshape(g.groups, g.k, g.n)
        out = np.swapaxes(out, 1, 2)
    else:
        out = split(first, g.groups, g.k) @ second.reshape(g.groups, g.k, g.n)
    if op.window is None:
        return out.reshape(shape)
    assert op.window_use in (WindowUse.SCATTER, WindowUse.SCATTER_N)
    return col2im(out, op.window, shape)


def gelu_slope(x):
    """Derivative of x * sigmoid(1.702 x), the form of GELU used here."""
    s = 1 / (1 + np.exp(-1.702 * x))
    return s + 1.702 * x * s * (1 - s)


def halves(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c)


def spread(y):
    return y[:, :, None, :, None, :]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_hot(labels, classes):
    return np.eye(classes)[labels]


VECTOR = {
    "Add": lambda *xs: sum(xs),
    "MaxPool": lambda x: halves(x).max(axis=(2, 4)),
    "MaxPool.grad": lambda dy, x, y: (spread(dy) * (halves(x) == spread(y))).reshape(x.shape),
    "Gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "Gelu.grad": lambda dy, x: dy * gelu_slope(x),
    "Relu": lambda x: np.maximum(x, 0),
    "Relu.grad": lambda dy, y: dy * (y > 0),
    "Tanh": np.tanh,
    "Tanh.grad": lambda dy, y: dy * (1 - y * y),
    "Mul": lambda a, b: a * b,
    "Mul.grad": lambda dy, other: dy * other,
    "Softmax": softmax,
    "Softmax.grad": lambda dy, y: y * (dy - (dy * y).sum(axis=-1, keepdims=True)),
    "SoftmaxCrossEntropy": lambda x, labels: softmax(x) - one_hot(labels, x.shape[-1]),
}


def selected(graph, op, x):
    """Top N of M in the layout of the output, which may be the input's transpose."""
    spec = graph.tensors[op.output]
    if not op.inputs[0].endswith(".next"):  # the output gradient, read as (n, m)
        groups = spec.shape[0] if len(spec.shape) == 3 else 1
        x = np.swapaxes(split(x, groups, spec.shape[-2]), 1, 2)
    elif op.name.endswith("_bp"):
        x = np.swapaxes(x, -1, -2)
    x = x.reshape(spec.shape)
    return np.where(prune(x, spec.sparsity), x, 0)


def execute(graph, env, optimizer):
    """Run every operator in order; returns all tensors."""
    env = {name: value.astype(np.float64) for name, value in graph.values.items()} | env
    for op in graph.ops:
        inputs = [env[name] for name in op.inputs]
        if op.gemm:
            y = product(graph, op, env)
        elif op.kind is OpKind.UPDATE:
            grad, master, momentum = inputs
            momentum = optimizer.momentum * momentum + grad + optimizer.weight_decay * master
            y = master - optimizer.learning_rate * momentum
        elif op.kind is OpKind.SELECT:
            y = selected(graph, op, inputs[0])
        elif op.kind is OpKind.RESHAPE:
            y = inputs[0].reshape(graph.tensors[op.output].shape)
        else:
            fused = any(entry.endswith(".grad") for entry in op.post)
            y = VECTOR[op.source](*(inputs[:-1] if fused else inputs))
        for entry in op.post:  # a gradient fused behind its maker reads the saved output, last
            y = VECTOR[entry](y, inputs[-1]) if entry.endswith(".grad") else VECTOR[entry](y)
        assert y.shape == graph.tensors[op.output].shape, op.name
        env[op.output] = y
    return env


# ---------------------------------------------------------------------------------------------
# The network itself, written without im2col: one shifted product for each kernel position.


def convolve(x, weight, window, groups):
    top, left, bottom, right = window.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    x = x.reshape(*x.shape[:3], groups, window.channels)
    taps = weight.reshape(groups, *window.kernel, window.channels, -1)
    (height, width), (down, across) = window.out, window.stride
    total = 0
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            y, z = i * window.dilation[0], j * window.dilation[1]
            part = x[:, y : y + down * height : down, z : z + across * width : across]
            total = total + np.einsum("bhwgc,gcn->bhwgn", part[:, :height, :width], taps[:, i, j])
    return total.reshape(*total.shape[:3], -1)


def loss_of(graph, weights, env, labels):
    """Summed softmax cross-entropy of an inference graph."""
    env = dict(env)
    for op in graph.ops:
        inputs = [env.get(name, weights.get(name)) for name in op.inputs]
        if op.window:
            y = convolve(*inputs, op.window, op.gemm.groups)
        elif op.gemm:
            y = inputs[0] @ inputs[1]
        elif op.kind is OpKind.RESHAPE:
            y = inputs[0].reshape(graph.tensors[op.output].shape)
        else:
            y = VECTOR[op.source](*inputs)
        for entry in op.post:
            y = VECTOR[entry](y)
        env[op.output] = y
    logits = env[graph.ops[-1].output]
    top = logits.max(axis=-1)
    log_sum = np.log(np.exp(logits - top[..., None]).sum(axis=-1)) + top
    return float((log_sum - (logits * one_hot(labels, logits.shape[-1])).sum(axis=-1)).sum())


def slope(graph, weights, name, direction, env, labels, step=1e-5):
    """Derivative of the loss along a direction in one weight, by central differences."""
    ahead = {**weights, name: weights[name] + step * direction}
    behind = {**weights, name: weights[name] - step * direction}
    return (loss_of(graph, ahead, env, labels) - loss_of(graph, behind, env, labels)) / (2 * step)


# ---------------------------------------------------------------------------------------------
# Networks


def image_net(post="Relu"):
    """Stride, groups, depthwise, pointwise, a residual, pooling, `post` and GELU."""
    net = GraphBuilder()
    x = net.tensor("x", (2, 8, 8, 3))
    x = net.conv("first", x, 4, 3, post=(post,))
    x = net.conv("strided", x, 6, 3, stride=2, post=(post,))
    y = net.conv("depthwise", x, 6, 3, groups=6, post=(post,))
    y = net.conv("pointwise", y, 6, 1, post=(post,))  # its gradient is shared with the residual
    x = net.add("add", y, x, post=(post,))
    x = net.conv("grouped", x, 8, 3, groups=2, post=(post,))
    x = net.conv("even", x, 8, 2, stride=2)
    x = net.flatten("flatten", net.halve("pool", x))
    x = net.linear("hidden", x, 6, post=("Gelu",))
    net.linear("last", x, 5)
    return net.build("image-net")


def attention_net():
    """Products of activations, softmax, a gate, and one tensor with three readers."""
    net = GraphBuilder()
    x = net.linear("embed", net.tensor("x", (2, 4, 5)), 6, post=("Relu",))
    q, v = net.linear("q", x, 4), net.linear("v", x, 6)
    scores = net.matmul("scores", q, net.linear("k", net.tensor("c", (2, 4, 3)), 4))
    weights = net.vector("softmax", OpKind.SOFTMAX, (scores,), "Softmax", passes=3)
    y = net.add("add", net.matmul("context", weights, v), x)
    gate = net.linear("gate", x, 6)
    y = net.vector("gated", OpKind.ELEMENTWISE, (y, gate), "Mul")
    net.linear("out", y, 3)
    return net.build("attention-net")


def valued(graph, seed=0):
    """The graph with normal weights, and data for its inputs, labels and momentum."""
    rng = np.random.default_rng(seed)
    parameters = [s for s in graph.tensors.values() if s.parameter]
    values = {s.name: (rng.normal(size=s.shape) / 2).astype(np.float32) for s in parameters}
    made = {op.output for op in graph.ops}
    inputs = [s for s in graph.tensors.values() if not s.parameter and s.name not in made]
    env = {s.name: rng.normal(size=s.shape) for s in inputs}
    momentum = {f"{s.name}.momentum": rng.normal(size=s.shape) for s in parameters}
    logits = graph.tensors[graph.ops[-1].output].shape
    labels = rng.integers(logits[-1], size=logits[:-1])
    return replace(graph, values=values), env, momentum, labels


NETS = {
    "image": image_net,
    # Pruned weights make pre-activations exactly zero, where ReLU has no derivative to compare.
    "smooth-image": lambda: image_net("Tanh"),
    "attention": attention_net,
}


@pytest.mark.parametrize(
    ("net", "method", "sparsity"),
    [
        ("image", "dense", None),
        ("attention", "dense", None),
        # Gradients at the pruned weights, those of pruned entries included.
        ("smooth-image", "sr-ste", NofM(2, 4)),
        ("attention", "sr-ste", NofM(2, 4)),
        # Every group keeps all, so that the selected gradient is the exact one.
        ("image", "sdgp", NofM(2, 2)),
        ("attention", "sdgp", NofM(2, 2)),
        ("image", "bdwp", NofM(4, 4)),
    ],
)
def test_training_step_executed_equals_derivatives_of_the_loss(net, method, sparsity):
    graph, env, momentum, labels = valued(NETS[net]())
    step = graph.training(method, sparsity=sparsity)
    found = execute(step, {**env, **momentum, "labels": labels}, SGD())
    weights = {
        name: step.values[name].astype(np.float64)
        for name, s in graph.tensors.items()
        if s.parameter
    }
    rng = np.random.default_rng(1)
    for name, weight in weights.items():
        gradient = found[f"{name}.grad"]
        assert gradient.shape == weight.shape
        directions = [rng.normal(size=weight.shape)]
        for flat in rng.choice(weight.size, size=min(12, weight.size), replace=False):
            directions.append(np.zeros(weight.shape))
            directions[-1].flat[flat] = 1
        for direction in directions:
            expected = slope(graph, weights, name, direction, env, labels)
            assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_sdgp_compressed_products_are_those_under_test():
    """The executed SDGP step has BP in its transposed form, convolutions included."""
    step = valued(image_net())[0].training("sdgp", sparsity=NofM(2, 2))
    transposed = [
        op.name for op in step.ops if op.phase is Phase.BP and op.inputs[0] in step.values
    ]
    assert {"strided.bp", "grouped.bp", "pointwise.bp", "last.bp"} <= set(transposed)


def mlp(*widths):
    net = GraphBuilder()
    x = net.tensor("x", (5, widths[0]))
    for i, width in enumerate(widths[1:]):
        x = net.linear(f"fc{i}", x, width)
    return net.build("mlp")


def test_bdwp_step_multiplies_back_by_weights_pruned_along_n():
    graph, env, momentum, labels = valued(mlp(8, 8, 8, 4))
    step = graph.training("bdwp", sparsity=NofM(1, 4))
    found = execute(step, {**env, **momentum, "labels": labels}, SGD())
    w = graph.values["fc2.weight"].astype(np.float64)
    along_k, along_n = (w * prune(w, NofM(1, 4), axis) for axis in (-2, -1))
    assert not np.array_equal(along_k, along_n)
    logits = found["fc1.out"] @ along_k
    dy = softmax(logits) - one_hot(labels, 4)
    assert np.allclose(found["fc1.out.grad"], dy @ along_n.T, rtol=1e-12)
    assert np.allclose(found["fc2.weight.grad"], found["fc1.out"].T @ dy, rtol=1e-12)


def test_sdgp_step_multiplies_back_the_largest_gradients_along_n():
    graph, env, momentum, labels = valued(mlp(8, 8, 8, 4))
    step = graph.training("sdgp", sparsity=NofM(1, 4))
    found = execute(step, {**env, **momentum, "labels": labels}, SGD())
    w = graph.values["fc2.weight"].astype(np.float64)
    dy = softmax(found["fc1.out"] @ w) - one_hot(labels, 4)
    kept = dy * prune(dy, NofM(1, 4), -1)
    assert np.allclose(found["fc1.out.grad"], kept @ w.T, rtol=1e-12)
    assert np.allclose(found["fc2.weight.grad"], found["fc1.out"].T @ dy, rtol=1e-12)


def test_update_starts_from_dense_weights_and_selects_for_the_next_step():
    sgd = SGD(learning_rate=0.5, momentum=0.25, weight_decay=0.125)
    graph, env, momentum, labels = valued(mlp(8, 8, 8))
    step = graph.training("bdwp", sparsity=NofM(1, 4), optimizer=sgd)
    found = execute(step, {**env, **momentum, "labels": labels}, sgd)
    w = graph.values["fc1.weight"].astype(np.float64)
    decayed = found["fc1.weight.grad"] + 0.125 * w
    new = w - 0.5 * (0.25 * momentum["fc1.weight.momentum"] + decayed)
    assert np.allclose(found["fc1.weight.next"], new, rtol=1e-12)
    kept = found["fc1.weight.next"]
    assert np.array_equal(found["fc1.weight.next.ff"], kept * prune(kept, NofM(1, 4), -2))
    assert np.array_equal(found["fc1.weight.next.bp"], (kept * prune(kept, NofM(1, 4), -1)).T)


def test_weight_read_twice_gets_the_sum_of_both_gradients():
    net = GraphBuilder()
    x = net.linear("a", net.tensor("x", (3, 4)), 4)
    graph = mlp_tied(net, x)
    graph, env, momentum, labels = valued(graph)
    step = graph.training("dense")
    found = execute(step, {**env, **momentum, "labels": labels}, SGD())
    weights = {name: value.astype(np.float64) for name, value in graph.values.items()}
    direction = np.random.default_rng(2).normal(size=(4, 4))
    expected = slope(graph, weights, "tied", direction, env, labels)
    assert (found["tied.grad"] * direction).sum() == pytest.approx(expected, rel=1e-6)
    assert [op.name for op in step.ops if "tied.grad" in op.output] == [
        "c.wu",
        "b.wu",
        "b.sum_wu",
    ]
    assert [op.name for op in step.ops if "tied.grad" in op.inputs] == ["b.update"]


def mlp_tied(net, x):
    """Two layers behind `x` that share one weight."""
    y = net.linear("b", x, 4)
    net.linear("c", y, 4)
    ops = [replace(op, inputs=(op.inputs[0], "tied")) if op.name in "bc" else op for op in net.ops]
    tied = replace(net.tensors["b.weight"], name="tied", sparsity=Dense())
    tensors = {n: s for n, s in net.tensors.items() if n not in ("b.weight", "c.weight")}
    return replace(net.build("tied"), ops=tuple(ops), tensors={**tensors, "tied": tied})
