"""Exact cycles of a machine that moves as one: a max-plus recurrence without a cycle loop.

A machine with one global `advance` performs its slots in order. Slot s happens in cycle

    t(s) = max(t(s-1) + 1 + e(s), t(p(s)) + 1 + d(s), t(q(s)) + 1 + d'(s))

where e is how long the sink leaves a presented result beat waiting, p and q are the previous
slots that took a beat from either operand stream, and d, d' how long after that acceptance the
next beat is offered; a term without a beat is absent and t(-1) = -1. With E(s) the running sum
of e and u(s) = t(s) - s - E(s), both operand terms turn into increments

    w(s) = d(s) - (s - p(s) - 1) - (E(s) - E(p(s)))

that matter only where positive. So u is constant between those few stalled beats, and over them
it is a product of 3 x 3 max-plus matrices, taken as a parallel prefix in logarithmic depth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Flow", "Passage", "pass_slots"]

NEVER = -(1 << 60)
"""Minus infinity of the max-plus algebra; far below any cycle, far above int64 overflow."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """Beats of one stream: `slots` int64[beats], rising, and `delays` int64[beats] in cycles.

    An operand beat is offered `delays` cycles after the cycle that follows the acceptance of the
    previous one; a result beat is accepted `delays` cycles after it becomes visible.
    """

    slots: Ints
    delays: Ints

    def __post_init__(self) -> None:
        if self.slots.shape != self.delays.shape:
            raise ValueError(
                f"A flow needs one delay for each of its {self.slots.size} beats, "
                f"not {self.delays.size}"
            )
        if self.delays.size and self.delays.min() < 0:
            raise ValueError(f"Delays must be at least 0 cycles, not {self.delays.min()}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passage:
    """Cycles of every slot, operand acceptance and result acceptance, and stalls by slot.

    `held_*` int64[slots] are the cycles the machine held before a slot, each charged to one
    cause: a refused result first, then a missing side operand, then a missing top operand.
    """

    cycle: Ints
    side: Ints
    top: Ints
    out: Ints
    held_out: Ints
    held_side: Ints
    held_top: Ints


def _at(values: Ints, slots: Ints, before: int) -> Ints:
    """Return values[slots], with `before` standing at slot -1."""
    extended: Ints = np.concatenate([[before], values])
    return extended[slots + 1]


def _previous(slots: Ints) -> Ints:
    shifted: Ints = np.concatenate([[-1], slots])[:-1]
    return shifted


def _increments(flow: Flow, waited: Ints) -> Ints:
    previous = _previous(flow.slots)
    elapsed = flow.slots - previous - 1
    refused: Ints = _at(waited, flow.slots, 0) - _at(waited, previous, 0)
    return flow.delays - elapsed - refused


def _compose(later: Ints, earlier: Ints) -> Ints:
    """Return the max-plus products later[i] (x) earlier[i] of int64[k, 3, 3] stacks."""
    product: Ints = (later[:, :, :, None] + earlier[:, None, :, :]).max(axis=2)
    return np.maximum(product, NEVER)


def _prefix(maps: Ints) -> Ints:
    """Return the running max-plus products of int64[k, 3, 3] by doubling."""
    step = 1
    while step < len(maps):
        maps = np.concatenate([maps[:step], _compose(maps[step:], maps[:-step])])
        step *= 2
    return maps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """One stream seen from the event slots.

    `weight` is its increment there (NEVER where none); `fresh` whether its previous beat lies at
    or after the previous event, so that it saw the current u; `takes` whether the event takes a
    beat of it.
    """

    weight: Ints
    fresh: NDArray[np.bool_]
    takes: NDArray[np.bool_]


def _view(flow: Flow, gain: Ints, events: Ints) -> _View:
    position = np.searchsorted(flow.slots, events)
    takes = np.isin(events, flow.slots)
    weight = np.full(events.shape, NEVER, np.int64)
    weight[takes] = np.where(gain[position[takes]] > 0, gain[position[takes]], NEVER)
    last = np.concatenate([[-1], flow.slots])[position]
    return _View(weight=weight, fresh=last >= _previous(events), takes=takes)


def _maps(side: _View, top: _View) -> Ints:
    """Return the max-plus maps int64[k, 3, 3] of the state (u, u at last side, u at last top)."""
    maps = np.full((side.weight.size, 3, 3), NEVER, np.int64)
    maps[:, 0, 0] = 0
    for row, view in enumerate((side, top), start=1):
        maps[:, 0, 0] = np.maximum(maps[:, 0, 0], np.where(view.fresh, view.weight, NEVER))
        maps[:, 0, row] = np.where(view.fresh, NEVER, view.weight)
    for row, view in enumerate((side, top), start=1):
        maps[:, row, 0] = np.where(view.fresh, 0, NEVER)
        maps[:, row, row] = np.where(view.fresh, NEVER, 0)
        maps[view.takes, row] = maps[view.takes, 0]
    return maps


def _excess(slots: int, side: Flow, top: Flow, waited: Ints) -> Ints:
    """Return u(s), int64[slots]: cycles lost to missing operands up to each slot."""
    gain_side, gain_top = _increments(side, waited), _increments(top, waited)
    events = np.union1d(side.slots[gain_side > 0], top.slots[gain_top > 0])
    if not events.size:
        return np.zeros(slots, np.int64)
    # The state before the first event is all zero, so a map's row maximum is the state itself.
    maps = _maps(_view(side, gain_side, events), _view(top, gain_top, events))
    state = _prefix(maps)[:, 0, :].max(axis=1)
    return np.concatenate([[0], state])[np.searchsorted(events, np.arange(slots), side="right")]


def pass_slots(slots: int, side: Flow, top: Flow, out: Flow) -> Passage:
    """Return the exact cycles of `slots` slots under the given beats and delays.

    Cycle 0 is the first cycle in which slot 0 can happen. Raises ValueError for a beat outside
    the slots.
    """
    for flow in (side, top, out):
        if flow.slots.size and not 0 <= flow.slots[0] <= flow.slots[-1] < slots:
            raise ValueError(f"Beats must lie in slots 0 to {slots - 1}, not {flow.slots[-1]}")
    refusal = np.zeros(slots, np.int64)
    refusal[out.slots] = out.delays
    waited = np.cumsum(refusal)
    cycle = np.arange(slots) + waited + _excess(slots, side, top, waited)
    return _passage(cycle, side, top, out, refusal)


def _passage(cycle: Ints, side: Flow, top: Flow, out: Flow, refusal: Ints) -> Passage:
    base = _at(cycle, np.arange(-1, cycle.size - 1), -1) + 1
    free = base + refusal
    offered = np.stack([base, base])
    for row, flow in enumerate((side, top)):
        offered[row, flow.slots] = _at(cycle, _previous(flow.slots), -1) + 1 + flow.delays
    with_side = np.maximum(free, offered[0])
    return Passage(
        cycle=cycle,
        side=cycle[side.slots],
        top=cycle[top.slots],
        out=free[out.slots],
        held_out=refusal,
        held_side=with_side - free,
        held_top=np.maximum(with_side, offered[1]) - with_side,
    )
