"""Static order of output features over the PEGrid's columns."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from simulator.arch.pe_grid import Balance, PEGrid
from simulator.units.pe_chunks import PackedMask

__all__ = ["column_order", "feature_order"]


def feature_order(balance: Balance, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order in which features of so many non-zeros take columns, int64[..., n].

    `greedy` takes the heaviest feature that is left next, so a tile holds features of similar
    count and few PEs wait for a heavy one. No order is better where a tile takes the time of its
    heaviest column: weights alone are skipped and the FIFOs hold a whole tile. Ties keep order.
    """
    match balance:
        case Balance.NONE:
            return np.broadcast_to(np.arange(counts.shape[-1]), counts.shape)
        case Balance.GREEDY:
            return np.argsort(-counts, axis=-1, kind="stable")
        case _:
            assert_never(balance)


def column_order(grid: PEGrid, weight: PackedMask) -> NDArray[np.int64]:
    """Return the order in which features take columns, int64[n]: feature order[j] is j-th."""
    return feature_order(grid.balance, weight.lane_counts)
