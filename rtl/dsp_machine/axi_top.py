"""The core's top level as other designs expect it: its buses as flat ports with AXI4's names."""

from amaranth.hdl import Module

from rtl.dsp_machine import shapes
from rtl.dsp_machine.machine import DspMachine
from rtl.machine import shapes as machine_shapes
from rtl.machine.axi_top import join, join_bus
from rtl.unit import Unit
from simulator.arch.dsp_chain import DspChain

__all__ = ["DspTop"]


class DspTop(Unit):
    """A `DspMachine` with its data bus as `m_axi_*` and its program's, only read, as `p_axi_*`.

    All other ports, cycles and reset are the core's. Bursts are INCR, of whole beats and inside a
    page of 4 KiB; all have id 0. Responses are counted; whether they tell of an error is not looked
    at. Raises ValueError for parameters that no core can be built from.
    """

    def __init__(
        self,
        arch: DspChain,
        *,
        chain_module: str | None = None,
        lane_module: str | None = None,
    ) -> None:
        self.machine = DspMachine(arch, chain_module=chain_module, lane_module=lane_module)
        self._host = shapes.host(arch)
        code = machine_shapes.axi_ports(arch, shapes.CODE_PREFIX, shapes.CODE_CHANNELS)
        super().__init__({**self._host, **machine_shapes.axi_ports(arch), **code})

    def elaborate(self, platform: object) -> Module:
        """Give every signal its other name."""
        m = Module()
        m.submodules.machine = machine = self.machine
        for name in self._host:
            join(m, self, name, getattr(machine, name))
        join_bus(m, self, machine_shapes.AXI_PREFIX, machine.bus)
        join_bus(m, self, shapes.CODE_PREFIX, machine.code)
        return m
