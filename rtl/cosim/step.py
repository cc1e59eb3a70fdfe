"""A training step in numpy, every rounding in the machine's order, and its tensors in memory.

Operands are fp16, sums fp32 in the order in which the array's results leave it, tile after tile;
updates, selections and the loss go through the models of their units.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtl.machine.layout import ProductLayout
from rtl.machine.program import MachineProgram, Region
from rtl.machine.vector import exponential_table, reciprocal_table
from simulator.arch import Dataflow, NMArray
from simulator.arch.nm_job import fold_rows
from simulator.arch.sore import SoreJob, SoreParams
from simulator.arch.wuve import WuveJob
from simulator.functional import im2col, product
from simulator.plan import GemmPlan
from simulator.schedule import Schedule
from simulator.units.float32 import add, bits16, canonical16, multiply, narrow, widen
from simulator.units.sore import select
from simulator.units.wuve import WuveBeats, update
from workloads.graph import Op, OpKind, Phase, WindowUse, WorkloadGraph
from workloads.sparsity import NofM
from workloads.training import SGD

__all__ = ["memory_image", "read_weights", "run_step", "tensor_bits"]

Half = NDArray[np.float16]
Single = NDArray[np.float32]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


def _kept(sparsity: NofM) -> tuple[int, int]:
    """Return (N, M) of a selection; training plans have one N for all features."""
    assert isinstance(sparsity.n, int)
    return sparsity.n, sparsity.m


def _pairs(weight: Half, sparsity: NofM, role: str) -> tuple[Half, NDArray[np.uint8]]:
    """Return the kept pairs of a (k, n) weight in their order in memory."""
    n, m = _kept(sparsity)
    values = weight if role == "ff" else np.ascontiguousarray(weight.T)
    params = SoreParams(lanes=values.shape[1], max_n=n, max_m=m)
    job = SoreJob(params=params, kept=n, group=m, length=len(values))
    value, index = select(job, values)
    order = (0, 2, 1) if role == "ff" else (2, 0, 1)

    def placed(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array.reshape(-1, n, values.shape[1]).transpose(order)).ravel()

    return placed(value), placed(index)


def _dense(weight: Half, sparsity: NofM, role: str) -> Half:
    """Return what a product makes of the pairs: the (reduction, column) weight, others zero."""
    n, m = _kept(sparsity)
    value, index = _pairs(weight, sparsity, role)
    k, across = weight.shape if role == "ff" else weight.shape[::-1]
    shape = (k // m, across, n) if role == "ff" else (across, k // m, n)
    value, index = value.reshape(shape), index.reshape(shape).astype(np.int64)
    if role == "bp":
        value, index = value.swapaxes(0, 1), index.swapaxes(0, 1)
    out = np.zeros((k // m, across, m), np.float16)
    np.put_along_axis(out, index, value, axis=2)
    return np.ascontiguousarray(out.swapaxes(1, 2)).reshape(k, across)


class _Order:
    """The places (row, column) of a job's results, in the order in which they leave the array."""

    def __init__(self, arch: NMArray, flow: Dataflow, m: int, n: int, folds: int) -> None:
        rows, cols, sums = arch.rows, arch.cols, arch.interleave
        if flow is Dataflow.OS:
            mt, nt, i, up = np.ix_(
                *(np.arange(s) for s in (-(-m // fold_rows(arch)), -(-n // cols), sums, rows))
            )
            row, col, fold = mt * fold_rows(arch) + i * rows + rows - 1 - up, nt * cols, 0 * mt
        elif flow is Dataflow.WS:
            nt, fold, row = np.ix_(*(np.arange(s) for s in (-(-n // cols), folds, m)))
            col = nt * cols
        else:
            mt, fold, col = np.ix_(*(np.arange(s) for s in (-(-m // cols), folds, n)))
            row = mt * cols
        lane = np.arange(cols)
        row, col, fold = (a[..., None] for a in np.broadcast_arrays(row, col, fold))
        row, col = (
            (row + lane, col + 0 * lane) if flow is Dataflow.IS else (row + 0 * lane, col + lane)
        )
        there = (row < m) & (col < n)
        self.row, self.col = row[there], col[there]
        self.fold = np.broadcast_to(fold, there.shape)[there]


def _accumulate(total: Single, at: Ints, terms: Single) -> None:
    """Add terms to total[at] one after the other, in order, wherever they meet."""
    order = np.argsort(at, kind="stable")
    placed = at[order]
    starts = np.flatnonzero(np.r_[True, placed[1:] != placed[:-1]])
    rank = np.arange(placed.size) - np.repeat(starts, np.diff(np.r_[starts, placed.size]))
    for turn in range(int(rank.max(initial=-1)) + 1):
        now = order[rank == turn]
        total[at[now]] = add(total[at[now]], terms[now])


def _gemm(arch: NMArray, plan: GemmPlan, op: Op, act: Half, weight: Half) -> Single:
    """Return the fp32 results [m, n], or image elements, of a product as planned."""
    layout = ProductLayout(plan, op.phase is Phase.WU, op.phase is Phase.BP, arch.operand_bits)
    window = plan.window if plan.window_use is WindowUse.SCATTER else None
    place = _scattered(window) if window else None
    size = window.batch * window.image[0] * window.image[1] * window.channels if window else 0
    total = np.zeros(size or plan.gemm.m * plan.gemm.n, np.float32)
    for tile in layout.visits(3):
        m0 = tile["u"][0] * layout.unit_m + tile["m"][0]
        m = tile["u"][1] * tile["m"][1]
        (k0, k), (n0, n) = tile["k"], tile["n"]
        s = plan.setting
        depth = k if s.dataflow is Dataflow.OS else arch.rows * s.group
        cuts = range(k0, k0 + k, depth)
        parts = np.stack(
            [
                product(
                    arch,
                    s,
                    act[m0 : m0 + m, i : min(i + depth, k0 + k)],
                    weight[i : min(i + depth, k0 + k), n0 : n0 + n],
                )
                for i in cuts
            ]
        )
        order = _Order(arch, s.dataflow, m, n, len(cuts))
        terms = parts[order.fold, order.row, order.col]
        row, col = order.row + m0, order.col + n0
        if place is None:
            _accumulate(total, row * plan.gemm.n + col, terms)
        else:
            at = place[row, col]
            inside = at >= 0
            _accumulate(total, at[inside], terms[inside])
    return total


def _scattered(window: Any) -> Ints:
    """Return the image element that each (pixel, tap) adds to, -1 outside: int64[m, taps]."""
    shape = (window.batch, *window.image, window.channels)
    numbered = np.arange(1, np.prod(shape) + 1, dtype=np.int64).reshape(shape)
    return im2col(window, numbered) - 1


def _loss(logits: Half, labels: NDArray[np.uint32]) -> Half:
    """Return softmax(logits) less one at the labels, as the vector unit rounds it."""
    shift = np.uint16(15 - int(exponential_table().size).bit_length() + 1)

    def looked_up(table: NDArray[np.uint16], x: Half) -> Half:
        return table[(bits16(x) & np.uint16(0x7FFF)) >> shift].view(np.float16)

    largest = logits.max(axis=1, keepdims=True)
    distance = narrow(add(widen(np.broadcast_to(largest, logits.shape)), -widen(logits)))
    exponentials = looked_up(exponential_table(), distance)
    total = np.zeros(len(logits), np.float32)
    for column in widen(exponentials).T:
        total = add(total, column)
    inverse = looked_up(reciprocal_table(), narrow(total))
    probability = multiply(exponentials, inverse[:, None])
    hit = np.arange(logits.shape[1]) == labels[:, None]
    return narrow(np.where(hit, add(probability, np.full_like(probability, -1)), probability))


def _gate(gradient: Half, saved: Half) -> Half:
    return np.where(saved.reshape(gradient.shape) > 0, gradient, np.float16(0))


class _Runner:
    def __init__(
        self, schedule: Schedule, graph: WorkloadGraph, arch: NMArray, optimizer: SGD
    ) -> None:
        self.graph, self.arch, self.optimizer = graph, arch, optimizer
        self.plans = {op.name: op.plan for op in schedule.ops}
        self.forward = {op.name: op for op in graph.ops if op.phase is Phase.FF}

    def weight_of(self, op: Op) -> str:
        """Return the weight that a forward or input-gradient product multiplies by."""
        return self.forward[f"{op.name.rpartition('.')[0]}.ff"].inputs[1]

    def run(self, op: Op, values: dict[str, Any]) -> None:
        """Add what `op` makes to the values."""
        if op.gemm:
            values[op.output] = self._product(op, values)
        elif op.kind is OpKind.RESHAPE:
            values[op.output] = values[op.inputs[0]].reshape(self.graph.tensors[op.output].shape)
        elif op.kind is OpKind.UPDATE:
            self._update(op, values)
        elif op.kind is OpKind.SELECT:
            self._select(op, values)
        elif op.source == "SoftmaxCrossEntropy":
            values[op.output] = _loss(*(values[name] for name in op.inputs))
        elif op.source == "Relu.grad":
            values[op.output] = _gate(*(values[name] for name in op.inputs))
        else:
            raise ValueError(f"Op {op.name!r} ({op.source}) has no numeric model")

    def _product(self, op: Op, values: dict[str, Any]) -> Half:
        plan = self.plans[op.name]
        assert isinstance(plan, GemmPlan)
        assert op.gemm is not None
        act = values[op.inputs[0]]
        if plan.window and plan.window_use is not WindowUse.SCATTER:
            act = im2col(plan.window, act)
        else:
            columns = op.gemm.m if op.phase is Phase.WU else op.gemm.k
            act = act.reshape(-1, columns)
        if op.phase is Phase.WU:
            act = np.ascontiguousarray(act.T)
            weight = values[op.inputs[1]].reshape(-1, op.gemm.n)
        else:
            weight = self._weight(op, values)
        sums = _gemm(self.arch, plan, op, act, weight)
        result = narrow(sums).reshape(self.graph.tensors[op.output].shape)
        if op.post == ("Relu",):
            result = np.where(np.signbit(result), np.float16(0), result)
        if op.post == ("Relu.grad",):
            result = _gate(result, values[op.inputs[2]])
        return canonical16(result)

    def _weight(self, op: Op, values: dict[str, Any]) -> Half:
        dense = narrow(values[f"{self.weight_of(op)}.master"])
        sparsity = self.graph.tensors[op.inputs[1]].sparsity
        role = "ff" if op.phase is Phase.FF else "bp"
        if isinstance(sparsity, NofM):
            return _dense(dense, sparsity, role)
        return dense if role == "ff" else np.ascontiguousarray(dense.T)

    def _update(self, op: Op, values: dict[str, Any]) -> None:
        assert self.arch.training is not None
        gradient, master, momentum = op.inputs
        job = WuveJob(
            params=replace(self.arch.training.wuve, lanes=1),
            learning_rate=self.optimizer.learning_rate,
            momentum=self.optimizer.momentum,
            weight_decay=self.optimizer.weight_decay,
            beats=1,
        )
        beats = WuveBeats(
            weight=values[master],
            velocity=values[momentum],
            gradient=values[gradient].reshape(values[master].shape),
        )
        results = update(job, beats)
        values |= {f"{master}!": results.weight, f"{momentum}!": results.velocity}
        values[f"{op.output}:dense"] = results.copy

    def _select(self, op: Op, values: dict[str, Any]) -> None:
        source, out = op.inputs[0], self.graph.tensors[op.output]
        role = "bp" if out.dims[-1] != self.graph.tensors[source].dims[-1] else "ff"
        dense = values[f"{source}:dense"]
        assert isinstance(out.sparsity, NofM)
        values[f"{source}:{role}"] = _pairs(dense, out.sparsity, role)


def run_step(
    schedule: Schedule,
    graph: WorkloadGraph,
    arch: NMArray,
    before: Mapping[str, Any],
    *,
    optimizer: SGD | None = None,
) -> dict[str, Any]:
    """Return every tensor after the step, updated state under its own name.

    `before`: fp16 inputs, uint32 labels, fp32 master weights and momenta by name. Weights that
    products read are the master weights' fp16 copies, selected as their tensors say.
    """
    runner = _Runner(schedule, graph, arch, optimizer or SGD())
    values = dict(before)
    for op in graph.ops:
        runner.run(op, values)
    for name in [name for name in values if name.endswith("!")]:
        values[name[:-1]] = values.pop(name)
    return values


def read_weights(graph: WorkloadGraph, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the copies of the weights that products may read, by region name."""
    found: dict[str, Any] = {}
    for op in graph.ops:
        if op.phase not in (Phase.FF, Phase.BP) or op.gemm is None:
            continue
        forward = next(o for o in graph.ops if o.name == f"{op.name.rpartition('.')[0]}.ff")
        weight, role = forward.inputs[1], "ff" if op.phase is Phase.FF else "bp"
        dense = narrow(before[f"{weight}.master"])
        found[f"{weight}:dense"] = dense
        sparsity = graph.tensors[op.inputs[1]].sparsity
        if isinstance(sparsity, NofM):
            found[f"{weight}:{role}"] = _pairs(dense, sparsity, role)
    return found


def tensor_bits(region: Region, value: Any) -> NDArray[np.uint8]:
    """Return a tensor's bits, lowest first, uint8[bits]."""
    if region.layout == "dense":
        raw = np.ascontiguousarray(value).view(np.uint8)
        return np.unpackbits(raw.ravel(), bitorder="little")
    kept, index = value
    width = 16 + (region.group - 1).bit_length()
    words = kept.view(np.uint16).astype(np.uint32) | (index.astype(np.uint32) << 16)
    unpacked = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.ascontiguousarray(unpacked[:, :width]).ravel()


def memory_image(program: MachineProgram, values: Mapping[str, Any], beat_bits: int) -> Words:
    """Return memory with the given tensors in their regions and zeros elsewhere, uint64[beats]."""
    bits = np.zeros(program.beats * beat_bits, np.uint8)
    for name, region in program.regions.items():
        if name in values:
            found = tensor_bits(region, values[name])
            start = region.beat * beat_bits
            bits[start : start + found.size] = found
    return np.packbits(bits, bitorder="little").view(np.uint64)
