"""WorkloadGraph: what to compute, independent of any machine.

GEMM convention everywhere: `out[g, m, n] = sum_k act[g, m, k] * weight[g, k, n]`, where g counts
independent products (convolution groups, attention heads times batch), m tokens or output
pixels, k the reduction and n output features. Weight tensors are stored as (k, n), or (g, k, n)
when g > 1; a convolution's k is flattened (kh, kw, cin) with cin fastest.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workloads.canonical import Spec, digest
from workloads.sparsity import Dense, Sparsity

if TYPE_CHECKING:
    import networkx as nx

    from workloads.training import SGD, Method

__all__ = [
    "Gemm",
    "Op",
    "OpKind",
    "Phase",
    "TensorSpec",
    "Window",
    "WindowUse",
    "WorkloadGraph",
]


class OpKind(StrEnum):
    """The operator as its source names it; the first four carry a `Gemm`."""

    CONV = "conv"
    DEPTHWISE = "depthwise"
    GEMM = "gemm"
    MATMUL = "matmul"
    ELEMENTWISE = "elementwise"
    NORM = "norm"
    SOFTMAX = "softmax"
    POOL = "pool"
    MOVE = "move"  # transposes, concatenations, gathers: bytes move, nothing is computed
    RESHAPE = "reshape"  # views: free
    OPAQUE = "opaque"  # known by name only: counted and reported, never simulated
    UPDATE = "update"  # the optimiser's step on one parameter
    SELECT = "select"  # the N largest of every M along one axis of one tensor


class Phase(StrEnum):
    """The part of a training step an operator belongs to; inference has no phases."""

    INFER = ""
    FF = "ff"  # forward
    BP = "bp"  # gradients of activations, the loss included
    WU = "wu"  # gradients of weights
    UPDATE = "update"  # new weights
    SELECT = "select"  # N:M selection of what later products read compressed


class WindowUse(StrEnum):
    """What a sliding window does for its product."""

    GATHER_M = "gather_m"  # rows of the product are image windows: a forward convolution
    GATHER_K = "gather_k"  # the reduction runs over image windows: a weight gradient
    SCATTER = "scatter"  # the product's windows are added into the image: an input gradient
    SCATTER_N = "scatter_n"  # the same of a transposed product, whose columns are windows (SDGP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm(Spec):
    """A batch of `groups` products of (m, k) by (k, n)."""

    groups: int = 1
    m: int
    k: int
    n: int

    def __post_init__(self) -> None:
        for name in ("groups", "m", "k", "n"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"GEMM {name} must be a whole number from 1 up, not {value!r}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense product."""
        return self.groups * self.m * self.k * self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Spec):
    """The sliding window of a convolution: where im2col rows come from in (batch, h, w, c)."""

    batch: int
    image: tuple[int, int]
    channels: int  # of one group
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)

    @property
    def out(self) -> tuple[int, int]:
        """Output height and width."""
        top, left, bottom, right = self.padding
        height = self.image[0] + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1
        width = self.image[1] + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1
        return height // self.stride[0] + 1, width // self.stride[1] + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec(Spec):
    """A named tensor: dimension names, shape, element width and sparsity structure."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    bits: int = 8
    signed: bool = True
    parameter: bool = False  # a weight or constant: known before the run
    sparsity: Sparsity = field(default_factory=Dense)

    def __post_init__(self) -> None:
        if len(self.dims) != len(self.shape):
            raise ValueError(
                f"Tensor {self.name!r} has {len(self.dims)} dims but shape {self.shape}"
            )
        if self.bits < 1:
            raise ValueError(f"Tensor {self.name!r}: bits must be at least 1, not {self.bits}")
        if any(size < 1 for size in self.shape):
            raise ValueError(
                f"Tensor {self.name!r}: every size must be at least 1, not {self.shape}"
            )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op(Spec):
    """One operator. GEMM-like operators take (activation, weight, ...) as their inputs."""

    name: str
    kind: OpKind
    inputs: tuple[str, ...]
    output: str
    gemm: Gemm | None = None
    window: Window | None = None
    post: tuple[str, ...] = ()  # element-wise work fused on the output path, e.g. ("Relu",)
    passes: int = 1  # times a vector operator reads its input (softmax 3, layer norm 2, ...)
    source: str = ""  # operator type in the source model, e.g. "Conv"
    repeat: int = 1  # executions in one run of the graph
    phase: Phase = Phase.INFER
    window_use: WindowUse = WindowUse.GATHER_M

    def __post_init__(self) -> None:
        gemm_like = self.kind in (OpKind.CONV, OpKind.DEPTHWISE, OpKind.GEMM, OpKind.MATMUL)
        if gemm_like != (self.gemm is not None):
            raise ValueError(f"Op {self.name!r}: kind {self.kind} and gemm {self.gemm} disagree")
        if gemm_like and len(self.inputs) < 2:
            raise ValueError(f"Op {self.name!r}: a {self.kind} needs an activation and a weight")
        if self.repeat < 1 or self.passes < 1:
            raise ValueError(f"Op {self.name!r}: repeat and passes must be at least 1")
        if self.window is None and self.window_use is not WindowUse.GATHER_M:
            raise ValueError(f"Op {self.name!r}: window_use {self.window_use} needs a window")

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of all executions; 0 for operators without a GEMM."""
        return self.gemm.macs * self.repeat if self.gemm else 0

    @property
    def iteration_space(self) -> dict[str, int]:
        """Loop bounds by index name."""
        return (
            {}
            if self.gemm is None
            else {k: getattr(self.gemm, k) for k in ("groups", "m", "k", "n")}
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkloadGraph(Spec):
    """Operators in a deterministic topological order, their tensors and known values.

    `values` maps parameter tensors to float32 arrays in the tensor's own layout; shape-only
    workloads have none. `notes` are sentences for the reader of a result, such as layers kept
    dense and why. Two graphs are equal when their digests are.
    """

    name: str
    ops: tuple[Op, ...]
    tensors: Mapping[str, TensorSpec]
    values: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _digest: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", dict(self.tensors))
        object.__setattr__(self, "values", dict(self.values))
        self._verify()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkloadGraph) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return int(self.digest()[:15], 16)

    def _verify(self) -> None:
        produced: set[str] = set()
        names: set[str] = set()
        outputs = {op.output for op in self.ops}
        for op in self.ops:
            if op.name in names:
                raise ValueError(f"Workload {self.name!r}: two operators are named {op.name!r}")
            names.add(op.name)
            for tensor in (*op.inputs, op.output):
                if tensor not in self.tensors:
                    raise ValueError(f"Op {op.name!r} refers to an unknown tensor {tensor!r}")
            late = [t for t in op.inputs if t in outputs and t not in produced]
            if late:
                raise ValueError(f"Op {op.name!r} reads {late[0]!r} before it is produced")
            if op.output in produced:
                raise ValueError(f"Tensor {op.output!r} is produced twice, last by {op.name!r}")
            produced.add(op.output)
        for name, value in self.values.items():
            if name not in self.tensors or value.shape != self.tensors[name].shape:
                raise ValueError(f"Values of {name!r} have shape {value.shape}, unlike its tensor")

    @property
    def gemm_ops(self) -> Iterator[Op]:
        """Operators that carry a GEMM, in order."""
        return (op for op in self.ops if op.gemm is not None)

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of the whole graph."""
        return sum(op.macs for op in self.ops)

    @property
    def unsupported(self) -> dict[str, int]:
        """Count of each source operator type that is known by name only."""
        found: dict[str, int] = {}
        for op in self.ops:
            if op.kind is OpKind.OPAQUE:
                found[op.source] = found.get(op.source, 0) + 1
        return dict(sorted(found.items()))

    def digraph(self) -> "nx.DiGraph":
        """Return a networkx copy: operators as nodes (attribute `op`), tensors on the edges."""
        import networkx as nx

        graph: nx.DiGraph = nx.DiGraph(name=self.name)
        producer = {op.output: op.name for op in self.ops}
        for op in self.ops:
            graph.add_node(op.name, op=op)
            for tensor in op.inputs:
                if tensor in producer:
                    graph.add_edge(producer[tensor], op.name, tensor=tensor)
        return graph

    def sparsify(self, sparsity: Sparsity, *, first_layer: bool = False) -> "WorkloadGraph":
        """Return this graph with `sparsity` on its weights; see `workloads.pruning.sparsify`."""
        from workloads.pruning import sparsify

        return sparsify(self, sparsity, first_layer=first_layer)

    def training(
        self,
        method: "Method | str",
        *,
        sparsity: Sparsity | None = None,
        first_layer: bool = False,
        optimizer: "SGD | None" = None,
    ) -> "WorkloadGraph":
        """Return one training step of this graph; see `workloads.training.training`."""
        from workloads.training import training

        return training(
            self, method, sparsity=sparsity, first_layer=first_layer, optimizer=optimizer
        )

    def digest(self) -> str:
        """Return the sha256 of operators, tensors and values, taken once."""
        if self._digest is None:
            found = digest([self.name, self.ops, self.tensors, self.values])
            object.__setattr__(self, "_digest", found)
            return found
        return self._digest
