"""The whole core: fetch, decode, six modules, buffers and two AXI4 buses."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import Out

from rtl.dsp_machine import shapes
from rtl.dsp_machine.engine import Engine
from rtl.dsp_machine.fetch import Decoder, Fetch
from rtl.dsp_machine.load import Loader, Receiver
from rtl.dsp_machine.matrices import Matrices
from rtl.dsp_machine.product import Product
from rtl.dsp_machine.sequencer import Sequencer, spread
from rtl.dsp_machine.shapes import MODULES, Setting
from rtl.dsp_machine.special import RowUnit
from rtl.dsp_machine.store import Store
from rtl.machine import shapes as machine_shapes
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import CANDIDATES, TOKENS
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa.layout import TABLE_ROWS, Base
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["DspMachine", "check_dsp_machine"]


def check_dsp_machine(arch: DspChain) -> None:
    """Raise ValueError, naming the parameter, unless the core can be built as hardware."""
    beat, rest = divmod(arch.hbm.bandwidth_bytes_per_s, arch.clock_hz)
    hbm, engine, unit = arch.hbm, shapes.chain(arch), shapes.special(arch)
    wrong = {
        f"cores must be 1, not {arch.cores}": arch.cores != 1,
        "hbm must be one channel of 4 bytes a cycle that loses nothing": (beat, rest) != (4, 0)
        or (hbm.channels, hbm.same_channel_percent, hbm.cross_channel_percent) != (1, 100, 100),
        f"hbm.latency_cycles must be at least {shapes.LEAST_LATENCY}, which registers on the way "
        f"take, not {hbm.latency_cycles}": hbm.latency_cycles < shapes.LEAST_LATENCY,
        f"mv_columns must be 4, a chain for every byte of a beat, not {arch.mv_columns}": (
            arch.mv_columns != 4
        ),
        f"mm_tokens must be {TOKENS * arch.mv_columns}, two for every chain, not "
        f"{arch.mm_tokens}": arch.mm_tokens != TOKENS * arch.mv_columns,
        f"mm_columns must be 1 and mm_tile_columns {CANDIDATES}, not {arch.mm_columns} and "
        f"{arch.mm_tile_columns}": (arch.mm_columns, arch.mm_tile_columns) != (1, CANDIDATES),
        f"misc_lanes must be {CANDIDATES}, not {arch.misc_lanes}": arch.misc_lanes != CANDIDATES,
        f"link_bytes_per_cycle must be {CANDIDATES}, not {arch.link_bytes_per_cycle}": (
            arch.link_bytes_per_cycle != CANDIDATES
        ),
        f"pipeline_cycles must be {engine.latency + 1 - arch.chain_stages}, which the chains take, "
        f"not {arch.pipeline_cycles}": (arch.fill_cycles != engine.latency + 1),
        f"misc_pipeline_cycles must be {unit.latency}, which the special-function unit takes, "
        f"not {arch.misc_pipeline_cycles}": arch.misc_pipeline_cycles != unit.latency,
    }
    for problem, found in wrong.items():
        if found:
            raise ValueError(f"The RTL machine: {problem}")


class DspMachine(Unit):
    """Runs a program from one AXI4 memory on data in another.

    The host writes base registers, tokens and the program's length through `load` while the core
    is idle; `start` fetches, fills the queues and runs. `done` tells that all has ended and every
    write is acknowledged, `stuck` that what waits can never start, `unknown` that a word is no
    instruction. `cycles` counts from the first working cycle to the last, `<module>_busy` those of
    every module; `out_at` reads the out buffer when the core is idle.

    Latency, throughput and back-pressure are those of the modules. Reset: synchronous, idle;
    memories keep their contents, halves of the matrix buffer start anew. Raises ValueError for
    parameters that no core can be built from.
    """

    def __init__(
        self,
        arch: DspChain,
        *,
        chain_module: str | None = None,
        lane_module: str | None = None,
    ) -> None:
        check_dsp_machine(arch)
        self.arch, self.chain_module, self.lane_module = arch, chain_module, lane_module
        super().__init__(
            {
                **shapes.host(arch),
                "bus": Out(machine_shapes.axi(arch)),
                "code": Out(shapes.reading(arch)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the core."""
        m = Module()
        arch = self.arch
        m.submodules.fetch = self.fetch = Fetch(arch)
        m.submodules.decoder = self.decoder = Decoder()
        m.submodules.sequencer = self.sequencer = Sequencer()
        m.submodules.ld = self.ld = Loader(arch)
        m.submodules.receiver = self.receiver = Receiver(arch)
        m.submodules.st = self.st = Store(arch)
        m.submodules.engine = self.engine = Engine(arch, part_module=self.chain_module)
        m.submodules.mv = self.mv = Product(arch)
        m.submodules.mm = self.mm = Matrices(arch)
        m.submodules.misc = self.misc = RowUnit(arch, part_module=self.lane_module)
        settings = self._settings(m)
        self._run(m, settings)
        self._modules(m, settings)
        self._engine(m)
        self._buses(m)
        self._out_buffer(m)
        self._row_table(m)
        self._matrix_buffer(m)
        self._activations(m)
        return m

    def _settings(self, m: Module) -> dict[str, Any]:
        """Hold what the host sets."""
        word, register = self.load.word, self.load.register
        bases = [Signal(shapes.LINE_BITS, name=f"base_{i}") for i in range(len(Base))]
        length, words = Signal(shapes.COUNT_BITS), Signal(shapes.COUNT_BITS)
        targets = {Setting.LENGTH.value: length, Setting.WORDS.value: words}
        targets |= {Setting.BASE.value + i: base for i, base in enumerate(bases)}
        for at, target in targets.items():
            with m.If(self.load_enable & (register == at)):
                m.d.sync += target.eq(word)
        tokens = register - Setting.TOKENS.value
        m.d.comb += [
            self.sequencer.set_enable.eq(self.load_enable & (register >= Setting.TOKENS.value)),
            self.sequencer.set_channel.eq(tokens),
            self.sequencer.set_tokens.eq(word),
        ]
        return {"bases": Array(bases), "length": length, "words": words}

    def _run(self, m: Module, settings: dict[str, Any]) -> None:
        """Fetch; run once the queues are primed: all is decoded, or a queue is full."""
        fetch, decoder, sequencer = self.fetch, self.decoder, self.sequencer
        fetching, running = Signal(), Signal()
        decoded = fetch.ended & decoder.idle
        wiring.connect(m, fetch.word, decoder.word)
        m.d.comb += [
            fetch.start.eq(self.start),
            fetch.words.eq(settings["words"]),
            decoder.start.eq(self.start),
            sequencer.start.eq(self.start),
            sequencer.run.eq(running),
            sequencer.ended.eq(decoded),
            sequencer.blocked.eq(decoder.waits | decoder.unknown),
            self.unknown.eq(decoder.unknown),
            self.done.eq(running & sequencer.done),
            self.stuck.eq(running & sequencer.stuck),
            self.cycles.eq(sequencer.cycles),
        ]
        with m.If(self.start):
            m.d.sync += [fetching.eq(1), running.eq(0)]
        with m.Elif(fetching & (decoded | decoder.waits | decoder.unknown)):
            m.d.sync += [fetching.eq(0), running.eq(1)]
        for module in MODULES:
            name = module.lower()
            wiring.connect(m, getattr(decoder, name), getattr(sequencer, name))
            m.d.comb += [
                getattr(self, f"{name}_busy").eq(getattr(sequencer, f"{name}_cycles")),
                getattr(self, f"{name}_missing").eq(getattr(sequencer, f"{name}_missing")),
                getattr(self, f"{name}_number").eq(getattr(sequencer, f"{name}_item").number),
            ]

    def _modules(self, m: Module, settings: dict[str, Any]) -> None:
        """Join every module with the sequencer; SYS works for one cycle."""
        sequencer, parts = self.sequencer, {"ld": self.ld, "st": self.st, "mm": self.mm}
        parts |= {"mv": self.mv, "misc": self.misc}
        for name, part in parts.items():
            m.d.comb += [
                part.go.eq(getattr(sequencer, f"{name}_go")),
                part.item.eq(getattr(sequencer, f"{name}_item")),
                getattr(sequencer, f"{name}_busy").eq(part.busy),
            ]
        for name in ("ld", "st", "misc"):
            m.d.comb += getattr(sequencer, f"{name}_free").eq(parts[name].free)
        for name in ("st", "mm", "mv", "misc"):
            m.d.comb += getattr(sequencer, f"{name}_given").eq(parts[name].given)
        m.d.comb += [
            sequencer.ld_given.eq(self.receiver.given),
            sequencer.more.eq(self.st.linked),
            sequencer.pending.eq(self.receiver.pending | self.st.pending),
            self.ld.base.eq(settings["bases"][self.ld.item.base]),
            self.st.base.eq(settings["bases"][self.st.item.base]),
            self.ld.length.eq(settings["length"]),
            self.misc.length.eq(settings["length"]),
            self.mv.tile_0.eq(self.ld.tile_0),
            self.mv.tile_1.eq(self.ld.tile_1),
            self.mm.tile_0.eq(self.ld.stream_0),
            self.mm.tile_1.eq(self.ld.stream_1),
            # They share the chains; no compiled program asks for both at a time.
            sequencer.mm_free.eq(self.mm.free & self.mv.free),
            sequencer.mv_free.eq(self.mv.free & self.mm.free & ~self.mm.go),
            sequencer.sys_free.eq(1),
        ]
        gives = Signal(len(MODULES))
        m.d.sync += [
            sequencer.sys_busy.eq(sequencer.sys_go),
            gives.eq(spread(Unit_.SYS, sequencer.sys_item.releases)),
        ]
        m.d.comb += sequencer.sys_given.eq(Mux(sequencer.sys_busy, gives, 0))

    def _engine(self, m: Module) -> None:
        """Let MM or MV have the chains."""
        engine, mm, mv = self.engine, self.mm, self.mv
        m.d.comb += [
            engine.go.eq(mm.go | mv.go),
            engine.pairs.eq(mm.go),
            engine.passes.eq(Mux(mm.go, mm.item.passes, mv.item.passes)),
            engine.groups.eq(Mux(mm.go, mm.item.groups, mv.item.groups)),
            engine.side.eq(Mux(mm.busy, mm.side.as_value(), mv.side.as_value())),
            engine.top.eq(Mux(mm.busy, mm.top.as_value(), mv.top.as_value())),
        ]
        for user in (mm, mv):
            m.d.comb += [
                user.takes_side.eq(engine.takes_side),
                user.takes_top.eq(engine.takes_top),
                user.there.eq(engine.there),
                user.sums.eq(engine.sums),
            ]

    def _buses(self, m: Module) -> None:
        """Reads of memory are LD's, writes ST's; the other bus is the fetch's."""
        ld, receiver, bus = self.ld, self.receiver, self.bus
        wiring.connect(m, wiring.flipped(bus.ar), ld.ar)
        for name in ("aw", "w", "b"):
            wiring.connect(m, wiring.flipped(getattr(bus, name)), getattr(self.st, name))
        wiring.connect(m, wiring.flipped(self.code), self.fetch.bus)
        m.d.comb += [
            bus.r.ready.eq(1),
            receiver.valid.eq(bus.r.valid),
            receiver.data.eq(bus.r.payload.data),
            receiver.begun.eq(ld.begun),
            receiver.begun_enable.eq(ld.begun_enable),
            ld.room.eq(receiver.room),
        ]

    def _memory(self, m: Module, name: str, shape: ShapeLike, depth: int) -> Any:
        words: Any = memory.Memory(shape=shape, depth=depth, init=[])
        m.submodules[name] = words
        return words

    def _write(
        self, m: Module, words: Any, granularity: int, at: Value, value: Value, enable: Value
    ) -> None:
        port = words.write_port(granularity=granularity)
        m.d.comb += [port.addr.eq(at), port.data.eq(value), port.en.eq(enable)]

    def _read(self, m: Module, words: Any, at: Value) -> Value:
        port = words.read_port(domain="comb")
        m.d.comb += port.addr.eq(at)
        return Value.cast(port.data)

    def _out_buffer(self, m: Module) -> None:
        """The out buffer: words of results, written in parts, read whole."""
        arch, st, mm, mv, misc = self.arch, self.st, self.mm, self.mv, self.misc
        words = self._memory(
            m, "out_buffer", shapes.WORD_RESULTS * shapes.RESULT_BITS, shapes.out_words(arch)
        )
        mine = [getattr(mv, f"write_{word}") for word in range(shapes.result_words(arch))]
        mine += [getattr(mm, f"write_{token}") for token in range(arch.mm_tokens)]
        for write in (self.receiver.out, st.write, misc.write, *mine):
            self._write(m, words, shapes.RESULT_BITS, write.at, write.results, write.enable)
        m.d.comb += [
            st.seen.eq(self._read(m, words, st.at)),
            mv.vector.eq(self._read(m, words, mv.vector_at)),
            misc.a.eq(self._read(m, words, misc.a_at)),
            misc.b.eq(self._read(m, words, misc.b_at)),
            self.out_seen.eq(self._read(m, words, self.out_at)),
        ]

    def _row_table(self, m: Module) -> None:
        """The row table: lines of entries, one written at a time."""
        receiver, mv = self.receiver, self.mv
        entry = shapes.row_entry()
        words = self._memory(m, "row_table", TABLE_ROWS * entry.size, shapes.TABLE_LINES)
        value = Cat([receiver.data] * TABLE_ROWS)
        self._write(m, words, entry.size, receiver.table_at, value, receiver.table_enable)
        line = structured(shapes.entries(), "scale_line")
        m.d.comb += [
            line.as_value().eq(self._read(m, words, receiver.scale_at)),
            receiver.entry.eq(line[receiver.scale_row]),
        ]
        m.d.comb += self.mm.entries.as_value().eq(self._read(m, words, self.mm.table_at))
        for word in range(shapes.result_words(self.arch)):
            found = self._read(m, words, getattr(mv, f"table_at_{word}"))
            m.d.comb += getattr(mv, f"entries_{word}").as_value().eq(found)

    def _matrix_buffer(self, m: Module) -> None:
        """MV's matrices and MM's streams: two halves of weights each, and indices beside them."""
        halves = {"matrix": shapes.half_words(self.arch), "stream": shapes.weight_words(self.arch)}
        users = {"matrix": self.mv, "stream": self.mm}
        for name, depth in halves.items():
            self._half_buffers(m, name, depth, users[name])

    def _half_buffers(self, m: Module, name: str, depth: int, user: Any) -> None:
        """Build the halves of one buffer of `depth` words each."""
        receiver = self.receiver
        weights = self._memory(m, f"{name}_weights", len(user.weights), 2 * depth)
        indices = self._memory(m, f"{name}_indices", len(user.indices), 2 * depth)
        for words, write, value, bits in (
            (weights, receiver.weights, receiver.weights.weights, 8),
            (weights, receiver.raw, receiver.raw.weights, 8),
            (indices, receiver.indices, receiver.indices.indices, INDEX_BITS),
        ):
            at = write.at + Mux(write.half, depth, 0)
            enable = Mux(write.streams == (name == "stream"), write.enable, 0)
            self._write(m, words, bits, at, value, enable)
        m.d.comb += [
            user.weights.eq(self._read(m, weights, user.matrix_at)),
            user.indices.eq(self._read(m, indices, user.matrix_at)),
        ]

    def _activations(self, m: Module) -> None:
        """Activations of MM: words of 16 elements of a tile of tokens."""
        write, bits = self.receiver.act, shapes.act_word(self.arch)
        words = self._memory(m, "activations", bits, 2 * shapes.act_words(self.arch))
        value = Cat([self.receiver.data] * len(write.enable))
        self._write(m, words, len(self.receiver.data), write.at, value, write.enable)
        m.d.comb += self.mm.act.eq(self._read(m, words, self.mm.act_at))
