"""OuterProduct: dual-side sparse tensor cores (DSTC, ISCA 2021) that condense operand vectors."""

from dataclasses import dataclass

from simulator.arch.model_only import ModelOnly

__all__ = ["OuterProduct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterProduct(ModelOnly):
    """Parameters of `units_m` x `units_n` units, each with a `vector` x `vector` tile of sums.

    For every position of the reduction a unit drops the zeros of one vector of activations and
    one of weights and multiplies what is left, `lanes_narrow` by `lanes_wide` products a cycle.
    Activations use the narrow side; with `swap_sides` each pair takes the faster assignment.

    Units side by side share a vector, so the operands of one tile pass the port once; both travel
    compressed with one bit a position. Each unit's accumulation buffer takes
    `accumulations_per_cycle` sums a cycle: one for every product of two non-zeros and one for
    every sum that leaves, which the next tile hides.
    """

    units_m: int
    units_n: int
    vector: int
    lanes_narrow: int
    lanes_wide: int
    swap_sides: bool
    accumulations_per_cycle: int
    port_bytes_per_cycle: int

    def __post_init__(self) -> None:
        self.check_at_least_one("units_m", "units_n", "vector", "lanes_narrow", "lanes_wide")
        self.check_at_least_one("accumulations_per_cycle", "port_bytes_per_cycle")

    @property
    def units(self) -> int:
        """Number of units."""
        return self.units_m * self.units_n

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products of one cycle."""
        return self.units * self.lanes_narrow * self.lanes_wide
