"""TensorCore: multipliers behind one shared-memory port, with an N:M quota on the weights."""

import math
from dataclasses import dataclass

from simulator.arch.model_only import ModelOnly
from workloads.sparsity import Balanced, ConstantFanIn, NofM, Sparsity

__all__ = ["TensorCore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCore(ModelOnly):
    """Parameters of a sparse tensor core as Sparseloop describes it (MICRO 2022).

    `cores` of `macs_per_core` multipliers keep a tile of `tile_m` x `tile_n` sums in registers
    and take one position of the reduction after the other. Operands come through one port: while
    all multipliers work on dense operands it delivers `act_bytes_per_cycle` of activations and
    `weight_bytes_per_cycle` of weights, each reused by the other's side of the tile.

    Weights of N non-zeros in every M positions take N/M of the products: `kept` of every `max_m`
    is the one quota of the machine, and without `kept` any N:M up to `max_m` is. Compressed
    operands carry one bit a position. `compress_activations` makes activations travel compressed;
    their zeros save bytes, never products.
    """

    cores: int
    macs_per_core: int
    act_bytes_per_cycle: int
    weight_bytes_per_cycle: int
    port_bytes_per_cycle: int
    max_m: int
    kept: int | None = None
    compress_activations: bool = False

    def __post_init__(self) -> None:
        self.check_at_least_one("cores", "macs_per_core", "act_bytes_per_cycle")
        self.check_at_least_one("weight_bytes_per_cycle", "port_bytes_per_cycle", "max_m")
        if self.kept is not None and not 1 <= self.kept <= self.max_m:
            raise ValueError(f"TensorCore kept must be 1 to max_m = {self.max_m}, not {self.kept}")
        for side in ("act", "weight"):
            rate = getattr(self, f"{side}_bytes_per_cycle")
            if self.peak_macs_per_cycle * self.operand_bits % (8 * rate):
                raise ValueError(
                    f"TensorCore {side}_bytes_per_cycle must share the "
                    f"{self.peak_macs_per_cycle} multipliers evenly, not {rate}"
                )

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products of one cycle."""
        return self.cores * self.macs_per_core

    @property
    def tile_m(self) -> int:
        """Rows of the tile of sums: the products that share one weight."""
        return self.peak_macs_per_cycle * self.operand_bits // (8 * self.weight_bytes_per_cycle)

    @property
    def tile_n(self) -> int:
        """Columns of the tile of sums: the products that share one activation."""
        return self.peak_macs_per_cycle * self.operand_bits // (8 * self.act_bytes_per_cycle)

    @property
    def skips(self) -> str:
        """The weights that save time, for sentences."""
        if self.kept is None:
            return f"N:M weights with M up to {self.max_m}"
        return f"weights that fit {self.kept}:{self.max_m}"

    def quota(self, weights: Sparsity, k: int) -> tuple[int, int] | None:
        """Return the (N, M) at which `weights` run along a reduction of `k`; None if dense.

        A machine with one quota runs whatever fits it at that quota. Weights of several N run at
        the largest, since the features of a tile advance together.
        """
        found = _quota(weights, k)
        if found is None:
            return None
        if self.kept is None:
            return found if found[1] <= self.max_m else None
        return (self.kept, self.max_m) if _most(found, self.max_m) <= self.kept else None


def _quota(weights: Sparsity, k: int) -> tuple[int, int] | None:
    match weights:
        case NofM(n=n, m=m, axis=None | -2):
            return n if isinstance(n, int) else max(n), m
        case Balanced(as_nofm=NofM(n=int(n), m=m)):
            return n, m
        case ConstantFanIn(k=fan_in):
            return min(fan_in, k), k
    return None


def _most(quota: tuple[int, int], window: int) -> int:
    """Return the most non-zeros of any aligned `window` positions of N:M data."""
    n, m = quota
    return max(
        sum(
            min(n, min(start + window, group + m) - max(start, group))
            for group in range(start // m * m, start + window, m)
        )
        for start in range(0, math.lcm(window, m), window)
    )
