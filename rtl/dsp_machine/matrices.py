"""MM: a tile of tokens times a tile of columns, on the matrix engine."""

from typing import Any

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain.arithmetic import rounded, saturated
from rtl.dsp_machine import shapes
from rtl.dsp_machine.engine import STEPS, engine_user, row_cuts, row_node
from rtl.dsp_machine.load import ChainWalk, rows_kept
from rtl.dsp_machine.sequencer import spread
from rtl.dsp_machine.shapes import MODULES
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import CANDIDATES, TOKENS
from simulator.arch.dsp_chain import INDEX_BITS, DspChain
from simulator.dsp_isa.layout import Module as Unit_

__all__ = ["Matrices", "TokenLanes"]


class TokenLanes(Unit):
    """Turns one token's sums of a pass into results: 2**`step` rows, from any place of a word on.

    `factors` has shift and bias of each row; every lane gets the result of the row that would end
    there. Combinational.
    """

    def __init__(self, arch: DspChain) -> None:
        super().__init__(
            {
                "sums": In(shapes.token_sums(arch)),
                "step": In(range(STEPS)),
                "factors": In(shapes.factors(arch)),
                "relu": In(1),
                "results": Out(shapes.WORD_RESULTS * shapes.RESULT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the lanes."""
        m = Module()
        rows = [self._row(m, row) for row in range(len(self.factors))]
        for lane in range(shapes.WORD_RESULTS):
            target = self.results[shapes.RESULT_BITS * lane :][: shapes.RESULT_BITS]
            with m.Switch(self.step):
                for step in range(STEPS):
                    with m.Case(step):
                        m.d.comb += target.eq(rows[lane % (1 << step)])
        return m

    def _row(self, m: Module, row: int) -> Signal:
        """Return the result of a row, whose sum is at a node that depends on the rows' number."""
        total, result = Signal(signed(32), name=f"sum_{row}"), Signal(16, name=f"result_{row}")
        with m.Switch(self.step):
            for step in range(STEPS):
                if row < 1 << step:
                    with m.Case(step):
                        m.d.comb += total.eq(self.sums[row_node(row, step, len(self.sums))])
        factor = self.factors[row]
        value = saturated(rounded(total, factor.down) + factor.bias, shapes.RESULT_BITS)
        m.d.comb += result.eq(Mux(self.relu & (value < 0), 0, value))
        return result


class Matrices(Unit):
    """The MM module: chains of weights stream past a tile of tokens, a pair of them in each chain.

    A pass is what a chain holds of a group: 16 / N rows, of all tokens. `half` buffers of weights
    take turns, one that waits for LD goes on to the other; which half of the activations it reads
    the instruction says. Results are a word for every token, 16 columns wide.

    Latency: results of a pass are in the out buffer `DspChain.fill_cycles` cycles after its turn.
    Throughput: one MM at a time. Back-pressure: none. Reset: idle, half 0 next.
    """

    def __init__(self, arch: DspChain) -> None:
        self.arch = arch
        columns = arch.mv_columns * CANDIDATES
        ports: dict[str, Any] = {
            "go": In(1),
            "item": In(shapes.instruction(Unit_.MM)),
            "free": Out(1),
            "busy": Out(1),
            "given": Out(len(MODULES)),
            "tile_0": In(shapes.tile()),
            "tile_1": In(shapes.tile()),
            "act_at": Out(range(2 * shapes.act_words(arch))),
            "act": In(shapes.act_word(arch)),
            "matrix_at": Out(range(2 * shapes.weight_words(arch))),
            "weights": In(columns * 8),
            "indices": In(columns * INDEX_BITS),
            "table_at": Out(shapes.LINES_BITS),
            "entries": In(shapes.entries()),
            **engine_user(arch),
        }
        for token in range(arch.mm_tokens):
            ports[f"write_{token}"] = Out(shapes.out_write(arch))
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        self._held = held = structured(shapes.instruction(Unit_.MM), "held")
        self._tile = tile = structured(shapes.tile(), "tile")
        half, last, following = Signal(init=1), Signal(), Signal()
        next_tile = Mux(following, self.tile_1.as_value(), self.tile_0.as_value())
        m.d.comb += [
            # One that waits for LD goes on to the other half.
            following.eq(half ^ spread(Unit_.MM, self.item.waits)[MODULES.index(Unit_.LD)]),
            self.free.eq(~self.busy | last),
            self.given.eq(Mux(last, spread(Unit_.MM, held.releases), 0)),
        ]
        with m.If(self.go):
            m.d.sync += [
                self.busy.eq(1),
                held.eq(self.item),
                half.eq(following),
                tile.eq(next_tile),
            ]
        with m.Elif(last):
            m.d.sync += self.busy.eq(0)
        self._candidates(m)
        self._weights(m, next_tile, half)
        m.d.comb += last.eq(self._results(m))
        return m

    def _candidates(self, m: Module) -> None:
        """Give every chain its tokens' group of activations, group after group of a pass."""
        group, held = Signal(shapes.GROUP_BITS, name="side_group"), self._held
        m.d.comb += self.act_at.eq(Mux(held.act[0], shapes.act_words(self.arch), 0) + group)
        with m.If(self.go):
            m.d.sync += group.eq(0)
        with m.Elif(self.takes_side):
            m.d.sync += group.eq(Mux(group + 1 == held.groups, 0, group + 1))
        for chain in range(self.arch.mv_columns):
            for token in range(TOKENS):
                row = (TOKENS * chain + token) * CANDIDATES
                for place in range(CANDIDATES):
                    byte = self.act[8 * (row + place) :][:8]
                    m.d.comb += self.side[chain][place][token].eq(byte.as_signed())

    def _weights(self, m: Module, next_tile: Value, half: Value) -> None:
        """Give all chains the weights of one, chain after chain as the buffer has them."""
        m.submodules.walk = walk = ChainWalk(self.arch)
        chain_params = shapes.chain(self.arch).chain
        step, _ = rows_kept(self._tile, walk.row)
        cuts = row_cuts(m, "cuts", step, chain_params.groups)
        size = CANDIDATES * 8
        weights: Any = Array(self.weights[size * c :][:size] for c in range(self.arch.mv_columns))
        size = CANDIDATES * INDEX_BITS
        indices: Any = Array(self.indices[size * c :][:size] for c in range(self.arch.mv_columns))
        m.d.comb += [
            walk.begin.eq(self.go),
            walk.tile.as_value().eq(next_tile),
            walk.groups.eq(self.item.groups),
            walk.advance.eq(self.takes_top),
            self.matrix_at.eq(Mux(half, shapes.weight_words(self.arch), 0) + walk.at),
        ]
        weight, index = Signal(CANDIDATES * 8), Signal(CANDIDATES * INDEX_BITS)
        m.d.comb += [weight.eq(weights[walk.chain]), index.eq(indices[walk.chain])]
        for top in self.top:
            m.d.comb += top.cuts[0].eq(cuts)
            for stage in range(CANDIDATES):
                pair, own = top.pairs[0][0][stage], index[INDEX_BITS * stage :][:INDEX_BITS]
                m.d.comb += [
                    pair.value.eq(weight[8 * stage :][:8].as_signed()),
                    pair.index.eq(Mux(step == 0, stage, own)),
                ]

    def _results(self, m: Module) -> Value:
        """Requantise the sums of a pass and write them; returns whether they are the last."""
        held, left = self._held, Signal(16, name="passes_left")
        row, mine = Signal(shapes.ROW_BITS, name="out_row"), self.busy & self.there
        step, _ = rows_kept(self._tile, row)
        factors, enable = self._factors(m, row), Signal(shapes.WORD_RESULTS)
        m.d.comb += [
            self.table_at.eq(held.table),
            enable.eq(Mux(mine & held.emit, (1 << (1 << step)) - 1, 0) << row[:4]),
        ]
        with m.If(self.go):
            m.d.sync += [left.eq(self.item.passes), row.eq(0)]
        with m.Elif(mine):
            m.d.sync += [left.eq(left - 1), row.eq(row + (Const(1, shapes.ROW_BITS) << step))]
        for token in range(self.arch.mm_tokens):
            m.submodules[f"lanes_{token}"] = lanes = TokenLanes(self.arch)
            write, sums = getattr(self, f"write_{token}"), self.sums[token // TOKENS]
            for target, node in zip(lanes.sums, sums, strict=True):
                m.d.comb += target.eq(node[token % TOKENS])
            m.d.comb += [
                lanes.step.eq(step),
                lanes.factors.eq(factors),
                lanes.relu.eq(held.relu),
                write.at.eq((held.out << shapes.WORD_SHIFT) + token),
                write.results.eq(lanes.results),
                write.enable.eq(enable),
            ]
        return mine & (left == 1)

    def _factors(self, m: Module, row: Value) -> Any:
        """Return shift and bias of the pass' rows: those of the row table, or the instruction's."""
        held, factors = self._held, structured(shapes.factors(self.arch), "factors")
        entries: Any = Array(self.entries)
        for place, factor in enumerate(factors):
            entry = structured(shapes.row_entry(), f"entry_{place}")
            m.d.comb += [
                entry.as_value().eq(entries[(row + place)[:4]].as_value()),
                factor.down.eq(Mux(held.tabled, entry.down, held.down)),
                factor.bias.eq(Mux(held.tabled, entry.bias, 0)),
            ]
        return factors
