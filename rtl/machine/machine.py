"""The whole training machine: array, vector unit, SORE, WUVE, buffers and DMA behind AXI4."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.float import FP16, FP32, Converter
from rtl.machine import shapes
from rtl.machine.buffers import Buffer
from rtl.machine.collector import Collector
from rtl.machine.dma import Dma, Packer, Receiver
from rtl.machine.feeder import Feeder
from rtl.machine.selector import Selector, Transposer
from rtl.machine.sequencer import Sequencer
from rtl.machine.shapes import TABLES, UNITS, Bank, Source, Target
from rtl.machine.updater import SelectPass, UpdateUnit
from rtl.machine.vector import VectorUnit
from rtl.nm_array import NMArrayCore
from rtl.shapes import COUNTER_BITS
from rtl.unit import Unit, structured
from simulator.arch import NMArray, Precision

__all__ = ["Machine", "check_machine"]


def check_machine(arch: NMArray) -> None:
    """Raise ValueError, naming the parameter, unless the machine can be built as hardware."""
    wrong = {
        f"precision must be fp16, not {arch.precision.value}": arch.precision is not Precision.FP16,
        "training units (sore, wuve) are needed": arch.training is None,
    }
    for problem, found in wrong.items():
        if found:
            raise ValueError(f"The RTL machine: {problem}")
    assert arch.training is not None
    beat, rest = divmod(arch.dram.bandwidth_bytes_per_s, arch.clock_hz)
    if rest or beat < 2 or beat & (beat - 1):
        raise ValueError(
            "The RTL machine: dram.bandwidth_bytes_per_s must be a power of two of at least 2 "
            f"bytes a cycle, not {arch.dram.bandwidth_bytes_per_s} / {arch.clock_hz}"
        )
    least = shapes.LEAST_LATENCY
    if arch.dram.latency_cycles < least:
        raise ValueError(
            f"The RTL machine: dram.latency_cycles must be at least {least}, which registers on "
            f"the way take, not {arch.dram.latency_cycles}"
        )
    sore, wuve = arch.training.sore, arch.training.wuve
    if not beat // 2 == sore.lanes == wuve.lanes == arch.max_m == sore.max_m:
        raise ValueError(
            "The RTL machine: max_m, sore.max_m, sore.lanes, wuve.lanes and the fp16 numbers of a "
            f"beat must be equal, not {arch.max_m}, {sore.max_m}, {sore.lanes}, {wuve.lanes} and "
            f"{beat // 2}"
        )


class Machine(Unit):
    """Runs a program of training-step instructions against an AXI4 memory.

    The program and its tables are written through `load` while the machine is idle; `start` runs
    it, after a sweep of the output buffer, and `done` tells that it has ended and all its writes
    are acknowledged. `cycles` counts from the first operator's first cycle to the last one's last,
    `op_cycles` those of operator `op_index`, `<unit>_busy` the cycles of every unit.

    Latency: a transfer's data are in their buffer `dram.latency_cycles` after its last beat's
    turn with a memory that answers `READ_DELAY` cycles sooner. Throughput: a step of every unit at
    a time, one after the other without a gap. Back-pressure: the DMA waits for the bus; the other
    units wait for tokens alone. Reset: synchronous, idle; memories keep their contents. Raises
    ValueError for parameters that no machine can be built from.
    """

    def __init__(self, arch: NMArray, *, part_module: str | None = None) -> None:
        check_machine(arch)
        self.arch, self.part_module = arch, part_module
        super().__init__(
            {
                "load": In(shapes.load_word(arch)),
                "load_enable": In(1),
                "start": In(1),
                "done": Out(1),
                "cycles": Out(COUNTER_BITS),
                "op_index": In(range(shapes.OPS)),
                "op_cycles": Out(COUNTER_BITS),
                **{f"{unit}_busy": Out(COUNTER_BITS) for unit in UNITS},
                "bus": Out(shapes.axi(arch)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the machine."""
        m = Module()
        arch, training = self.arch, self.arch.training
        assert training is not None
        m.submodules.sequencer = self.sequencer = Sequencer(arch)
        m.submodules.core = self.core = NMArrayCore(arch, part_module=self.part_module)
        m.submodules.feeder = self.feeder = Feeder(arch)
        m.submodules.collector = self.collector = Collector(arch)
        m.submodules.dma = self.dma = Dma(arch)
        m.submodules.receiver = self.receiver = Receiver(arch)
        m.submodules.packer = self.packer = Packer(arch)
        m.submodules.vector = self.vector = VectorUnit(arch)
        m.submodules.update = self.update = UpdateUnit(training.wuve, arch)
        m.submodules.select = self.select = SelectPass(training.sore.lanes)
        m.submodules.across = self.across = Selector(training.sore, arch)
        m.submodules.along = self.along = Selector(training.sore, arch)
        m.submodules.transposer = self.transposer = Transposer(arch.max_m)
        self._clear(m)
        self._sequence(m)
        self._tables(m)
        self._activations(m)
        self._weights(m)
        self._sums(m)
        self._selectors(m)
        self._bus(m)
        return m

    def _clear(self, m: Module) -> None:
        """Sweep the output buffer before a run: no sum of an earlier run passes for a new one's."""
        self.clearing = Signal(name="clearing")
        self.swept = swept = Signal(range(self.arch.out_buffer.capacity_bytes // 4))
        last = swept == self.arch.out_buffer.capacity_bytes // 4 - 1
        with m.If(self.start):
            m.d.sync += [self.clearing.eq(1), swept.eq(0)]
        with m.Elif(self.clearing):
            m.d.sync += [swept.eq(swept + 1), self.clearing.eq(~last)]
        m.d.comb += self.sequencer.start.eq(self.clearing & last)

    def _sequence(self, m: Module) -> None:
        """Connect the sequencer to host and units."""
        s, core = self.sequencer, self.core
        for name in ("load", "load_enable", "op_index"):
            m.d.comb += getattr(s, name).eq(getattr(self, name))
        for name in ("cycles", "op_cycles"):
            m.d.comb += getattr(self, name).eq(getattr(s, name))
        m.d.comb += self.done.eq(s.done & ~self.start & ~self.clearing & self.dma.quiet)
        running = Signal()
        with m.If(s.array_go):
            m.d.sync += running.eq(1)
        with m.Elif(core.job.ready):
            m.d.sync += running.eq(0)
        frees = Signal(len(shapes.CHANNELS))
        ended = Signal()
        with m.If(s.array_go):
            m.d.sync += frees.eq(s.array_step.frees)
        m.d.comb += [
            ended.eq(running & core.job.ready),
            core.job.valid.eq(s.array_go),
            core.job.payload.eq(s.array_step.job),
            s.array_free.eq(core.job.ready),
            self.feeder.step.eq(s.array_step),
            self.feeder.load.eq(s.array_go),
            self.collector.step.eq(s.array_step),
            self.collector.load.eq(s.array_go),
            self.collector.ended.eq(ended),
        ]
        wiring.connect(m, self.feeder.side, core.side)
        wiring.connect(m, self.feeder.top, core.top)
        wiring.connect(m, core.out, self.collector.out)
        units = {"dma": self.dma, "vector": self.vector, "sore": self.select, "wuve": self.update}
        busy = {name: unit.busy for name, unit in units.items()} | {"array": running}
        for name, unit in units.items():
            m.d.comb += [
                unit.go.eq(getattr(s, f"{name}_go")),
                unit.step.eq(getattr(s, f"{name}_step")),
                getattr(s, f"{name}_free").eq(unit.free),
            ]
        given = Mux(ended, frees, 0)
        for unit in (*units.values(), self.collector, self.receiver, self.across, self.along):
            given = given | unit.given
        m.d.comb += s.given.eq(given | self.update.given_late)
        for name, active in busy.items():
            counter = getattr(self, f"{name}_busy")
            m.d.sync += counter.eq(Mux(self.start, 0, counter + active))

    def _table(self, m: Module, name: str, reads: int) -> Buffer:
        table = Buffer(shapes.table_entry(), shapes.TABLE_ENTRIES, reads=reads, writes=1)
        m.submodules[name] = table
        m.d.comb += [
            table.to_0.eq(self.load.address),
            table.word_0.as_value().eq(self.load.word),
            table.enable_0.eq(self.load_enable & (self.load.bank == Bank[name.upper()])),
        ]
        return table

    def _tables(self, m: Module) -> None:
        """Look up every lane's row and column entries."""
        lanes = {"act": self.feeder.acts, "weight": self.feeder.weights, "out": self.arch.cols}
        self.entries: dict[str, list[Any]] = {}
        for name in TABLES:
            operand, axis = name.split("_")
            table = self._table(m, name, lanes[operand])
            user = self.collector if operand == "out" else self.feeder
            self.entries[name] = []
            for lane in range(lanes[operand]):
                entry = getattr(table, f"data_{lane}")
                m.d.comb += getattr(table, f"at_{lane}").eq(
                    getattr(user, f"{operand}_{axis}_{lane}")
                )
                self.entries[name].append(entry)
        for lane in range(self.arch.cols):
            m.d.comb += [
                getattr(self.collector, f"{axis}_entry_{lane}").eq(
                    self.entries[f"out_{axis}"][lane]
                )
                for axis in ("row", "col")
            ]

    def _writes(self, unit: Any, ports: int) -> list[Any]:
        return [getattr(unit, f"write_{port}") for port in range(ports)]

    def _buffer(
        self, m: Module, name: str, depth: int, reads: int, writes: list[tuple[Any, Any]]
    ) -> Buffer:
        """Add a buffer of items with the given writes, each with what enables it besides."""
        buffer = Buffer(shapes.pair_bits(self.arch), depth, reads=reads, writes=len(writes))
        m.submodules[name] = buffer
        for port, (write, enable) in enumerate(writes):
            m.d.comb += [
                getattr(buffer, f"to_{port}").eq(write.address),
                getattr(buffer, f"word_{port}").eq(write.item),
                getattr(buffer, f"enable_{port}").eq(write.enable & enable),
            ]
        return buffer

    def _arrivals(self, target: Target) -> list[tuple[Any, Value]]:
        mine = self.receiver.current.target == target
        ports = shapes.beat_items(self.arch)
        return [(write, mine) for write in self._writes(self.receiver, ports)]

    def _picked(self, weight: int) -> list[tuple[Any, Value]]:
        return [
            (write, unit.weight == weight)
            for unit in (self.across, self.along)
            for write in self._writes(unit, self.arch.max_m)
        ]

    def _activations(self, m: Module) -> None:
        """The activations' buffer: operands of the array, and all that streams."""
        arch, lanes = self.arch, self.arch.max_m
        always = [
            *self._writes(self.vector, arch.vector_lanes),
            *self._writes(self.update, 5 * lanes),
        ]
        writes = self._arrivals(Target.ACT) + self._picked(0) + [(w, 1) for w in always]
        streams = [
            *((self.vector, f"first_at_{i}", f"first_{i}") for i in range(arch.vector_lanes)),
            *((self.vector, f"second_at_{i}", f"second_{i}") for i in range(arch.vector_lanes)),
            *((self.update, f"at_{i}", f"item_{i}") for i in range(5 * lanes)),
            *((self.select, f"at_{i}", f"item_{i}") for i in range(lanes)),
        ]
        acts, stored = self.feeder.acts, shapes.beat_items(arch)
        depth = arch.act_buffer.capacity_bytes // 2
        reads = acts + stored + len(streams)
        buffer = self._buffer(m, "act_buffer", depth, reads, writes)
        step = self.feeder_step(m)
        for lane in range(acts):
            row, col = self.entries["act_row"][lane], self.entries["act_col"][lane]
            y, x = row.y + col.y, row.x + col.x
            inside = (y >= 0) & (y < step.act_height) & (x >= 0) & (x < step.act_width)
            item = getattr(buffer, f"data_{lane}")
            m.d.comb += [
                getattr(buffer, f"at_{lane}").eq(step.act_base + row.address + col.address),
                getattr(self.feeder, f"act_{lane}").eq(Mux(inside, item, 0)),
            ]
        self.raw = []
        for i in range(stored):
            at = self.dma.current.base + self.packer.asked + i
            m.d.comb += getattr(buffer, f"at_{acts + i}").eq(at)
            self.raw.append(getattr(buffer, f"data_{acts + i}"))
        for port, (unit, at, item) in enumerate(streams, start=acts + stored):
            m.d.comb += [
                getattr(buffer, f"at_{port}").eq(getattr(unit, at)),
                getattr(unit, item).eq(getattr(buffer, f"data_{port}")),
            ]

    def feeder_step(self, m: Module) -> Any:
        """Return the running job's instruction."""
        held = structured(shapes.array_step(self.arch), "array_held")
        with m.If(self.sequencer.array_go):
            m.d.sync += held.eq(self.sequencer.array_step)
        self.job = held
        return held

    def _weights(self, m: Module) -> None:
        lanes = self.feeder.weights
        depth = self.arch.weight_buffer.capacity_bytes // 2
        writes = self._arrivals(Target.WEIGHT) + self._picked(1)
        buffer = self._buffer(m, "weight_buffer", depth, lanes, writes)
        for lane in range(lanes):
            row, col = self.entries["weight_row"][lane], self.entries["weight_col"][lane]
            at = self.job.weight_base + row.address + col.address
            m.d.comb += [
                getattr(buffer, f"at_{lane}").eq(at),
                getattr(self.feeder, f"weight_{lane}").eq(getattr(buffer, f"data_{lane}")),
            ]

    def _sums(self, m: Module) -> None:
        """The output buffer: sums as the collector adds to them, and as stores read them."""
        arch, step = self.arch, self.dma.current
        cols, stored = arch.cols, shapes.beat_items(arch)
        depth = arch.out_buffer.capacity_bytes // 4
        sums = Buffer(shapes.sum_word(), depth, reads=cols + stored, writes=cols)
        m.submodules.out_buffer = sums
        for lane in range(cols):
            at = getattr(self.collector, f"at_{lane}")
            m.d.comb += [
                getattr(sums, f"at_{lane}").eq(at),
                getattr(self.collector, f"sum_{lane}").eq(getattr(sums, f"data_{lane}")),
                getattr(sums, f"to_{lane}").eq(at),
                getattr(sums, f"word_{lane}").eq(getattr(self.collector, f"total_{lane}")),
                getattr(sums, f"enable_{lane}").eq(getattr(self.collector, f"enable_{lane}")),
            ]
        with m.If(self.clearing):
            m.d.comb += [sums.to_0.eq(self.swept), sums.word_0.eq(0), sums.enable_0.eq(1)]
        writes = self._arrivals(Target.SAVED)
        saved = self._buffer(m, "saved", 2 * depth, stored, writes)
        for i in range(stored):
            place = self.packer.asked + i
            word = getattr(sums, f"data_{cols + i}")
            m.submodules[f"narrow_{i}"] = narrow = Converter(FP32, FP16, 0)
            other = getattr(saved, f"data_{i}")
            drops = (step.relu & narrow.y[-1]) | (
                step.gate & (other[FP16.bits - 1] | ~other[: FP16.bits - 1].any())
            )
            m.d.comb += [
                getattr(sums, f"at_{cols + i}").eq(step.base + place),
                getattr(saved, f"at_{i}").eq(step.saved + place),
                narrow.advance.eq(1),
                narrow.a.eq(Mux(word.tag == step.tag, word.value, 0)),
                getattr(self.packer, f"item_{i}").eq(
                    Mux(step.source == Source.SUMS, Mux(drops, 0, narrow.y), self.raw[i])
                ),
            ]

    def _selectors(self, m: Module) -> None:
        """Lead values to the selectors: as loaded, as updated, or in a pass of their own."""
        s, begun = self.sequencer, self.receiver
        loads = self.dma.begun_enable & self.dma.begun.select
        turned = self.dma.begun.turned
        loaded = begun.picked & ~begun.current.turned
        with m.If(s.sore_go):
            m.d.comb += self.across.place.eq(s.sore_step.place)
        with m.Elif(s.wuve_go):
            m.d.comb += self.across.place.eq(s.wuve_step.ff)
        with m.Else():
            m.d.comb += self.across.place.eq(self.dma.begun.place)
        fresh, bus = self.update.fresh.as_value(), self.receiver.data
        own = self.select.busy
        m.d.comb += [
            self.across.place_enable.eq(
                s.sore_go | (s.wuve_go & s.wuve_step.with_ff) | (loads & ~turned)
            ),
            self.across.valid.eq(own | self.update.fresh_ff | loaded),
            self.across.beat.as_value().eq(
                Mux(own, self.select.beat.as_value(), Mux(self.update.fresh_ff, fresh, bus))
            ),
            self.along.place.eq(Mux(s.wuve_go, s.wuve_step.bp, self.dma.begun.place)),
            self.along.place_enable.eq((s.wuve_go & s.wuve_step.with_bp) | (loads & turned)),
            self.transposer.valid.eq(self.update.fresh_bp | (begun.picked & begun.current.turned)),
            self.transposer.beat.as_value().eq(Mux(self.update.fresh_bp, fresh, bus)),
            self.along.valid.eq(self.transposer.out_valid),
            self.along.beat.eq(self.transposer.out),
        ]

    def _bus(self, m: Module) -> None:
        for channel in ("ar", "aw", "w"):
            ours, theirs = getattr(self.dma.bus, channel), getattr(self.bus, channel)
            m.d.comb += [
                theirs.valid.eq(ours.valid),
                theirs.payload.eq(ours.payload),
                ours.ready.eq(theirs.ready),
            ]
        m.d.comb += [
            self.dma.bus.b.valid.eq(self.bus.b.valid),
            self.bus.b.ready.eq(self.dma.bus.b.ready),
            self.bus.r.ready.eq(1),
            self.receiver.valid.eq(self.bus.r.valid),
            self.receiver.data.eq(self.bus.r.payload.data),
            self.receiver.begun.eq(self.dma.begun),
            self.receiver.begun_enable.eq(self.dma.begun_enable),
            self.dma.room.eq(self.receiver.room),
            self.packer.step.eq(self.dma.current),
            self.packer.first.eq(self.dma.first),
            self.packer.taking.eq(self.dma.taking),
            self.dma.beat.eq(self.packer.beat),
        ]
