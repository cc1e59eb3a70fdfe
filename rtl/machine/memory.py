"""A deterministic AXI4 memory for simulation: fixed read latency, a beat a cycle, in order."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory
from amaranth.lib.wiring import In, Out

from rtl.machine import shapes
from rtl.unit import Unit, structured
from simulator.arch import NMArray

__all__ = ["AxiMemory"]


class AxiMemory(Unit):
    """`depth` beats behind the machine's bus, and a port for the host.

    INCR bursts of whole beats alone. A burst whose address is taken in one cycle has its first
    beat `latency` (at least 1) cycles later, one more a cycle; a write beat counts from the next
    cycle on, and a burst's acknowledgement follows its last beat by a cycle. Back-pressure: one
    burst at a time each way, so an address waits for the beats of the one before. A master that
    does not take read data at once loses them. Reset: idle; contents stay.
    """

    def __init__(self, arch: NMArray, depth: int, latency: int) -> None:
        self.arch, self.depth, self.latency = arch, depth, latency
        bits = shapes.beat_bits(arch)
        super().__init__(
            {
                "bus": In(shapes.axi(arch)),
                "host_address": In(range(depth)),
                "host_write": In(1),
                "host_data": In(bits),
                "host_seen": Out(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the memory."""
        m = Module()
        bits = shapes.beat_bits(self.arch)
        words: Any = memory.Memory(shape=bits, depth=self.depth, init=[])
        m.submodules.words = words
        host, seen = words.write_port(), words.read_port(domain="comb")
        m.d.comb += [
            host.addr.eq(self.host_address),
            host.data.eq(self.host_data),
            host.en.eq(self.host_write),
            seen.addr.eq(self.host_address),
            self.host_seen.eq(seen.data),
        ]
        self._read(m, words)
        self._write(m, words)
        return m

    @property
    def _shift(self) -> int:
        return (shapes.beat_bytes(self.arch) - 1).bit_length()

    def _read(self, m: Module, words: Any) -> None:
        bus, port = self.bus, words.read_port(domain="comb")
        at, left = Signal(range(self.depth)), Signal(9)
        begins, beat = Signal(), Signal(range(self.depth))
        m.d.comb += [
            bus.ar.ready.eq(left == 0),
            begins.eq(bus.ar.valid & bus.ar.ready),
            beat.eq(Mux(begins, bus.ar.payload.addr >> self._shift, at)),
            port.addr.eq(beat),
        ]
        m.d.sync += at.eq(beat + 1)
        with m.If(begins):
            m.d.sync += left.eq(bus.ar.payload.len)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        entry = {"data": shapes.beat_bits(self.arch), "last": 1, "valid": 1}
        line = [
            structured(data.StructLayout(entry), f"stage_{stage}") for stage in range(self.latency)
        ]
        m.d.sync += [
            line[0].data.eq(port.data),
            line[0].valid.eq(begins | (left != 0)),
            line[0].last.eq(Mux(begins, bus.ar.payload.len == 0, left == 1)),
            *(after.eq(before) for before, after in pairwise(line)),
        ]
        m.d.comb += [
            bus.r.valid.eq(line[-1].valid),
            bus.r.payload.data.eq(line[-1].data),
            bus.r.payload.last.eq(line[-1].last),
        ]

    def _write(self, m: Module, words: Any) -> None:
        bus, port = self.bus, words.write_port()
        at, active, beat = Signal(range(self.depth)), Signal(), Signal(range(self.depth))
        done, last = Signal(), Signal()
        m.d.comb += [
            bus.aw.ready.eq(~active),
            bus.w.ready.eq(active | bus.aw.valid),
            beat.eq(Mux(active, at, bus.aw.payload.addr >> self._shift)),
            port.addr.eq(beat),
            port.data.eq(bus.w.payload.data),
            port.en.eq(bus.w.valid & bus.w.ready & bus.w.payload.strb.all()),
            last.eq(bus.w.valid & bus.w.ready & bus.w.payload.last),
            bus.b.valid.eq(done),
        ]
        with m.If(bus.w.valid & bus.w.ready):
            m.d.sync += at.eq(beat + 1)
        with m.Else():
            m.d.sync += at.eq(beat)
        m.d.sync += [
            active.eq((active | bus.aw.valid) & ~last),
            done.eq(last),
        ]
