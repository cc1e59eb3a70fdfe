"""The address side of reads: a beat's turn each cycle, a burst at its first."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl.dsp_machine import shapes
from rtl.machine import shapes as machine_shapes
from rtl.unit import Unit
from simulator.arch.dsp_chain import DspChain

__all__ = ["Reader", "Walk"]

INCR = 1


class Walk(Unit):
    """Walks a run of beats, cut into AXI4 bursts.

    `at` is the current beat's address, `burst` the beats of a burst that starts there, `head`
    whether one does, `last` the run's last beat. Moves on with `advance`; `go` starts anew and may
    come with a last beat. With a `pitch` only the first beats of as many, a piece, are its own.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "go": In(1),
                "start": In(shapes.BEAT_BITS),
                "beats": In(shapes.COUNT_BITS),
                "pitch": In(shapes.PITCH_BITS),
                "advance": In(1),
                "busy": Out(1),
                "at": Out(shapes.BEAT_BITS),
                "burst": Out(range(machine_shapes.BURST_BEATS + 1)),
                "head": Out(1),
                "burst_last": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the walk."""
        m = Module()
        left, in_burst = Signal(shapes.COUNT_BITS), Signal.like(self.burst)
        page = machine_shapes.PAGE_BYTES // shapes.beat_bytes(self.arch)
        limit = Signal(shapes.COUNT_BITS)
        to_page = page - self.at[: (page - 1).bit_length()]
        longest = min(machine_shapes.BURST_BEATS, page)
        piece, pitch = shapes.piece_beats(self.arch), Signal.like(self.pitch)
        in_piece = self.at[: (piece - 1).bit_length()]
        m.d.comb += [
            limit.eq(Mux(pitch != 0, piece, Mux(to_page < longest, to_page, longest))),
            self.burst.eq(Mux(left < limit, left, limit)),
            self.head.eq(in_burst == 0),
            self.burst_last.eq(Mux(self.head, self.burst, in_burst) == 1),
            self.last.eq(left == 1),
        ]
        with m.If(self.go):
            m.d.sync += [
                self.busy.eq(1),
                self.at.eq(self.start),
                pitch.eq(self.pitch),
                left.eq(self.beats),
                in_burst.eq(0),
            ]
        with m.Elif(self.advance):
            m.d.sync += [
                self.busy.eq(~self.last),
                self.at.eq(self.at + Mux((pitch != 0) & in_piece.all(), pitch - piece + 1, 1)),
                left.eq(left - 1),
                in_burst.eq(Mux(self.head, self.burst, in_burst) - 1),
            ]
        return m


class Reader(Unit):
    """Asks for a run of beats, one turn a cycle.

    Latency: an address is on the bus in the cycle after its first beat's turn. Throughput: runs
    follow without a gap, `free` being 1 in a run's last turn. Back-pressure: an address that is
    not taken holds the next one's turn. Reset: idle.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "go": In(1),
                "start": In(shapes.BEAT_BITS),
                "beats": In(shapes.COUNT_BITS),
                "pitch": In(shapes.PITCH_BITS),
                "free": Out(1),
                "busy": Out(1),
                "ar": Out(stream.Signature(machine_shapes.read_address())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the reader."""
        m = Module()
        m.submodules.walk = walk = Walk(self.arch)
        ar, advance = self.ar, Signal()
        size = (shapes.beat_bytes(self.arch) - 1).bit_length()
        m.d.comb += [
            walk.go.eq(self.go),
            walk.start.eq(self.start),
            walk.beats.eq(self.beats),
            walk.pitch.eq(self.pitch),
            walk.advance.eq(advance),
            advance.eq(walk.busy & (~walk.head | ~ar.valid | ar.ready)),
            self.busy.eq(walk.busy),
            self.free.eq(~walk.busy | (advance & walk.last)),
        ]
        with m.If(ar.ready):
            m.d.sync += ar.valid.eq(0)
        with m.If(advance & walk.head):
            m.d.sync += [
                ar.valid.eq(1),
                ar.payload.addr.eq(walk.at << size),
                ar.payload.len.eq(walk.burst - 1),
                ar.payload.size.eq(size),
                ar.payload.burst.eq(INCR),
            ]
        return m
