"""StationaryArray: a dense array that keeps a tile of one operand and streams the other."""

from dataclasses import dataclass

from simulator.arch.model_only import ModelOnly, check_stationary
from simulator.arch.nm_array import Dataflow

__all__ = ["StationaryArray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StationaryArray(ModelOnly):
    """Parameters of `rows` positions of the reduction by `cols` vectors of the operand that stays.

    A fold loads min(k, rows) rows, streams the other operand and leaves through `cols` columns.
    `dataflow` binds the stationary operand (ws: weights, is: activations); otherwise the faster
    one stays. Zeros are multiplied like other values.
    """

    rows: int
    cols: int
    dataflow: Dataflow | None = None

    def __post_init__(self) -> None:
        self.check_at_least_one("rows", "cols")
        check_stationary(type(self).__name__, self.dataflow)

    @property
    def peak_macs_per_cycle(self) -> int:
        """Products of one cycle."""
        return self.rows * self.cols
