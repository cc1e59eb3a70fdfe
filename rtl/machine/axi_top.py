"""The machine's top level as other designs expect it: its bus as flat ports with AXI4's names."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import In

from rtl.machine import shapes
from rtl.machine.machine import Machine
from rtl.unit import Unit
from simulator.arch import NMArray

__all__ = ["AxiTop", "join", "join_bus"]


def join(m: Module, top: Unit, name: str, inner: Any) -> None:
    """Connect the port `name` of `top` with a signal inside."""
    outer = getattr(top, name)
    inward = top.signature.members[name].flow is In
    m.d.comb += inner.eq(outer) if inward else outer.eq(inner)


def join_bus(m: Module, top: Unit, prefix: str, bus: Any) -> None:
    """Connect the flat ports of `top` that begin with `prefix` with a bus inside."""
    for channel in bus.signature.members:
        start, stream = f"{prefix}{channel}", getattr(bus, channel)
        for name in ("valid", "ready"):
            join(m, top, start + name, getattr(stream, name))
        for name, _ in stream.payload.shape():
            join(m, top, start + name, stream.payload[name])
        if channel in ("aw", "ar"):
            for name, (_, value) in shapes.AXI_CONSTANTS.items():
                m.d.comb += getattr(top, start + name).eq(value)


class AxiTop(Unit):
    """A `Machine` whose bus is the ports of an AXI4 master: `m_axi_awaddr` and so on.

    All other ports, cycles and reset are the machine's. Bursts are INCR, of whole beats, at most
    256 of them and inside a page of 4 KiB; all have id 0, so their data come in order. Responses
    are counted; whether they tell of an error is not looked at. Raises ValueError for parameters
    that no machine can be built from.
    """

    def __init__(self, arch: NMArray, *, part_module: str | None = None) -> None:
        self.machine = Machine(arch, part_module=part_module)
        members = self.machine.signature.members
        self._host = {name: member for name, member in members.items() if name != "bus"}
        super().__init__({**self._host, **shapes.axi_ports(arch)})

    def elaborate(self, platform: object) -> Module:
        """Give every signal its other name, and the constant fields their value."""
        m = Module()
        m.submodules.machine = machine = self.machine
        for name in self._host:
            join(m, self, name, getattr(machine, name))
        join_bus(m, self, shapes.AXI_PREFIX, machine.bus)
        return m
