"""LD: addresses out, data back, weights through the dequantiser, every byte to its place."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain.dequantiser import Dequantiser
from rtl.dsp_machine import shapes
from rtl.dsp_machine.reader import Reader
from rtl.dsp_machine.sequencer import spread
from rtl.dsp_machine.shapes import MODULES
from rtl.machine import shapes as machine_shapes
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa.layout import Buffer
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["ChainWalk", "Loader", "Receiver", "Sections", "WeightLoad", "rows_kept"]


def rows_kept(tile: Any, row: Value) -> tuple[Value, Value]:
    """Return log2(16 / N) of a row's N, and where the rows of this N end."""
    step = Mux(
        row < tile.end_16, 0, Mux(row < tile.end_8, 1, Mux(row < tile.end_4, 2, 3))
    )  # fmt: skip
    end = Mux(
        row < tile.end_16,
        tile.end_16,
        Mux(row < tile.end_8, tile.end_8, Mux(row < tile.end_4, tile.end_4, tile.end_2)),
    )
    return step, end


def weights_of(item: Any) -> Value:
    """Tell whether a load fills a half buffer of MV or of MM."""
    return (item.buffer == Buffer.MATRIX) | (item.buffer == Buffer.WEIGHT)


class ChainWalk(Unit):
    """Walks the chains of a tile as memory has them: group after group, chain after chain.

    `at` is the word of the half buffer, `chain` the chain and `row` the first of its rows, `last`
    the tile's last group. Every N begins a word of its own. `begin` starts at the first row, or
    with `sparse` at the first that keeps fewer than 16.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "begin": In(1),
                "sparse": In(1),
                "tile": In(shapes.tile()),
                "groups": In(shapes.GROUP_BITS),
                "advance": In(1),
                "at": Out(range(shapes.half_words(arch))),
                "chain": Out(range(arch.mv_columns)),
                "row": Out(shapes.ROW_BITS),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the walk."""
        m = Module()
        chains, row = self.arch.mv_columns, self.row
        tile, groups = structured(shapes.tile(), "walked"), Signal(shapes.GROUP_BITS)
        group, base = Signal(shapes.GROUP_BITS), Signal.like(self.at, name="base")
        step, end = rows_kept(tile, row)
        following = Signal(shapes.ROW_BITS)
        wraps, pass_ends = Signal(), Signal()
        dense_passes = (self.tile.end_16 + chains - 1) >> (chains - 1).bit_length()
        m.d.comb += [
            following.eq(row + (Const(1, shapes.ROW_BITS) << step)),
            wraps.eq(group + 1 == groups),
            pass_ends.eq((self.chain == chains - 1) | (following == end)),
            self.last.eq(wraps & (following == tile.end_2)),
            self.at.eq(base + group),
        ]
        with m.If(self.begin):
            m.d.sync += [tile.eq(self.tile), groups.eq(self.groups), group.eq(0), self.chain.eq(0)]
            m.d.sync += row.eq(Mux(self.sparse, self.tile.end_16, 0))
            m.d.sync += base.eq(Mux(self.sparse, dense_passes * self.groups, 0))
        with m.Elif(self.advance):
            m.d.sync += group.eq(Mux(wraps, 0, group + 1))
            with m.If(wraps):
                m.d.sync += [row.eq(following), self.chain.eq(Mux(pass_ends, 0, self.chain + 1))]
                with m.If(pass_ends):
                    m.d.sync += base.eq(base + groups)
        return m


class Sections(Unit):
    """Tells codes from indices: of 16 rows of one N the codes, then the indices if it is not 16.

    `indexing` says what a tile's beat is, `last` that it is the last one of its codes. Moves on
    with `advance`, and starts anew behind the tile's `end`.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "item": In(shapes.load()),
                "advance": In(1),
                "end": In(1),
                "indexing": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the walk."""
        m = Module()
        item, bits = self.item, machine_shapes.beat_bits(self.arch)
        row, beat = Signal(shapes.ROW_BITS), Signal(shapes.COUNT_BITS)
        step, _ = rows_kept(item.tile, row)
        each = CANDIDATES * CANDIDATES // bits
        size = Mux(self.indexing, INDEX_BITS, item.bits) * item.groups * each >> step
        ends = beat + 1 == size
        whole = ends & (self.indexing | (step == 0))
        m.d.comb += self.last.eq(ends & ~self.indexing & (row + CANDIDATES == item.tile.end_2))
        with m.If(self.end):
            m.d.sync += [row.eq(0), beat.eq(0), self.indexing.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1))
            with m.If(ends):
                m.d.sync += self.indexing.eq(~whole)
            with m.If(whole):
                m.d.sync += row.eq(row + CANDIDATES)
        return m


class WeightLoad(Unit):
    """Turns packed codes into int8 weights at their places.

    Takes a tile's load with `begin` and the beats of its codes with `valid`, the last with `last`.
    Words of four beats go through the dequantiser, a chain's weights of one group come out.

    Latency: weights of a tile's last beat are written at most `DRAIN` cycles after it.
    Back-pressure: none. A tile has at least two words of codes: its second never comes too soon.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "begin": In(1),
                "item": In(shapes.load()),
                "valid": In(1),
                "last": In(1),
                "beat": In(machine_shapes.beat_bits(arch)),
                "table_at": Out(shapes.LINES_BITS),
                "table_row": Out(4),
                "entry": In(shapes.row_entry()),
                "write": Out(shapes.weight_write(arch)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the path."""
        m = Module()
        m.submodules.dequantiser = unit = Dequantiser(shapes.dequantiser(self.arch))
        inward = self._waiting(m, "inward", self.begin, self.item.as_value())
        accepted, opens = Signal(), self._words(m, unit)
        m.d.comb += [
            # A job without a word would hold the results of the one before.
            unit.job.valid.eq(inward.r_rdy & opens),
            accepted.eq(unit.job.valid & unit.job.ready),
            inward.r_en.eq(accepted),
        ]
        item = structured(shapes.load(), "accepted_item")
        m.d.comb += [
            item.as_value().eq(inward.r_data),
            unit.job.payload.bits.eq(item.bits),
            unit.job.payload.beats.eq(self._beats(item)),
            unit.job.payload.scale_beats.eq(item.groups),
        ]
        self._scales(m, unit, item, accepted)
        self._weights(m, unit, item, accepted)
        return m

    def _waiting(self, m: Module, name: str, enable: Value, value: Value) -> Any:
        queue = fifo.SyncFIFO(width=len(value), depth=shapes.LOADS)
        m.submodules[name] = queue
        m.d.comb += [queue.w_en.eq(enable), queue.w_data.eq(value)]
        return queue

    def _beats(self, item: Any) -> Value:
        """Return the groups of all chains: a chain holds 16 / N rows."""
        tile = item.tile
        bounds = [0, tile.end_16, tile.end_8, tile.end_4, tile.end_2]
        chains = sum(
            (end - start)[: shapes.ROW_BITS] >> place
            for place, (start, end) in enumerate(pairwise(bounds))
        )
        return chains * item.groups

    def _words(self, m: Module, unit: Any) -> Signal:
        """Gather beats to words of the dequantiser; returns whether a tile's first is offered."""
        bits, width = machine_shapes.beat_bits(self.arch), len(unit.side.payload)
        beats = width // bits
        count, opens, first = Signal(range(beats)), Signal(), Signal(init=1)
        gathered, word = Signal(width - bits), Signal(width)
        complete = self.valid & (self.last | (count == beats - 1))
        with m.If(self.valid):
            m.d.sync += count.eq(Mux(complete, 0, count + 1))
            for place in range(beats - 1):
                with m.If(count == place):
                    m.d.sync += gathered[place * bits : (place + 1) * bits].eq(self.beat)
        with m.If(complete):
            # What a tile's last word lacks is dropped by its job.
            below = [gathered[: place * bits] for place in range(beats)]
            for place in range(beats):
                with m.If(count == place):
                    m.d.sync += word.eq(Cat(below[place], self.beat))
            m.d.sync += [unit.side.valid.eq(1), opens.eq(first), first.eq(self.last)]
        with m.Elif(unit.side.ready):
            m.d.sync += [unit.side.valid.eq(0), opens.eq(0)]
        m.d.comb += unit.side.payload.eq(word)
        return opens

    def _scales(self, m: Module, unit: Any, item: Any, accepted: Value) -> None:
        """Give every chain the scale of its first row."""
        tile, row = structured(shapes.tile(), "scaled"), Signal(shapes.ROW_BITS, name="scale_row")
        line = Signal(shapes.LINES_BITS, name="scale_line")
        step, _ = rows_kept(tile, row)
        m.d.comb += [
            self.table_at.eq(line + (row >> 4)),
            self.table_row.eq(row[:4]),
            unit.top.valid.eq(1),
            unit.top.payload.scale.eq(self.entry.scale),
            unit.top.payload.shift.eq(self.entry.shift),
        ]
        with m.If(accepted):
            m.d.sync += [tile.eq(item.tile), row.eq(0), line.eq(item.table)]
        with m.Elif(unit.top.ready):
            m.d.sync += row.eq(row + (Const(1, shapes.ROW_BITS) << step))

    def _weights(self, m: Module, unit: Any, item: Any, accepted: Value) -> None:
        """Write what leaves the dequantiser."""
        outward = self._waiting(m, "outward", accepted, item.as_value())
        m.submodules.walk = walk = ChainWalk(self.arch)
        walks, there = Signal(), structured(shapes.load(), "leaving")
        there_now = structured(shapes.load(), "walked_load")
        ends = unit.out.valid & walk.last
        m.d.comb += [
            there.as_value().eq(outward.r_data),
            walk.begin.eq(outward.r_rdy & (~walks | ends)),
            outward.r_en.eq(walk.begin),
            walk.tile.eq(there.tile),
            walk.groups.eq(there.groups),
            walk.advance.eq(unit.out.valid),
            unit.out.ready.eq(1),
            self.write.at.eq(walk.at),
            self.write.half.eq(there_now.half),
            self.write.streams.eq(there_now.streams),
            self.write.weights.eq(Cat([unit.out.payload.as_value()] * self.arch.mv_columns)),
        ]
        with m.If(walk.begin):
            m.d.sync += [walks.eq(1), there_now.eq(there)]
        with m.Elif(ends):
            m.d.sync += walks.eq(0)
        for chain in range(self.arch.mv_columns):
            enable = Mux(unit.out.valid & (walk.chain == chain), (1 << CANDIDATES) - 1, 0)
            m.d.comb += self.write.enable[CANDIDATES * chain :][:CANDIDATES].eq(enable)


class Receiver(Unit):
    """The data side of loads: takes beats as they come and writes them where they belong.

    Loads come with `begun` in the order of their data. `given` are the tokens of a load, `DRAIN`
    cycles after its last beat. Back-pressure: never. Reset: no load is under way.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "begun": In(shapes.load()),
                "begun_enable": In(1),
                "room": Out(1),
                "valid": In(1),
                "data": In(machine_shapes.beat_bits(arch)),
                "pending": Out(1),
                "given": Out(len(MODULES)),
                "out": Out(shapes.out_write(arch)),
                "table_at": Out(shapes.LINES_BITS),
                "table_enable": Out(16),
                "act": Out(shapes.act_write(arch)),
                "weights": Out(shapes.weight_write(arch)),
                "raw": Out(shapes.weight_write(arch)),
                "indices": Out(shapes.index_write(arch)),
                "scale_at": Out(shapes.LINES_BITS),
                "scale_row": Out(4),
                "entry": In(shapes.row_entry()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the receiver."""
        m = Module()
        layout = shapes.load()
        queue = m.submodules.queue = fifo.SyncFIFO(width=layout.size, depth=shapes.LOADS)
        item, beat = structured(layout, "current"), Signal(shapes.COUNT_BITS)
        last = Signal()
        m.d.comb += [
            queue.w_en.eq(self.begun_enable),
            queue.w_data.eq(self.begun.as_value()),
            self.room.eq(queue.w_rdy),
            item.as_value().eq(queue.r_data),
            last.eq(self.valid & (beat + 1 == item.beats)),
            queue.r_en.eq(last),
        ]
        with m.If(self.valid):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        self._tokens(m, queue, item, last)
        m.submodules.sections = sections = Sections(self.arch)
        mine = self.valid & weights_of(item)
        m.d.comb += [
            sections.item.eq(item),
            sections.advance.eq(mine & (item.bits != 0)),
            sections.end.eq(last),
        ]
        self._results(m, item, beat)
        self._activations(m, item, beat)
        self._codes(m, mine, item, sections)
        self._indices(m, mine, item, beat, sections)
        self._raw(m, mine, item, last)
        return m

    def _is(self, item: Any, buffer: Buffer) -> Value:
        return self.valid & (item.buffer == buffer)

    def _tokens(self, m: Module, queue: Any, item: Any, last: Value) -> None:
        """Give tokens when what the last beat brought is surely in its place."""
        line = [Signal(len(MODULES), name=f"given_{stage}") for stage in range(shapes.DRAIN)]
        ends = [Signal(name=f"ends_{stage}") for stage in range(shapes.DRAIN)]
        m.d.sync += line[0].eq(Mux(last, spread(Unit_.LD, item.releases), 0))
        m.d.sync += ends[0].eq(last)
        for stage in range(1, shapes.DRAIN):
            m.d.sync += [line[stage].eq(line[stage - 1]), ends[stage].eq(ends[stage - 1])]
        m.d.comb += [
            self.given.eq(line[-1]),
            self.pending.eq(queue.r_rdy | Cat(ends).any()),
        ]

    def _results(self, m: Module, item: Any, beat: Value) -> None:
        """Widen int8 to results; entries of the row table go as they are."""
        elements = shapes.beat_bytes(self.arch)
        words = shapes.WORD_RESULTS // elements
        bytes_ = [self.data[8 * i : 8 * i + 8].as_signed() for i in range(elements)]
        wide = Cat((byte << item.shift)[: shapes.RESULT_BITS] for byte in bytes_)
        place = beat[: (words - 1).bit_length()]
        enable = Mux(self._is(item, Buffer.OUT), (1 << elements) - 1, 0)
        m.d.comb += [
            self.out.at.eq((item.bank << shapes.WORD_SHIFT) + (beat >> len(place))),
            self.out.results.eq(Cat([wide] * words)),
            self.out.enable.eq(enable << (place * elements)),
            self.table_at.eq(item.bank + (beat >> 4)),
            self.table_enable.eq(self._is(item, Buffer.TABLE) << beat[:4]),
        ]

    def _activations(self, m: Module, item: Any, beat: Value) -> None:
        """Write words of 16 elements of a tile of tokens, beat after beat."""
        place = (len(self.act.enable) - 1).bit_length()
        m.d.comb += [
            self.act.at.eq(Mux(item.bank[0], shapes.act_words(self.arch), 0) + (beat >> place)),
            self.act.enable.eq(self._is(item, Buffer.ACT) << beat[:place]),
        ]

    def _codes(self, m: Module, mine: Value, item: Any, sections: Sections) -> None:
        m.submodules.codes = codes = WeightLoad(self.arch)
        packed = weights_of(self.begun) & (self.begun.bits != 0)
        m.d.comb += [
            codes.begin.eq(self.begun_enable & packed),
            codes.item.eq(self.begun),
            codes.valid.eq(mine & (item.bits != 0) & ~sections.indexing),
            codes.last.eq(sections.last),
            codes.beat.eq(self.data),
            codes.entry.eq(self.entry),
            self.scale_at.eq(codes.table_at),
            self.scale_row.eq(codes.table_row),
            self.weights.eq(codes.write),
        ]

    def _indices(self, m: Module, mine: Value, item: Any, beat: Value, sections: Sections) -> None:
        """Write indices, a part of a chain's a beat."""
        bits = machine_shapes.beat_bits(self.arch)
        parts = CANDIDATES * INDEX_BITS // bits
        m.submodules.index_walk = walk = ChainWalk(self.arch)
        indices = mine & (item.bits != 0) & sections.indexing
        part = Signal(range(parts))
        ends = part == parts - 1
        m.d.comb += [
            walk.begin.eq(mine & (item.bits != 0) & (beat == 0)),
            walk.sparse.eq(1),
            walk.tile.eq(item.tile),
            walk.groups.eq(item.groups),
            walk.advance.eq(indices & ends),
            self.indices.at.eq(walk.at),
            self.indices.half.eq(item.half),
            self.indices.streams.eq(item.streams),
            self.indices.indices.eq(Cat([self.data] * (parts * self.arch.mv_columns))),
        ]
        with m.If(indices):
            m.d.sync += part.eq(Mux(ends, 0, part + 1))
        each = bits // INDEX_BITS
        chosen = Mux(indices, (1 << each) - 1, 0) << (part * each)
        for chain in range(self.arch.mv_columns):
            enable = self.indices.enable[CANDIDATES * chain :][:CANDIDATES]
            m.d.comb += enable.eq(Mux(walk.chain == chain, chosen, 0))

    def _raw(self, m: Module, valid: Value, item: Any, last: Value) -> None:
        """Write int8 as it is: rows of memory along the reduction, or turned across it."""
        chains, each = self.arch.mv_columns, shapes.beat_bytes(self.arch)
        mine = valid & (item.bits == 0)
        along, column, part = self._along(m, item, mine & ~item.turned, last)
        across, candidate = self._across(m, item, mine & item.turned, last)
        repeated = Cat([self.data] * (CANDIDATES // each * chains))
        m.d.comb += [
            self.raw.at.eq(Mux(item.turned, across, along)),
            self.raw.half.eq(item.half),
            self.raw.streams.eq(item.streams),
            self.raw.weights.eq(Mux(item.turned, self._turned(), repeated)),
        ]
        row = Mux(mine & ~item.turned, (1 << each) - 1, 0) << (part * each)
        for chain in range(chains):
            enable = self.raw.enable[CANDIDATES * chain :][:CANDIDATES]
            turned = (mine & item.turned) << candidate
            m.d.comb += enable.eq(turned | Mux(column == chain, row, 0))

    def _along(self, m: Module, item: Any, moves: Value, last: Value) -> tuple[Value, ...]:
        """Walk rows of memory along the reduction; returns word, column of the pass, and part.

        A pass has a word for every group, and every chain's column in each.
        """
        chains, parts = self.arch.mv_columns, CANDIDATES // shapes.beat_bytes(self.arch)
        at, column, part = Signal.like(self.raw.at), Signal(range(chains)), Signal(range(parts))
        group = Signal(shapes.GROUP_BITS)
        ends, group_ends = part == parts - 1, group + 1 == item.groups
        returns = group_ends & (column != chains - 1)
        with m.If(last):
            m.d.sync += [signal.eq(0) for signal in (at, column, part, group)]
        with m.Elif(moves):
            m.d.sync += part.eq(Mux(ends, 0, part + 1))
            with m.If(ends):
                m.d.sync += [
                    group.eq(Mux(group_ends, 0, group + 1)),
                    at.eq(Mux(returns, at - item.groups + 1, at + 1)),
                    column.eq(column + group_ends),
                ]
        return at, column, part

    def _across(self, m: Module, item: Any, moves: Value, last: Value) -> tuple[Value, ...]:
        """Walk rows of memory across the reduction; returns word and candidate of the row."""
        passed, group = Signal.like(self.raw.at), Signal(shapes.GROUP_BITS)
        count, candidate = Signal(shapes.GROUP_BITS), Signal(range(CANDIDATES))
        beats = item.tile.end_2 >> (self.arch.mv_columns - 1).bit_length()
        row_ends = count + 1 == beats
        with m.If(last):
            m.d.sync += [signal.eq(0) for signal in (passed, group, count, candidate)]
        with m.Elif(moves):
            m.d.sync += [
                count.eq(Mux(row_ends, 0, count + 1)),
                passed.eq(Mux(row_ends, 0, passed + item.groups)),
                candidate.eq(candidate + row_ends),
                group.eq(group + (row_ends & (candidate == CANDIDATES - 1))),
            ]
        return passed + group, candidate

    def _turned(self) -> Value:
        """Return a word with a byte of the beat for every chain, whatever the candidate."""
        each = [self.data[8 * i : 8 * i + 8] for i in range(self.arch.mv_columns)]
        return Cat(Cat([byte] * CANDIDATES) for byte in each)


class Loader(Unit):
    """The LD module: starts a load with `go`, and remembers the tile that a half buffer holds.

    Those of MV are `tile_0` and `tile_1`, those of MM `stream_0` and `stream_1`. `length` is the
    tokens of a prompt: the last one's place in its tile is where a split load into the out buffer
    begins.

    Latency: tokens come `hbm.latency_cycles` after a load's last turn with a memory that answers
    `OVERHEAD` cycles sooner. Throughput: a beat a cycle, loads without a gap. Reset: idle.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        super().__init__(
            {
                "go": In(1),
                "item": In(shapes.instruction(Unit_.LD)),
                "base": In(shapes.LINE_BITS),
                "length": In(shapes.COUNT_BITS),
                "free": Out(1),
                "busy": Out(1),
                "begun": Out(shapes.load()),
                "begun_enable": Out(1),
                "room": In(1),
                "ar": Out(shapes.stream_of(machine_shapes.read_address())),
                "tile_0": Out(shapes.tile()),
                "tile_1": Out(shapes.tile()),
                "stream_0": Out(shapes.tile()),
                "stream_1": Out(shapes.tile()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        m.submodules.reader = reader = Reader(self.arch)
        wiring.connect(m, wiring.flipped(self.ar), reader.ar)
        item, begun = self.item, self.begun
        size = (shapes.beat_bytes(self.arch) - 1).bit_length()
        line = (shapes.line_beats(self.arch) - 1).bit_length()
        place, pitch, token = self._pieces()
        dense = item.rows - item.rows_8 - item.rows_4 - item.rows_2
        m.d.comb += [
            reader.go.eq(self.go),
            reader.start.eq((self.base << line) + (item.address << place) + token),
            reader.pitch.eq(pitch),
            reader.beats.eq(item.bytes >> size),
            self.free.eq(reader.free & self.room),
            self.busy.eq(reader.busy),
            self.begun_enable.eq(self.go),
            begun.beats.eq(item.bytes >> size),
            begun.streams.eq(item.buffer == Buffer.WEIGHT),
            begun.tile.end_16.eq(dense),
            begun.tile.end_8.eq(begun.tile.end_16 + item.rows_8),
            begun.tile.end_4.eq(begun.tile.end_8 + item.rows_4),
            begun.tile.end_2.eq(item.rows),
        ]
        for name in ("buffer", "bank", "shift", "bits", "turned", "groups", "table", "releases"):
            m.d.comb += begun[name].eq(getattr(item, name))
        self._halves(m, Buffer.MATRIX, (self.tile_0, self.tile_1))
        self._halves(m, Buffer.WEIGHT, (self.stream_0, self.stream_1))
        return m

    def _pieces(self) -> tuple[Value, Value, Value]:
        """Return the bits of what an address counts, in beats, and of a split load the beats.

        They are those between its pieces, and before the last token's of a block.
        """
        item, arch, beats = self.item, self.arch, shapes.piece_beats(self.arch)
        place, pitch = shapes.pieces(arch, item.split)
        blocks = item.split & (item.buffer == Buffer.OUT)
        token = (self.length - 1)[: (arch.mm_tokens - 1).bit_length()] * beats
        return place, Mux(blocks, beats * arch.mm_tokens, pitch), Mux(blocks, token, 0)

    def _halves(self, m: Module, buffer: Buffer, tiles: tuple[Any, Any]) -> None:
        """Fill the halves of a buffer in turn."""
        half, mine = Signal(name=f"half_{buffer.name.lower()}"), self.item.buffer == buffer
        with m.If(mine):
            m.d.comb += self.begun.half.eq(half)
        with m.If(self.go & mine):
            m.d.sync += half.eq(~half)
            for which, tile in enumerate(tiles):
                with m.If(half == which):
                    m.d.sync += tile.eq(self.begun.tile)
