"""The delta encoder in front of a PEGrid row."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import memory

from rtl.pe_grid import shapes
from rtl.shapes import LENGTH_BITS
from rtl.unit import Unit, structured
from simulator.arch.delta import DeltaParams
from simulator.arch.pe_grid import PEGrid

__all__ = ["DeltaEncoder", "Packer"]


class Packer(Unit):
    """Moves the present values of a chunk to its front, combinationally: the decoder's inverse."""

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(shapes.packer_ports(grid))

    def elaborate(self, platform: object) -> Module:
        """Build the packer."""
        m = Module()
        m.d.comb += self.beat.mask.eq(self.mask)
        index: Value = Signal(shapes.bounded(self.grid.chunk), name="index_0")
        for position in range(self.grid.chunk):
            with m.If(self.mask[position]):
                m.d.comb += self.beat.packed[index].eq(self.value[position])
            following = Signal(shapes.bounded(self.grid.chunk), name=f"index_{position + 1}")
            m.d.comb += following.eq(index + self.mask[position])
            index = following
        m.d.comb += self.count.eq(index)
        return m


class DeltaEncoder(Unit):
    """Turns frames of dense chunks into bitmask chunks of what changed since it was last sent.

    Its output is the stream of a row of the grid. The state memory is read and written in the
    cycle in which a chunk is accepted.

    Latency: a chunk accepted in one cycle is offered in the next. Throughput: a chunk a cycle; the
    next job is accepted with the last chunk of the one before. Back-pressure: nothing is
    accepted while a chunk is refused; `out.valid` depends on registers only. Reset: idle,
    counters zero; the state memory keeps its content.
    """

    def __init__(self, params: DeltaParams) -> None:
        self.grid = params.grid
        super().__init__(shapes.delta_ports(params))

    def elaborate(self, platform: object) -> Module:
        """Build the encoder."""
        m = Module()
        take = Signal()
        address, threshold, fresh = self._walk(m, take)
        state, following = self._memory(m, take, address)
        m.submodules.packer = packer = Packer(self.grid)
        for position in range(self.grid.chunk):
            old = Signal(shapes.operand(self.grid), name=f"old_{position}")
            m.d.comb += old.eq(Mux(fresh, 0, state[position]))
            there, sent = self._difference(m, position, old, threshold)
            m.d.comb += [
                packer.mask[position].eq(there),
                packer.value[position].eq(sent),
                following[position].eq(Mux(there, old + sent, old)),
            ]
        self._offer(m, take, packer)
        return m

    def _walk(self, m: Module, take: Signal) -> tuple[Signal, Value, Value]:
        """Count chunks and frames; returns the chunk, the threshold, and whether state is zero."""
        job = structured(shapes.delta_job(self.grid), "settings")
        running, started = Signal(), Signal()
        chunk = Signal(range(self.grid.delta_chunks))
        frame = Signal(LENGTH_BITS)
        chunk_last = chunk + 1 == job.chunks
        last = take & chunk_last & (frame + 1 == job.frames)
        m.d.comb += [
            self.job.ready.eq(~running | last),
            started.eq(self.job.valid & self.job.ready),
            self.side.ready.eq(running & (~self.out.valid | self.out.ready)),
            take.eq(self.side.valid & self.side.ready),
        ]
        with m.If(take):
            m.d.sync += chunk.eq(Mux(chunk_last, 0, chunk + 1))
            m.d.sync += frame.eq(frame + chunk_last)
        with m.If(last):
            m.d.sync += running.eq(0)
        with m.If(started):
            m.d.sync += [job.eq(self.job.payload), running.eq(1), frame.eq(0)]
        return chunk, job.threshold, ~job.resume & (frame == 0)

    def _memory(self, m: Module, take: Signal, address: Signal) -> tuple[Any, Any]:
        state: Any = memory.Memory(
            shape=shapes.delta_values(self.grid), depth=self.grid.delta_chunks, init=[]
        )
        m.submodules.state = state
        read, write = state.read_port(domain="comb"), state.write_port()
        m.d.comb += [read.addr.eq(address), write.addr.eq(address), write.en.eq(take)]
        return read.data, write.data

    def _difference(
        self, m: Module, position: int, old: Signal, threshold: Value
    ) -> tuple[Value, Value]:
        """Return whether a position is sent, and its difference clipped to an operand."""
        least, most = shapes.operand_range(self.grid)
        whole = Signal(shapes.difference(self.grid), name=f"difference_{position}")
        m.d.comb += whole.eq(self.side.payload[position] - old)
        clipped = Mux(whole > most, most, Mux(whole < least, least, whole))
        return abs(whole) > threshold, clipped

    def _offer(self, m: Module, take: Signal, packer: Packer) -> None:
        """Register the encoded chunk until it is taken, and count."""
        held, valid = structured(shapes.chunk_beat(self.grid), "held"), Signal()
        m.d.comb += [self.out.payload.eq(held), self.out.valid.eq(valid)]
        with m.If(take):
            m.d.sync += [held.eq(packer.beat), valid.eq(1)]
        with m.Elif(self.out.ready):
            m.d.sync += valid.eq(0)
        for name, amount in (("chunks", 1), ("values", packer.count)):
            count = Signal(shapes.total(), name=name)
            with m.If(take):
                m.d.sync += count.eq(count + amount)
            m.d.comb += getattr(self.counters, name).eq(count)
