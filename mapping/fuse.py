"""Chains of operators whose tensors in between stay on chip: which, and at what cost.

The space is that of `mapping.space` for every operator, times the choice, for every tensor that
only the next operator reads, of leaving it in the activation buffer: as a whole, beside what both
operators need there. Its producer then does not store it and its consumer does not load it.
Operators still run one after the other, so the cost of a graph is a sum, and the best choice along
a row of operators is found by dynamic programming over its cuts. Values cannot change: the producer
rounds the same results on the same output path, and the consumer reads the same bits from the same
buffer in the same order. Only the way through memory is left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mapping.objective import Number
from workloads.graph import Op, OpKind, Phase, WorkloadGraph

__all__ = ["Keeping", "Kept", "Row", "best_keeping", "check_inference", "rows"]

APART = (OpKind.MOVE, OpKind.OPAQUE)
"""Operators that read parts of tensors, or are known by name only: nothing is kept for them."""

Cost = Callable[[int, bool, bool], Number | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """Which of its inputs an operator finds on chip, and whether it leaves its result there."""

    input: int | None = None
    output: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Operators that run one after the other; all but the first may find an input on chip."""

    ops: tuple[Op, ...]
    inputs: tuple[int, ...]  # of all but the first: which of its inputs

    def kept(self, index: int, before: bool, behind: bool) -> Kept:
        """Return what operator `index` finds and leaves, by the tensors that are kept."""
        return Kept(self.inputs[index - 1] if before else None, behind)

    def chains(self, kept: Sequence[bool]) -> Iterator[tuple[str, ...]]:
        """Yield the names of operators whose tensors in between are kept."""
        chain = [self.ops[0].name]
        for op, joined in zip(self.ops[1:], kept, strict=True):
            if not joined:
                yield tuple(chain)
                chain = []
            chain.append(op.name)
        yield tuple(chain)


@dataclass(frozen=True, slots=True)
class Keeping:
    """The least cost of the operators of a row, and whether each tensor between them is kept."""

    cost: Number
    kept: tuple[bool, ...]


def check_inference(graph: WorkloadGraph) -> None:
    """Raise ValueError for a training step, whose later passes read activations again."""
    for op in graph.ops:
        if op.phase is not Phase.INFER:
            raise ValueError(
                f"Op {op.name!r} belongs to a training step, which reads its activations again: "
                "only inference can be fused"
            )


def rows(graph: WorkloadGraph) -> list[Row]:
    """Return all operators that run, in order, cut wherever a tensor cannot be kept.

    It can be if the next operator alone reads it, once, as a whole. Views in between are free, and
    left out.
    """
    readers = Counter(tensor for op in graph.ops for tensor in op.inputs)
    origin: dict[str, str] = {}  # what a view, or a view of a view, is of
    found: list[Row] = []
    for op in graph.ops:
        sources = [origin.get(t, t) if readers[t] == 1 else t for t in op.inputs]
        if op.kind is OpKind.RESHAPE:
            origin[op.output] = sources[0]
            continue
        before = found[-1].ops[-1] if found else None
        at = _kept_input(before, op, sources, readers)
        if at is None:
            found.append(Row((op,), ()))
        else:
            found[-1] = Row((*found[-1].ops, op), (*found[-1].inputs, at))
    return found


def _kept_input(before: Op | None, op: Op, sources: list[str], readers: Counter[str]) -> int | None:
    """Return which input of `op` may be the result of `before`, kept; None if none may."""
    if before is None or before.kind in APART or op.kind in APART or before.repeat != op.repeat:
        return None
    # The second operand of a product takes another way into the array.
    able = sources[:1] if op.gemm else sources
    alone = before.output in able and readers[before.output] == 1
    return able.index(before.output) if alone else None


def best_keeping(count: int, cost: Cost) -> Keeping | None:
    """Return the cheapest way through `count` operators in a row, None if there is no way.

    cost(i, before, behind) is the cost of operator i with the tensor before it and the one behind
    it kept or not, None where that is impossible. Of equal costs the one that keeps more is taken.
    """
    ways: dict[bool, tuple[Number, int, tuple[bool, ...]]] = {False: (0, 0, ())}
    for i in range(count):
        longer: dict[bool, tuple[Number, int, tuple[bool, ...]]] = {}
        for behind in (False, True) if i < count - 1 else (False,):
            found = [
                (total + price, stored + (not behind), (*kept, behind))
                for before, (total, stored, kept) in ways.items()
                if (price := cost(i, before, behind)) is not None
            ]
            if found:
                longer[behind] = min(found)
        ways = longer
    return Keeping(ways[False][0], ways[False][2][:-1]) if ways else None
