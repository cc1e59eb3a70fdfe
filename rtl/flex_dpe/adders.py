"""The forwarding adder tree: sums of neighbours, however many and wherever they start."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from rtl.flex_dpe import shapes
from rtl.unit import Unit, structured
from simulator.arch.flex_dpe import FlexDpe

__all__ = ["ForwardingTree", "tops"]


def _level(adder: int) -> int:
    """Return the level of the adder between lanes `adder` and `adder` + 1."""
    return ((adder + 1) & -(adder + 1)).bit_length() - 1


def _reaches(joins: Value, adder: int, offset: int) -> Value:
    """Tell whether the cluster at `adder` goes on up to, and over, the adder `offset` away."""
    other = adder + offset
    if not 0 <= other < len(joins):
        return Const(0)
    return (joins[other:adder] if offset < 0 else joins[adder + 1 : other + 1]).all()


def tops(joins: Value, active: Value) -> Value:
    """Return the lanes that hold the sum of a whole cluster after the last level.

    Bit i of `joins` joins lanes i and i + 1. A cluster's sum stands on the lane of its topmost
    adder, a single product on its own lane.
    """
    found: list[Value] = []
    below: Value = Const(0)
    for lane, join in enumerate(joins):
        step = 1 << _level(lane)
        higher = _reaches(joins, lane, -step) | _reaches(joins, lane, step)
        found.append(active[lane] & Mux(join, ~higher, ~below))
        below = join
    return Cat(found)


class ForwardingTree(Unit):
    """Sums every run of joined lanes with one adder a join: FAN of SIGMA.

    Adder i stands between lanes i and i + 1 on level ctz(i + 1). It adds what the highest adders
    below it of the same cluster, on either side, have found; where there are none, the lane's own
    product. So at most 2 (level + 1) lanes are within its reach.

    Latency: `FlexDpe.tree_depth` slots, one a level. Throughput: a vector a slot. Back-pressure:
    holds while `advance` is 0. Reset: none.
    """

    def __init__(self, arch: FlexDpe) -> None:
        self.arch = arch
        super().__init__(shapes.adder_ports(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the levels."""
        m = Module()
        lanes, sums = list(self.lanes), list(self.products)
        for level in range(self.arch.tree_depth):
            lanes, sums = self._level(m, level, lanes, sums)
        for result, lane, total in zip(self.results, lanes, sums, strict=True):
            m.d.comb += [
                result.there.eq(lane.there),
                result.cluster.eq(Mux(lane.there, lane.cluster, 0)),
                result.sum.eq(Mux(lane.there, total, 0)),
            ]
        return m

    def _level(
        self, m: Module, level: int, lanes: list[Any], sums: list[Value]
    ) -> tuple[list[Any], list[Value]]:
        """Add on one level; all other lanes pass on what they have."""
        joins = Signal(len(lanes), name=f"joins_{level}")
        m.d.comb += joins.eq(Cat(lane.join for lane in lanes))
        lanes_after: list[Any] = []
        sums_after: list[Value] = []
        for index, (lane, total) in enumerate(zip(lanes, sums, strict=True)):
            after = structured(shapes.tree_lane(self.arch), f"lane_{level}_{index}")
            sum_after = Signal(shapes.partial(self.arch), name=f"sum_{level}_{index}")
            with m.If(self.advance):
                m.d.sync += [after.eq(lane), sum_after.eq(total)]
                if _level(index) == level:
                    with m.If(lane.join):
                        m.d.sync += sum_after.eq(self._added(joins, sums, index))
            lanes_after.append(after)
            sums_after.append(sum_after)
        return lanes_after, sums_after

    def _added(self, joins: Value, sums: list[Value], adder: int) -> Value:
        """Return the sum of the adder's neighbours, the highest on each side that belong to it."""
        left, right = sums[adder], sums[adder + 1]
        for low in range(_level(adder)):
            step = 1 << low
            left = Mux(_reaches(joins, adder, -step), sums[adder - step], left)
            right = Mux(_reaches(joins, adder, step), sums[adder + step], right)
        return left + right
