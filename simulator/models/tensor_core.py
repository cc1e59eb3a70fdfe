"""Time of a product on a TensorCore: its multipliers or its port, whichever takes longer."""

from simulator.arch.tensor_core import TensorCore
from simulator.models.product import Packed, Product, Work, edges, ignored, least_packed

__all__ = ["work"]


def work(arch: TensorCore, product: Product) -> Work:
    """Return what the core does for `product`.

    A tile of r x c sums takes ceil(r * c / multipliers) cycles for every position of the
    reduction that the quota keeps; each operand passes the port once for every tile it enters.
    """
    g = product.gemm
    quota = arch.quota(product.weight.sparsity, g.k)
    kept = _kept(g.k, *quota) if quota else g.k
    act, weight = _act(arch, product), _weight(arch, product, kept)
    tiles_m, tiles_n = -(-g.m // arch.tile_m), -(-g.n // arch.tile_n)
    acts_in, weights_in = act.times(tiles_n), weight.times(tiles_m)
    multiply = g.groups * kept * _tile_cycles(arch, g.m, g.n)
    port = -(-(acts_in.bits + weights_in.bits) // (8 * arch.port_bytes_per_cycle))
    slots = g.groups * g.m * g.n * kept
    macs = product.pairs if arch.compress_activations else product.weight_pairs
    return Work(
        cycles=max(multiply, port),
        busy=multiply,
        macs=macs,
        act=act.times(product.act.in_memory),
        weight=weight.times(product.weight.in_memory),
        counts={
            **acts_in.events("act_buffer", "read"),
            **weights_in.events("weight_buffer", "read"),
            ("mac", arch.precision.value, "full"): macs,
            ("mac", arch.precision.value, "gated"): slots - macs,
            ("out_buffer", "write", "full"): arch.acc_bits * product.outputs,
        },
        detail={
            "dataflow": "os",
            "nm": f"{quota[0]}:{quota[1]}" if quota else "dense",
            "tile": f"{arch.tile_m}x{arch.tile_n}",
        },
        ignored=_ignored(arch, product, quota is None),
    )


def _ignored(arch: TensorCore, product: Product, dense: bool) -> tuple[str, ...]:
    weights = ignored(product.weight, "weights", f"skips only {arch.skips}") if dense else ()
    if arch.compress_activations:
        return weights
    return weights + ignored(product.act, "activations", "takes them uncompressed")


def _kept(k: int, n: int, m: int) -> int:
    """Return the positions of a reduction of k that N:M data occupies."""
    return k // m * n + min(n, k % m)


def _tile_cycles(arch: TensorCore, m: int, n: int) -> int:
    """Return the cycles of one position of the reduction over all tiles of m x n sums."""
    return sum(
        -(-rows * cols // arch.peak_macs_per_cycle) * count_m * count_n
        for rows, count_m in edges(m, arch.tile_m)
        for cols, count_n in edges(n, arch.tile_n)
    )


def _act(arch: TensorCore, product: Product) -> Packed:
    act = product.act
    values = act.nonzeros if arch.compress_activations else act.positions
    return least_packed(act.positions, values, arch.operand_bits)


def _weight(arch: TensorCore, product: Product, kept: int) -> Packed:
    g = product.gemm
    columns = g.groups * g.n
    return least_packed(columns * g.k, columns * kept, arch.operand_bits)
