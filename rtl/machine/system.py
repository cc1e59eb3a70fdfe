"""The machine with its memory, ready to be loaded and run: for simulation."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.machine import shapes
from rtl.machine.machine import Machine
from rtl.machine.memory import AxiMemory
from rtl.machine.shapes import UNITS
from rtl.shapes import COUNTER_BITS
from rtl.unit import Unit
from simulator.arch import NMArray

__all__ = ["MEMORY_BEATS", "System"]

MEMORY_BEATS = 1 << 14


class System(Unit):
    """A `Machine` and an `AxiMemory` of MEMORY_BEATS beats with the latency the model counts.

    The host loads memory and machine while it is idle, starts it and reads memory and counters
    when it is done; the ports are theirs. While `shake` is 1, addresses and write data pass the
    bus in pseudo-random cycles alone. Reset: idle; memories keep their contents.
    """

    def __init__(self, arch: NMArray, *, part_module: str | None = None) -> None:
        self.arch = arch
        self.machine = Machine(arch, part_module=part_module)
        latency = arch.dram.latency_cycles - shapes.READ_DELAY
        self.memory = AxiMemory(arch, MEMORY_BEATS, latency)
        bits = shapes.beat_bits(arch)
        super().__init__(
            {
                "load": In(shapes.load_word(arch)),
                "load_enable": In(1),
                "start": In(1),
                "shake": In(1),
                "done": Out(1),
                "cycles": Out(COUNTER_BITS),
                "op_index": In(range(shapes.OPS)),
                "op_cycles": Out(COUNTER_BITS),
                **{f"{unit}_busy": Out(COUNTER_BITS) for unit in UNITS},
                "host_address": In(range(MEMORY_BEATS)),
                "host_write": In(1),
                "host_data": In(bits),
                "host_seen": Out(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Connect both."""
        m = Module()
        m.submodules.machine = machine = self.machine
        m.submodules.memory = memory = self.memory
        self._connect_bus(m, machine.bus, memory.bus)
        for name in ("load", "load_enable", "start", "op_index"):
            m.d.comb += getattr(machine, name).eq(getattr(self, name))
        for name in ("done", "cycles", "op_cycles", *(f"{unit}_busy" for unit in UNITS)):
            m.d.comb += getattr(self, name).eq(getattr(machine, name))
        for name in ("host_address", "host_write", "host_data"):
            m.d.comb += getattr(memory, name).eq(getattr(self, name))
        m.d.comb += self.host_seen.eq(memory.host_seen)
        return m

    def _connect_bus(self, m: Module, master: Any, slave: Any) -> None:
        noise = Signal(16, init=1)
        m.d.sync += noise.eq(Cat(noise[1:], noise[0] ^ noise[2] ^ noise[3] ^ noise[5]))
        for position, channel in enumerate(("ar", "aw", "w")):
            ours, theirs = getattr(master, channel), getattr(slave, channel)
            passes = ~self.shake | noise[3 * position]
            m.d.comb += [
                theirs.payload.eq(ours.payload),
                theirs.valid.eq(ours.valid & passes),
                ours.ready.eq(theirs.ready & passes),
            ]
        for channel in ("r", "b"):
            wiring.connect(m, getattr(slave, channel), getattr(master, channel))
