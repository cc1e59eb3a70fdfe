"""FlexDpe: one operand's non-zeros anywhere in the array, summed by trees (SIGMA, HPCA 2020)."""

from dataclasses import dataclass

from simulator.arch.model_only import ModelOnly, check_stationary
from simulator.arch.nm_array import Dataflow

__all__ = ["FlexDpe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexDpe(ModelOnly):
    """Parameters of `dpes` flexible dot-product engines of `dpe_size` multipliers each.

    Non-zeros of the stationary operand fill the array, `loads_per_cycle` a cycle, from one slice
    of `dpe_size` positions of the reduction at a time; a slice streams the other operand's
    vectors past them, one a cycle, once per array-full of non-zeros. Every array-full drains the
    adder tree over all multipliers once. `dataflow` binds the stationary operand (ws: weights,
    is: activations); otherwise the faster one stays.
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
