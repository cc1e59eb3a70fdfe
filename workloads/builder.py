"""GraphBuilder: append operators by shape and get a verified WorkloadGraph.

Shape-only workloads (zoo, single GEMMs, SCALE-Sim topologies) are written with it. A method
appends one operator, names its output after it and returns that tensor's name. Biases and folded
batch norms are left out: they are the accumulator's start value, not work.
"""

import math

from workloads.graph import Gemm, Op, OpKind, TensorSpec, Window, WorkloadGraph

__all__ = ["GraphBuilder", "conv_gemm", "feature_map"]

DIMS = {1: ("n",), 2: ("b", "d"), 3: ("b", "t", "d"), 4: ("b", "h", "w", "c")}


def feature_map(batch: int, size: int, channels: int) -> tuple[int, int, int, int]:
    """Return the (b, h, w, c) shape of a square feature map."""
    return batch, size, size, channels


def conv_gemm(window: Window, groups: int, features: int) -> Gemm:
    """Return the im2col product of a convolution with `features` outputs over all groups.

    m counts output pixels of the whole batch, k is (kh, kw, cin of one group).
    """
    if min(window.out) < 1:
        raise ValueError(
            f"A {window.kernel[0]}x{window.kernel[1]} kernel does not fit its padded "
            f"{window.image[0]}x{window.image[1]} input"
        )
    return Gemm(
        groups=groups,
        m=window.batch * math.prod(window.out),
        k=math.prod(window.kernel) * window.channels,
        n=features // groups,
    )


class GraphBuilder:
    """Operators and tensors gathered so far; `repeat` and `prefix` apply to what follows."""

    def __init__(self, *, prefix: str = "", repeat: int = 1) -> None:
        """Start empty; `prefix` goes before operator and activation names, not parameters."""
        self.ops: list[Op] = []
        self.tensors: dict[str, TensorSpec] = {}
        self.notes: list[str] = []
        self.prefix = prefix
        self.repeat = repeat

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor added before."""
        return self.tensors[tensor].shape

    def tensor(self, name: str, shape: tuple[int, ...], *, dims: tuple[str, ...] = ()) -> str:
        """Add an activation (a graph input until some operator produces it)."""
        name = self.prefix + name
        self.tensors[name] = TensorSpec(name=name, dims=dims or DIMS[len(shape)], shape=shape)
        return name

    def parameter(self, name: str, gemm: Gemm) -> str:
        """Add the (k, n) or (g, k, n) weight of a product once; later uses share it."""
        shape = (gemm.k, gemm.n) if gemm.groups == 1 else (gemm.groups, gemm.k, gemm.n)
        dims = ("g", "k", "n")[-len(shape) :]
        if name not in self.tensors:
            self.tensors[name] = TensorSpec(name=name, dims=dims, shape=shape, parameter=True)
        return name

    def _append(
        self, name: str, kind: OpKind, inputs: tuple[str, ...], output: str, **kw: object
    ) -> str:
        self.ops.append(
            Op(
                name=self.prefix + name,
                kind=kind,
                inputs=inputs,
                output=output,
                repeat=self.repeat,
                **kw,  # type: ignore[arg-type]
            )
        )
        return output

    def conv(
        self,
        name: str,
        x: str,
        features: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        post: tuple[str, ...] = (),
    ) -> str:
        """Append a square convolution with `kernel // 2` padding; cin = groups is depthwise."""
        batch, height, width, channels = self.shape(x)
        window = Window(
            batch=batch,
            image=(height, width),
            channels=channels // groups,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=(kernel // 2,) * 4 if kernel % 2 else (0, 0, 0, 0),
        )
        gemm = conv_gemm(window, groups, features)
        weight = self.parameter(f"{name}.weight", gemm)
        output = self.tensor(f"{name}.out", (batch, *window.out, features))
        depthwise = groups == channels and groups > 1
        kind = OpKind.DEPTHWISE if depthwise else OpKind.CONV
        return self._append(
            name, kind, (x, weight), output, gemm=gemm, window=window, post=post, source="Conv"
        )

    def linear(self, name: str, x: str, features: int, *, post: tuple[str, ...] = ()) -> str:
        """Append a product with a parameter over the last axis of `x`."""
        *rows, k = self.shape(x)
        gemm = Gemm(m=math.prod(rows), k=k, n=features)
        weight = self.parameter(f"{name}.weight", gemm)
        output = self.tensor(f"{name}.out", (*rows, features))
        return self._append(
            name, OpKind.GEMM, (x, weight), output, gemm=gemm, post=post, source="Linear"
        )

    def matmul(self, name: str, x: str, y: str) -> str:
        """Append (g, m, k) by (g, k, n) of two activations."""
        (groups, m, k), (_, _, n) = self.shape(x), self.shape(y)
        gemm = Gemm(groups=groups, m=m, k=k, n=n)
        output = self.tensor(f"{name}.out", (groups, m, n), dims=("g", "m", "n"))
        return self._append(name, OpKind.MATMUL, (x, y), output, gemm=gemm, source="MatMul")

    def vector(
        self,
        name: str,
        kind: OpKind,
        inputs: tuple[str, ...],
        source: str,
        *,
        shape: tuple[int, ...] = (),
        dims: tuple[str, ...] = (),
        passes: int = 1,
        post: tuple[str, ...] = (),
    ) -> str:
        """Append an operator without a product; its output is shaped like the first input."""
        first = self.tensors[inputs[0]]
        output = self.tensor(
            f"{name}.out", shape or first.shape, dims=dims or (() if shape else first.dims)
        )
        return self._append(name, kind, inputs, output, passes=passes, post=post, source=source)

    def add(self, name: str, x: str, y: str, *, post: tuple[str, ...] = ()) -> str:
        """Append a residual addition."""
        return self.vector(name, OpKind.ELEMENTWISE, (x, y), "Add", post=post)

    def halve(self, name: str, x: str) -> str:
        """Append a 2x2 max pooling of stride 2."""
        size = self.shape(x)[1]
        if size < 2:
            raise ValueError(
                f"Pooling {name} halves a {size}x{size} feature map: use a larger image"
            )
        return self.pool(name, x, size // 2)

    def pool(
        self, name: str, x: str, size: int, source: str = "MaxPool", *, passes: int = 1
    ) -> str:
        """Append a pooling to `size` by `size`; overlapping windows read their input again."""
        batch, _, _, channels = self.shape(x)
        shape = feature_map(batch, size, channels)
        return self.vector(name, OpKind.POOL, (x,), source, shape=shape, passes=passes)

    def flatten(self, name: str, x: str) -> str:
        """Append a view of (b, ...) as (b, d)."""
        batch, *rest = self.shape(x)
        return self.vector(name, OpKind.RESHAPE, (x,), "Flatten", shape=(batch, math.prod(rest)))

    def build(self, name: str) -> WorkloadGraph:
        """Return the graph, verified."""
        return WorkloadGraph(
            name=name, ops=tuple(self.ops), tensors=self.tensors, notes=tuple(self.notes)
        )
