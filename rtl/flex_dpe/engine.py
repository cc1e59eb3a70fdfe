"""One flexible dot-product engine: its distribution network and its multipliers."""

from amaranth.hdl import Cat, Module, Mux

from rtl.flex_dpe import shapes
from rtl.unit import Unit, structured
from simulator.arch.flex_dpe import FlexDpe

__all__ = ["Engine"]


class Engine(Unit):
    """Hands every multiplier the position of the vector that `routes` choose, and multiplies.

    `nonzero` tells, in the slot of the vector, which multipliers get a value other than 0.
    Latency: products show one slot after the vector. Throughput: a vector a slot. Back-pressure:
    holds while `advance` is 0. Reset: products zero.
    """

    def __init__(self, arch: FlexDpe) -> None:
        self.arch = arch
        super().__init__(shapes.engine_ports(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the engine."""
        m = Module()
        rows = self.side
        for stage, distance in enumerate(self.arch.route_distances):
            after = structured(shapes.side_beat(self.arch), f"rows_{stage}")
            for row, taken in enumerate(self.routes[stage]):
                m.d.comb += after[row].eq(Mux(taken, rows[row ^ distance], rows[row]))
            rows = after
        m.d.comb += self.nonzero.eq(Cat(row.any() for row in rows))
        with m.If(self.advance):
            for product, row, value in zip(self.products, rows, self.values, strict=True):
                m.d.sync += product.eq(row * value)
        return m
