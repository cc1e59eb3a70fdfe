"""The machine's buffers: behavioural memories with as many ports as their users have lanes.

Reads are asynchronous and writes show in the next cycle. Neither is needed for the cycle counts,
which follow from when a unit takes an item, not from how it gets there; a floorplan would bank
these memories.
"""

from typing import Any

from amaranth.hdl import Module, ShapeLike
from amaranth.lib import memory
from amaranth.lib.wiring import In, Out

from rtl.unit import Unit

__all__ = ["Buffer"]


class Buffer(Unit):
    """`depth` words of `shape` with many ports; `read(i)` and `write(i)` name a port's members.

    Addresses beyond the depth read and write nothing of use. Of writes to one address in one cycle
    that of the highest port stays. Reset: none.
    """

    def __init__(self, shape: ShapeLike, depth: int, *, reads: int, writes: int) -> None:
        self.shape, self.depth, self.reads, self.writes = shape, depth, reads, writes
        address = range(max(depth, 2))
        members: dict[str, Any] = {}
        for port in range(reads):
            members |= {f"at_{port}": In(address), f"data_{port}": Out(shape)}
        for port in range(writes):
            members |= {
                f"to_{port}": In(address),
                f"word_{port}": In(shape),
                f"enable_{port}": In(1),
            }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Build the memory."""
        m = Module()
        words: Any = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        m.submodules.words = words
        for port in range(self.reads):
            read = words.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(getattr(self, f"at_{port}")),
                getattr(self, f"data_{port}").eq(read.data),
            ]
        for port in range(self.writes):
            write = words.write_port()
            m.d.comb += [
                write.addr.eq(getattr(self, f"to_{port}")),
                write.data.eq(getattr(self, f"word_{port}")),
                write.en.eq(getattr(self, f"enable_{port}")),
            ]
        return m
