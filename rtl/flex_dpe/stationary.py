"""The registers of stationary values in front of the multipliers."""

from amaranth.hdl import Module, Signal

from rtl.flex_dpe import shapes
from rtl.unit import Unit, structured
from simulator.arch.flex_dpe import FlexDpe

__all__ = ["Stationary"]


class Stationary(Unit):
    """A ring of multipliers' values that load beats fill block by block.

    The last beat stays at hand: where a job begins inside it, the values that the beat brought
    for it reach their multipliers with `begin`. Of a beat that comes round to the block in which
    the job began, only the values that end the job are taken; the others are the next job's.

    Latency: a value loaded, or a job begun at multiplier `first`, shows in the next cycle.
    Throughput: a beat a cycle. Back-pressure: none. Reset: zero.
    """

    def __init__(self, arch: FlexDpe) -> None:
        self.arch = arch
        super().__init__(shapes.stationary_ports(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the registers."""
        m = Module()
        width, low = self.arch.loads_per_cycle, shapes.within_beat(self.arch)
        block = Signal(shapes.load_block(self.arch))
        last = structured(shapes.top_beat(self.arch), "last_beat")
        inside, began = self.start[:low], self.start[low:]
        with m.If(self.begin):
            m.d.sync += block.eq((self.first + (width - 1)) >> low)
        with m.If(self.load):
            m.d.sync += [last.eq(self.beat), block.eq(block + 1)]
        for place in range(self.arch.peak_macs_per_cycle):
            position, kept = place % width, self.held[place]
            round_again = (block == began) & (inside != 0) & (position >= inside)
            with m.If(self.begin & (self.first[low:] == place // width)):
                m.d.sync += kept.eq(last[position])
            with m.Elif(self.load & (block == place // width) & ~round_again):
                m.d.sync += kept.eq(self.beat[position])
        return m
