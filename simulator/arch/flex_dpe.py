"""FlexDpe: one operand's non-zeros anywhere in the array, summed by trees (SIGMA, HPCA 2020)."""

from dataclasses import dataclass

from simulator.arch.model_only import ModelOnly, check_stationary
from simulator.arch.nm_array import Dataflow, Precision

__all__ = ["MOST_RTL_MULTIPLIERS", "FlexDpe"]

MOST_RTL_MULTIPLIERS = 128
"""Multipliers of the largest array with RTL: as many as one Flex-DPE of SIGMA (HPCA 2020)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexDpe(ModelOnly):
    """Parameters of `dpes` flexible dot-product engines of `dpe_size` multipliers each.

    Non-zeros of the stationary operand fill the array, `loads_per_cycle` a cycle, from one slice
    of `dpe_size` positions of the reduction at a time; a slice streams the other operand's
    vectors past them, one a cycle, once per array-full of non-zeros. Every array-full drains the
    adder tree over all multipliers once. `dataflow` binds the stationary operand (ws: weights,
    is: activations); otherwise the faster one stays.

    The array has RTL if its numbers are powers of two, its operands int8 and its size moderate.
    """

    dpes: int
    dpe_size: int
    loads_per_cycle: int
    dataflow: Dataflow | None = None

    def __post_init__(self) -> None:
        self.check_at_least_one("dpes", "dpe_size", "loads_per_cycle")
        check_stationary(type(self).__name__, self.dataflow)

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products of one cycle."""
        return self.dpes * self.dpe_size

    @property
    def tree_depth(self) -> int:
        """Levels of the adder tree over all multipliers."""
        return (self.peak_macs_per_cycle - 1).bit_length()

    @property
    def latency(self) -> int:
        """Slots from a streamed vector's beat to that of its sums: a product, then the tree."""
        return 1 + self.tree_depth

    @property
    def route_distances(self) -> tuple[int, ...]:
        """Distance of the rows that each stage of an engine's distribution network exchanges.

        Two Benes networks in a row, of which the first also copies: see
        `simulator.units.flex_routes`.
        """
        up = [1 << bit for bit in range(self.dpe_size.bit_length() - 1)]
        wave = up + up[-2::-1]
        return tuple(wave + wave[1:])

    @property
    def without_rtl(self) -> str | None:
        """Why no RTL is generated; None if it is."""
        if self.precision is not Precision.INT8:
            return f"RTL of a FlexDpe needs precision int8, not {self.precision}"
        for name in ("dpes", "dpe_size", "loads_per_cycle"):
            number = getattr(self, name)
            if number & (number - 1):
                return f"RTL of a FlexDpe needs a power of two as {name}, not {number}"
        if max(self.peak_macs_per_cycle, self.loads_per_cycle) > MOST_RTL_MULTIPLIERS:
            return (
                f"RTL of a FlexDpe has at most {MOST_RTL_MULTIPLIERS} multipliers, "
                f"not {self.peak_macs_per_cycle}"
            )
        if self.loads_per_cycle > self.peak_macs_per_cycle:
            return (
                f"RTL of a FlexDpe needs loads_per_cycle of at most its "
                f"{self.peak_macs_per_cycle} multipliers, not {self.loads_per_cycle}"
            )
        return None
