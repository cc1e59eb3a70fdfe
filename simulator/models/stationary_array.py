"""Time of a product on a StationaryArray: folds one after the other."""

from simulator.arch.nm_array import Dataflow
from simulator.arch.stationary_array import StationaryArray
from simulator.models.product import Packed, Product, Work, ignored

__all__ = ["work"]


def work(arch: StationaryArray, product: Product) -> Work:
    """Return what the array does for `product`, the faster operand stationary (ties: weights).

    A fold takes min(k, rows) + cols + streamed vectors cycles, ragged or not.
    """
    flows = [arch.dataflow] if arch.dataflow else [Dataflow.WS, Dataflow.IS]
    return min((_stationary(arch, product, flow) for flow in flows), key=lambda w: w.cycles)


def _stationary(arch: StationaryArray, product: Product, flow: Dataflow) -> Work:
    g, bits = product.gemm, arch.operand_bits
    weights_stay = flow is Dataflow.WS
    stays, streams = (g.n, g.m) if weights_stay else (g.m, g.n)
    deep, wide = -(-g.k // arch.rows), -(-stays // arch.cols)
    folds = g.groups * deep * wide
    still, moving = ("weight", "act") if weights_stay else ("act", "weight")
    return Work(
        cycles=folds * (min(g.k, arch.rows) + arch.cols + streams),
        busy=folds * streams,
        macs=product.weight_pairs,
        act=Packed(value_bits=bits * product.act.stored),
        weight=Packed(value_bits=bits * product.weight.stored),
        counts={
            (f"{still}_buffer", "read", "full"): bits * g.groups * stays * g.k,
            (f"{moving}_buffer", "read", "full"): bits * g.groups * streams * g.k * wide,
            ("mac", arch.precision.value, "full"): g.macs,
            ("out_buffer", "read", "full"): arch.acc_bits * product.outputs * (deep - 1),
            ("out_buffer", "write", "full"): arch.acc_bits * product.outputs * deep,
        },
        detail={"dataflow": flow.value, "nm": "dense", "tile": f"{arch.rows}x{arch.cols}"},
        ignored=ignored(product.weight, "weights", "multiplies zeros like other values")
        + ignored(product.act, "activations", "multiplies zeros like other values"),
    )
