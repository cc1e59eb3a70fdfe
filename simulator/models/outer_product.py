"""Time of a product on OuterProduct: condensed pairs of vectors, the port, the accumulators."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.outer_product import OuterProduct
from simulator.models.product import Operand, Product, Work, edges, least_packed
from workloads.sparsity import Balanced, ConstantFanIn, NofM

__all__ = ["pair_cycles", "work"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tiles:
    """One operand cut into tiles of some vectors each; tile i occurs counts[i] times.

    shares, float64[g, tiles, units, k, 0 to steps], says how likely each vector's non-zeros fill
    that many steps of lanes; g and k are 1 where all groups and positions are alike.
    """

    shares: Floats
    counts: NDArray[np.int64]


def work(arch: OuterProduct, product: Product) -> Work:
    """Return what the units do for `product`: the slowest of products, port and accumulators.

    With masks the pairs of vectors have their true counts; without, their expected ones. The
    units of a tile share its operands and end it together.
    """
    g, bits = product.gemm, arch.operand_bits
    tile_m, tile_n = arch.units_m * arch.vector, arch.units_n * arch.vector
    act = least_packed(product.act.positions, product.act.nonzeros, bits)
    weight = least_packed(product.weight.positions, product.weight.nonzeros, bits)
    acts_in, weights_in = act.times(-(-g.n // tile_n)), weight.times(-(-g.m // tile_m))
    multiply = _multiply_cycles(arch, product)
    port = -(-(acts_in.bits + weights_in.bits) // (8 * arch.port_bytes_per_cycle))
    pairs, outputs = product.pairs, product.outputs
    accumulate = -(-(pairs + outputs) // (arch.units * arch.accumulations_per_cycle))
    return Work(
        cycles=max(multiply, port, accumulate),
        busy=multiply,
        macs=pairs,
        act=act.times(product.act.in_memory),
        weight=weight.times(product.weight.in_memory),
        counts={
            **acts_in.events("act_buffer", "read"),
            **weights_in.events("weight_buffer", "read"),
            ("mac", arch.precision.value, "full"): pairs,
            ("out_buffer", "read", "full"): arch.acc_bits * pairs,
            ("out_buffer", "write", "full"): arch.acc_bits * pairs,
        },
        detail={"dataflow": "os", "nm": "both condensed", "tile": f"{tile_m}x{tile_n}"},
    )


def _steps(arch: OuterProduct, nonzeros: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the steps that so many non-zeros fill; both sides' lanes are whole steps."""
    return -(-nonzeros // math.gcd(arch.lanes_narrow, arch.lanes_wide))


def pair_cycles(arch: OuterProduct) -> Floats:
    """Return float64[a, b], the cycles of a pair of vectors that fill a and b steps of lanes."""
    step = math.gcd(arch.lanes_narrow, arch.lanes_wide)
    steps = np.arange(-(-arch.vector // step) + 1)
    narrow, wide = (-(-steps // (n // step)) for n in (arch.lanes_narrow, arch.lanes_wide))
    fixed = np.multiply.outer(narrow, wide)
    swapped = np.multiply.outer(wide, narrow)
    return (np.minimum(fixed, swapped) if arch.swap_sides else fixed).astype(np.float64)


def _multiply_cycles(arch: OuterProduct, product: Product) -> int:
    g = product.gemm
    acts = _tiles(arch, product.act, g.m, arch.units_m)
    weights = _tiles(arch, product.weight, g.n, arch.units_n)
    left, right = acts.shares @ pair_cycles(arch), weights.shares
    if left.shape[3] != right.shape[3] or left.shape[3] == 1:
        # One operand is alike at every position: only the sum over the other's matters.
        same = g.k if left.shape[3] == right.shape[3] else 1
        left, right = left.sum(axis=3, keepdims=True), same * right.sum(axis=3, keepdims=True)
    rows = left.reshape(len(left), -1, left.shape[3] * left.shape[4])
    columns = right.reshape(len(right), -1, rows.shape[2])
    pairs = rows @ columns.transpose(0, 2, 1)
    shape = (-1, len(acts.counts), arch.units_m, len(weights.counts), arch.units_n)
    tiles = pairs.reshape(shape).max(axis=(2, 4))
    once = float((tiles * np.multiply.outer(acts.counts, weights.counts)).sum())
    # Sums of expectations carry rounding errors far below a millionth of a cycle.
    return math.ceil(round(once * (g.groups // len(tiles)), 6))


def _tiles(arch: OuterProduct, operand: Operand, vectors: int, units: int) -> _Tiles:
    """Cut the `vectors` of an operand into tiles of a vector for each of `units`."""
    if operand.mask is not None:
        return _counted(arch, operand.mask, units)
    kinds = edges(vectors, units * arch.vector)
    shares = np.zeros((1, len(kinds), units, 1, len(pair_cycles(arch))))
    for tile, (extent, _) in enumerate(kinds):
        lengths = [length for length, count in edges(extent, arch.vector) for _ in range(count)]
        for unit, length in enumerate(lengths):
            steps = _steps(arch, np.arange(length + 1))
            np.add.at(shares[0, tile, unit, 0], steps, _likely(operand, length))
    return _Tiles(shares=shares, counts=np.array([count for _, count in kinds]))


def _counted(arch: OuterProduct, mask: NDArray[np.bool_], units: int) -> _Tiles:
    groups, vectors, k = mask.shape
    tiles = -(-vectors // (units * arch.vector))
    padded = np.zeros((groups, tiles * units * arch.vector, k), dtype=np.bool_)
    padded[:, :vectors] = mask
    nonzeros = padded.reshape(groups, tiles, units, arch.vector, k).sum(axis=3)
    steps = np.arange(len(pair_cycles(arch)))
    shares = (_steps(arch, nonzeros)[..., None] == steps).astype(np.float64)
    return _Tiles(shares=shares, counts=np.ones(tiles, dtype=np.int64))


def _likely(operand: Operand, length: int) -> Floats:
    """Return float64[length + 1], how likely `length` neighbours have each number of non-zeros.

    Structures along the reduction choose for each vector anew: binomial. Otherwise a fixed number
    lies anywhere in the tensor: hypergeometric.
    """
    kept, size = operand.nonzeros, operand.positions
    lost = size - kept
    if isinstance(operand.sparsity, NofM | Balanced | ConstantFanIn):
        ways = size**length
        terms = [math.comb(length, x) * kept**x * lost ** (length - x) for x in range(length + 1)]
    else:
        ways = math.comb(size, length)
        terms = [math.comb(kept, x) * math.comb(lost, length - x) for x in range(length + 1)]
    return np.array([term / ways for term in terms])
