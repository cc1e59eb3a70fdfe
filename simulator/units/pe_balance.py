"""Static order of output features over the PEGrid's columns."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from simulator.arch.pe_grid import Balance, PEGrid
from simulator.units.pe_chunks import PackedMask

__all__ = ["column_order"]


def column_order(grid: PEGrid, weight: PackedMask) -> NDArray[np.int64]:
    """Return the order in which features take columns, int64[n]: feature order[j] is j-th.

    `greedy` takes the heaviest feature that is left next, so a tile holds features of similar
    count and few PEs wait for a heavy one. No order is better where a tile takes the time of its
    heaviest column: weights alone are skipped and the FIFOs hold a whole tile. Ties keep order.
    """
    match grid.balance:
        case Balance.NONE:
            return np.arange(weight.lanes)
        case Balance.GREEDY:
            return np.argsort(-weight.lane_counts, kind="stable")
        case _:
            assert_never(grid.balance)
