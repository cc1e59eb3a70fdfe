"""Time of a product on FlexDpe: only counts of non-zeros matter, so no mask is needed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.nm_array import Dataflow
from simulator.models.product import Operand, Packed, Product, Work, least_packed
from workloads.graph import Gemm

__all__ = ["work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slices:
    """`count` slices of the reduction, `depth` deep, with `nonzeros` stationary values each."""

    depth: int
    nonzeros: int
    count: int


def work(arch: FlexDpe, product: Product) -> Work:
    """Return what the engines do for `product`, the faster operand stationary (ties: weights).

    Cycles are those of loading every stationary non-zero, of streaming each slice's vectors once
    per array-full of its non-zeros, and of draining the tree once per array-full of all.
    """
    flows = [arch.dataflow] if arch.dataflow else [Dataflow.WS, Dataflow.IS]
    return min((_stationary(arch, product, flow) for flow in flows), key=lambda w: w.cycles)


def _stationary(arch: FlexDpe, product: Product, flow: Dataflow) -> Work:
    g, pes, bits = product.gemm, arch.peak_macs_per_cycle, arch.operand_bits
    if flow is Dataflow.WS:
        still, moving, streams, names = product.weight, product.act, g.m, ("weight", "act")
    else:
        still, moving, streams, names = product.act, product.weight, g.n, ("act", "weight")
    slices = list(_slices(still, g, arch.dpe_size))
    passes = sum(-(-s.nonzeros // pes) * s.count for s in slices)
    load = -(-still.nonzeros // arch.loads_per_cycle)
    drain = arch.tree_depth * -(-still.nonzeros // pes)
    streamed = streams * sum(-(-s.nonzeros // pes) * s.count * s.depth for s in slices)
    stationary = least_packed(still.positions, still.nonzeros, bits)
    stream = least_packed(streamed, -int(-streamed * moving.density // 1), bits)
    slots, pairs = streams * still.nonzeros, product.pairs
    sums = product.outputs * -(-g.k // arch.dpe_size)
    return Work(
        cycles=load + streams * passes + drain,
        busy=streams * passes,
        macs=pairs,
        act=_in_memory(product.act, bits),
        weight=_in_memory(product.weight, bits),
        counts={
            **stationary.events(f"{names[0]}_buffer", "read"),
            **stream.events(f"{names[1]}_buffer", "read"),
            ("mac", arch.precision.value, "full"): pairs,
            ("mac", arch.precision.value, "gated"): slots - pairs,
            ("out_buffer", "read", "full"): arch.acc_bits * (sums - product.outputs),
            ("out_buffer", "write", "full"): arch.acc_bits * sums,
        },
        detail={
            "dataflow": flow.value,
            "nm": f"density {float(still.density):.3g}",
            "tile": f"{sum(s.count for s in slices)} slices, {passes} passes",
        },
    )


def _in_memory(operand: Operand, bits: int) -> Packed:
    packed = least_packed(operand.positions, operand.nonzeros, bits)
    return packed.times(operand.in_memory)


def _slices(still: Operand, g: Gemm, depth: int) -> Iterator[_Slices]:
    """Yield the slices of all groups: as masked, else as even as whole non-zeros allow."""
    if still.mask is not None:
        columns = still.mask.sum(axis=1, dtype=np.int64)
        counts = np.add.reduceat(columns, np.arange(0, g.k, depth), axis=1)
        full = g.k // depth
        for part, deep in ((counts[:, :full], depth), (counts[:, full:], g.k % depth)):
            for nonzeros, times in zip(*np.unique(part, return_counts=True), strict=True):
                yield _Slices(depth=deep, nonzeros=int(nonzeros), count=int(times))
        return
    count, rest = g.groups * (g.k // depth), g.k % depth
    ragged = round(still.density * (still.positions // g.k * rest))
    yield from _even(still.nonzeros - ragged, depth, count)
    yield from _even(ragged, rest, g.groups if rest else 0)


def _even(nonzeros: int, depth: int, count: int) -> Iterator[_Slices]:
    if count:
        each, more = divmod(nonzeros, count)
        yield _Slices(depth=depth, nonzeros=each + 1, count=more)
        yield _Slices(depth=depth, nonzeros=each, count=count - more)
