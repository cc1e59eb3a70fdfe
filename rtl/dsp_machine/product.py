"""MV: a vector times the matrix in half a buffer, on the matrix engine."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain.arithmetic import rounded, saturated
from rtl.dsp_machine import shapes
from rtl.dsp_machine.engine import STEPS, engine_user, row_cuts, row_node
from rtl.dsp_machine.load import rows_kept
from rtl.dsp_machine.sequencer import spread
from rtl.dsp_machine.shapes import MODULES
from rtl.dsp_machine.store import narrow, results_of
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import CANDIDATES
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["Product", "Requantise"]


class Requantise(Unit):
    """Turns the sums of a pass into results at their places in words of the out buffer.

    A chain holds 2**step rows, each of which ends at a node of its own. `row` is the first row of
    the pass, `end` behind the last that has its N. Combinational.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch, self.params = arch, shapes.chain(arch)
        words = shapes.result_words(arch)
        ports: dict[str, Any] = {
            "sums": In(shapes.sums(arch)),
            "step": In(range(STEPS)),
            "row": In(shapes.ROW_BITS),
            "end": In(shapes.ROW_BITS),
            "tabled": In(1),
            "down": In(5),
            "relu": In(1),
        }
        for word in range(words):
            ports[f"entries_{word}"] = In(shapes.entries())
            ports[f"results_{word}"] = Out(shapes.WORD_RESULTS * shapes.RESULT_BITS)
            ports[f"enable_{word}"] = Out(shapes.WORD_RESULTS)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the lanes."""
        m = Module()
        first = self.row & ~(shapes.WORD_RESULTS - 1)
        for word in range(shapes.result_words(self.arch)):
            for lane in range(shapes.WORD_RESULTS):
                place = word * shapes.WORD_RESULTS + lane
                row, there = first + place, Signal(name=f"there_{place}")
                rows = Const(self.arch.mv_columns, shapes.ROW_BITS) << self.step
                m.d.comb += there.eq((row >= self.row) & (row < self.end) & (row < self.row + rows))
                result = self._result(m, word, lane, self._sum(m, place))
                target = getattr(self, f"results_{word}")
                m.d.comb += target[shapes.RESULT_BITS * lane :][: shapes.RESULT_BITS].eq(result)
                m.d.comb += getattr(self, f"enable_{word}")[lane].eq(there)
        return m

    def _sum(self, m: Module, place: int) -> Value:
        """Return the sum of the row at a place, whatever the rows of a chain."""
        found, groups = Signal(signed(32), name=f"sum_{place}"), self.params.chain.groups
        with m.Switch(self.step):
            for step in range(STEPS):
                chain, which = divmod(place % (self.arch.mv_columns << step), 1 << step)
                node = row_node(which, step, groups)
                with m.Case(step):
                    m.d.comb += found.eq(self.sums[chain][node][0])
        return found

    def _result(self, m: Module, word: int, lane: int, total: Value) -> Value:
        entry = getattr(self, f"entries_{word}")[lane]
        bias = Mux(self.tabled, entry.bias, 0)
        value = rounded(total, Mux(self.tabled, entry.down, self.down)) + bias
        narrowed = saturated(value, shapes.RESULT_BITS)
        return Mux(self.relu & (narrowed < 0), 0, narrowed)


class Product(Unit):
    """The MV module: feeds the matrix engine a pass a cycle and takes its results.

    Latency: results of a pass are in the out buffer `DspChain.fill_cycles` cycles after its turn.
    Throughput: one MV at a time. Back-pressure: none. Reset: idle, half 0 next.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        matrix = range(2 * shapes.half_words(arch))
        weights = arch.mv_columns * CANDIDATES
        ports: dict[str, Any] = {
            "go": In(1),
            "item": In(shapes.instruction(Unit_.MV)),
            "free": Out(1),
            "busy": Out(1),
            "given": Out(len(MODULES)),
            "tile_0": In(shapes.tile()),
            "tile_1": In(shapes.tile()),
            "vector_at": Out(shapes.OUT_BITS),
            "vector": In(shapes.WORD_RESULTS * shapes.RESULT_BITS),
            "matrix_at": Out(matrix),
            "weights": In(weights * 8),
            "indices": In(weights * INDEX_BITS),
            **engine_user(arch),
        }
        for word in range(shapes.result_words(arch)):
            ports |= {
                f"table_at_{word}": Out(shapes.LINES_BITS),
                f"entries_{word}": In(shapes.entries()),
                f"write_{word}": Out(shapes.out_write(arch)),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        self._held = held = structured(shapes.instruction(Unit_.MV), "held")
        self._tile = tile = structured(shapes.tile(), "tile")
        half, last, following = Signal(init=1), Signal(), Signal()
        self._base = Signal.like(self.matrix_at, name="base")
        m.d.comb += [
            # One that waits for LD goes on to the other half.
            following.eq(half ^ spread(Unit_.MV, self.item.waits)[MODULES.index(Unit_.LD)]),
            self.free.eq(~self.busy | last),
            self.given.eq(Mux(last, spread(Unit_.MV, held.releases), 0)),
        ]
        with m.If(self.go):
            m.d.sync += [
                self.busy.eq(1),
                held.eq(self.item),
                half.eq(following),
                tile.eq(Mux(following, self.tile_1.as_value(), self.tile_0.as_value())),
                self._base.eq(Mux(following, shapes.half_words(self.arch), 0)),
            ]
        with m.Elif(last):
            m.d.sync += self.busy.eq(0)
        self._candidates(m)
        self._weights(m)
        m.d.comb += last.eq(self._results(m))
        return m

    def _pass_rows(self, m: Module, name: str, moves: Value) -> tuple[Value, Value, Signal]:
        """Walk the passes' first rows; returns log2 of a chain's rows, their end, and the row.

        Passes beyond the tile's rows, which ragged tiles have, stay behind the last.
        """
        row = Signal(shapes.ROW_BITS, name=f"{name}_row")
        step, end = rows_kept(self._tile, row)
        following = row + (Const(self.arch.mv_columns, shapes.ROW_BITS) << step)
        with m.If(self.go):
            m.d.sync += row.eq(0)
        with m.Elif(moves):
            m.d.sync += row.eq(Mux(following < end, following, end))
        return step, end, row

    def _candidates(self, m: Module) -> None:
        """Give every pass its group of the vector, rounded to int8."""
        group = Signal(shapes.GROUP_BITS, name="side_group")
        m.d.comb += self.vector_at.eq((self._held.vector << shapes.WORD_SHIFT) + group)
        for place, result in enumerate(results_of(self.vector)):
            byte = Signal(signed(8), name=f"narrow_{place}")
            m.d.comb += byte.eq(narrow(result, self._held.shift))
            m.d.comb += (acts[place][0].eq(byte) for acts in self.side)
        with m.If(self.go):
            m.d.sync += group.eq(0)
        with m.Elif(self.takes_side):
            m.d.sync += group.eq(Mux(group + 1 == self._held.groups, 0, group + 1))

    def _weights(self, m: Module) -> None:
        """Give every set its weights: a word of the buffer, indices of their own if not dense."""
        count, group = (
            Signal.like(self.matrix_at, name="word"),
            Signal(shapes.GROUP_BITS, name="top_group"),
        )
        ends = group + 1 == self._held.groups
        step, _, _ = self._pass_rows(m, "top", self.takes_top & ends)
        stages, groups = self.arch.chain_stages, shapes.chain(self.arch).chain.groups
        m.d.comb += self.matrix_at.eq(self._base + count)
        with m.If(self.go):
            m.d.sync += [count.eq(0), group.eq(0)]
        with m.Elif(self.takes_top):
            m.d.sync += [count.eq(count + 1), group.eq(Mux(ends, 0, group + 1))]
        cuts = row_cuts(m, "cuts", step, groups)
        for chain, top in enumerate(self.top):
            m.d.comb += top.cuts[0].eq(cuts)
            for stage in range(stages):
                at = chain * stages + stage
                pair = top.pairs[0][0][stage]
                index = self.indices[INDEX_BITS * at :][:INDEX_BITS]
                m.d.comb += [
                    pair.value.eq(self.weights[8 * at : 8 * at + 8].as_signed()),
                    pair.index.eq(Mux(step == 0, stage, index)),
                ]

    def _results(self, m: Module) -> Value:
        """Requantise the sums of a pass and write them; returns whether they are the last."""
        held, left = self._held, Signal(16, name="passes_left")
        mine = self.busy & self.there
        m.submodules.lanes = lanes = Requantise(self.arch)
        step, end, row = self._pass_rows(m, "out", mine)
        m.d.comb += [
            lanes.sums.eq(self.sums),
            lanes.step.eq(step),
            lanes.row.eq(row),
            lanes.end.eq(end),
            lanes.tabled.eq(held.tabled),
            lanes.down.eq(held.down),
            lanes.relu.eq(held.relu),
        ]
        for word in range(shapes.result_words(self.arch)):
            write = getattr(self, f"write_{word}")
            line = (row >> 4) + word
            m.d.comb += [
                getattr(self, f"table_at_{word}").eq(held.table + line),
                getattr(lanes, f"entries_{word}").eq(getattr(self, f"entries_{word}")),
                write.at.eq((held.out << shapes.WORD_SHIFT) + line),
                write.results.eq(getattr(lanes, f"results_{word}")),
                write.enable.eq(Mux(mine & held.emit, getattr(lanes, f"enable_{word}"), 0)),
            ]
        with m.If(self.go):
            m.d.sync += left.eq(self.item.passes)
        with m.Elif(mine):
            m.d.sync += left.eq(left - 1)
        return mine & (left == 1)
