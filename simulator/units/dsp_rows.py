"""Placing the rows of a sparse weight matrix on chains: which slices hold what.

Rows are placed the largest N first, in order among equals, each within one chain; chains fill one
after another, tile by tile. A row's sum appears at the node after its last group of slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dsp_cells import CANDIDATES, KEPT, MpeParams

__all__ = ["RowPlan", "WeightSets", "place_rows", "weight_sets"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowPlan:
    """Where rows lie, all int64[rows]: chain (tile * vpus + vpu), first slice, node; -1 for N = 0.

    `kept` is N of each row, `tiles` how often all chains are filled.
    """

    params: MpeParams
    kept: Ints
    chain: Ints
    stage: Ints
    node: Ints

    @property
    def tiles(self) -> int:
        """Fillings of all chains."""
        return -(-(int(self.chain.max(initial=-1)) + 1) // self.params.vpus)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightSets:
    """Weight sets in order of loading.

    `value` int8 and `index` uint8, both [sets, mpus, vpus, stages]; `cut` bool[sets, vpus,
    groups]: a row ends with this group.
    """

    value: NDArray[np.int8]
    index: NDArray[np.uint8]
    cut: NDArray[np.bool_]


def place_rows(params: MpeParams, kept: Sequence[int]) -> RowPlan:
    """Return the places of rows with N = kept[i]; raises ValueError for an N not allowed."""
    chain_params = params.chain
    rows = np.asarray(kept, np.int64)
    chain, stage, node = (np.full(rows.size, -1) for _ in range(3))
    opened, free = 0, 0
    for n in sorted({int(n) for n in rows}, reverse=True):
        taken = chain_params.row_stages(n)
        if not taken:
            continue
        (which,) = np.nonzero(rows == n)
        fitting, per_chain = free // taken, chain_params.stages // taken
        order = np.arange(which.size)
        new, place = np.divmod(order - fitting, per_chain)
        old = order < fitting
        chain[which] = np.where(old, opened - 1, opened + new)
        stage[which] = np.where(old, chain_params.stages - free + order * taken, place * taken)
        node[which] = (stage[which] + taken) // chain_params.group - 1
        opened = int(chain[which[-1]]) + 1
        free = chain_params.stages - int(stage[which[-1]]) - taken
    return RowPlan(params=params, kept=rows, chain=chain, stage=stage, node=node)


def weight_sets(plan: RowPlan, weight: NDArray[np.int8]) -> WeightSets:
    """Return what the chains hold for weight int8[k, rows].

    Raises ValueError if a row has more non-zeros in a group of 16 than its N, or the shape is
    another.
    """
    if weight.ndim != 2 or weight.shape[1] != plan.kept.size:
        raise ValueError(f"Weight must be [k, {plan.kept.size}], not {list(weight.shape)}")
    groups = _groups(plan.params, weight)
    count = np.count_nonzero(groups, axis=2)
    if (count > plan.kept).any():
        group, row = (int(at) for at in np.argwhere(count > plan.kept)[0])
        raise ValueError(
            f"Row {row} keeps N = {plan.kept[row]} of {CANDIDATES} weights, but its group "
            f"{group} has {count[group, row]}"
        )
    return _sets(plan, groups, len(groups) // plan.params.mpus)


def _groups(params: MpeParams, weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return int8[groups, rows, 16], padded to whole passes: [g, :, i] is k = 16 g + i."""
    missing = -len(weight) % params.reduction
    padded = np.pad(weight, [(0, missing), (0, 0)])
    return padded.reshape(-1, CANDIDATES, weight.shape[1]).transpose(0, 2, 1)


def _sets(plan: RowPlan, groups: NDArray[np.int8], passes: int) -> WeightSets:
    params = plan.params
    shape = (plan.tiles, passes, params.mpus, params.vpus, params.chain.stages)
    value, index = np.zeros(shape, np.int8), np.zeros(shape, np.uint8)
    cut = np.zeros((plan.tiles, passes, params.vpus, params.chain.groups), np.bool_)
    # Non-zeros first, each kind in rising order: a stable sort on "is zero".
    order = np.argsort(groups == 0, axis=2, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=2)
    tile, vpu = np.divmod(plan.chain, params.vpus)
    for n in KEPT[1:]:
        (rows,) = np.nonzero(plan.kept == n)
        at = plan.stage[rows, None] + np.arange(n)
        for target, source in ((value, ordered), (index, order)):
            chosen = source[:, rows, :n].reshape(passes, params.mpus, rows.size, n)
            target[tile[rows, None], :, :, vpu[rows, None], at] = chosen.transpose(2, 3, 0, 1)
        cut[tile[rows], :, vpu[rows], plan.node[rows]] = True
    return WeightSets(
        value=value.reshape(-1, *shape[2:]),
        index=index.reshape(-1, *shape[2:]),
        cut=cut.reshape(-1, *cut.shape[2:]),
    )
