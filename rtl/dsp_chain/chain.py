"""The VPU: one sparse chain of DSP slices with its weights."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain import shapes
from rtl.dsp_chain.dsp import Dsp
from rtl.dsp_chain.shapes import Addend
from rtl.float.pipeline import delayed
from rtl.unit import Unit, structured
from simulator.arch.dsp_cells import TOKENS, ChainParams, DspSlice

__all__ = ["OverflowAdjust", "SparseSlice", "Vpu", "WeightBank"]


class WeightBank(Unit):
    """Two banks of a chain's weights, indices and cuts: one computes while the other loads.

    Latency: a block written in one slot computes in the next, if the banks change between them.
    Throughput: one block a slot. Reset: none; what was never loaded is undefined.
    """

    def __init__(self, params: ChainParams) -> None:
        self.params = params
        super().__init__(
            {
                "control": In(shapes.bank_load(params)),
                "pairs": In(shapes.kept_pairs(params, params.load_groups)),
                "cuts": In(params.load_groups),
                "held": Out(shapes.kept_pairs(params, params.groups)),
                "cut": Out(params.groups),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the banks."""
        m = Module()
        blocks = [self._block(m, block) for block in range(self.params.load_slots)]
        m.d.comb += [
            Value.cast(self.held).eq(Cat(Value.cast(block.pairs) for block in blocks)),
            self.cut.eq(Cat(block.cuts for block in blocks)),
        ]
        return m

    def _block(self, m: Module, block: int) -> Any:
        """Hold one block twice; returns the one that computes."""
        shape = {"pairs": self.pairs.shape(), "cuts": self.params.load_groups}
        layout = data.StructLayout(shape)
        banks = [structured(layout, f"block_{block}_{bank}") for bank in range(2)]
        for bank, kept in enumerate(banks):
            here = (self.control.block == block) & (self.control.bank != bank)
            with m.If(self.control.load & here):
                m.d.sync += [kept.pairs.eq(self.pairs), kept.cuts.eq(self.cuts)]
        computing = structured(layout, f"block_{block}")
        m.d.comb += computing.eq(Mux(self.control.bank, *(Value.cast(b) for b in banks[::-1])))
        return computing


class SparseSlice(Unit):
    """The sparse multiplexer and a DSP slice: picks a candidate and multiplies both its tokens.

    The picked activations and the weight wait for the slice's turn in the chain, `position` slots.

    Latency: `position` + `DspSlice.latency` slots. Throughput: one pass a slot. Back-pressure:
    holds while `advance` is 0. Reset: that of the slice.
    """

    def __init__(self, params: ChainParams, position: int) -> None:
        self.dsp, self.position = params.dsp, position
        ports = shapes.dsp(params.dsp)
        chained = {name: ports[name] for name in ("advance", "addend", "cascade", "sum")}
        pair = shapes.kept_pairs(params, 1).elem_shape
        super().__init__({**chained, "act": In(shapes.activations()), "pair": In(pair)})

    def elaborate(self, platform: object) -> Module:
        """Build multiplexer, delays and slice."""
        m = Module()
        m.submodules.dsp = dsp = Dsp(self.dsp)
        picked = Signal.like(Value.cast(self.act[0]), name="picked")
        m.d.comb += picked.eq(Array(Value.cast(act) for act in self.act)[self.pair.index])
        turn = data.View(self.act.shape().elem_shape, self._later(m, picked))
        m.d.comb += [
            dsp.advance.eq(self.advance),
            dsp.wide.eq(turn[1] << self.dsp.packed_shift),
            dsp.added.eq(turn[0]),
            dsp.narrow.eq(self._later(m, self.pair.value)),
            dsp.addend.eq(self.addend),
            dsp.cascade.eq(self.cascade),
            self.sum.eq(dsp.sum),
        ]
        return m

    def _later(self, m: Module, value: Value) -> Value:
        return delayed(m, self.advance, value, self.position)


class OverflowAdjust(Unit):
    """Takes a packed sum apart exactly and adds what the row's earlier segments have left.

    A negative lower half has borrowed one from the upper half, which gets it back.

    Latency: one slot. Throughput: one sum a slot. Back-pressure: holds while `advance` is 0.
    """

    def __init__(self, dsp: DspSlice, products: int) -> None:
        self.dsp = dsp
        result = shapes.result(products)
        super().__init__(
            {
                "advance": In(1),
                "sum": In(shapes.dsp(dsp)["sum"].shape),
                "open": In(1),
                "earlier": In(result),
                "result": Out(result),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the unit."""
        m = Module()
        at = self.dsp.packed_shift
        halves = (self.sum[:at].as_signed(), self.sum[at:].as_signed() + self.sum[at - 1])
        with m.If(self.advance):
            for token in range(TOKENS):
                earlier = Mux(self.open, self.earlier[token], 0)
                m.d.sync += self.result[token].eq(halves[token] + earlier)
        return m


class Vpu(Unit):
    """A chain of slices that keeps several rows of N weights and sums each over 16 candidates.

    The reduction node after each group of slices ends a row where its cut bit is set: the cascade
    starts anew behind it and the row's sums come out; nodes without a cut give 0. After
    `segment_groups` groups the packed sum leaves the cascade in any case, and the overflow-adjust
    units carry an unfinished row on with its halves apart.

    Latency: `ChainParams.latency` slots from candidates to all results at once; weights are those
    of the bank that computes in the slot of the candidates. Throughput: one pass a slot.
    Back-pressure: nothing moves while `advance` is 0. Reset: none needed, everything is replaced.
    """

    def __init__(self, params: ChainParams) -> None:
        self.params = params
        super().__init__(shapes.chain(params))

    def elaborate(self, platform: object) -> Module:
        """Build the chain."""
        m = Module()
        m.submodules.bank = bank = WeightBank(self.params)
        m.d.comb += [
            bank.control.eq(self.control),
            bank.pairs.eq(self.pairs),
            bank.cuts.eq(self.cuts),
            self.kept.eq(sum(pair.value != 0 for pair in bank.held)),
            self.cut.eq(bank.cut),
        ]
        nodes = self._nodes(m, self._slices(m, bank))
        for node, result in enumerate(nodes):
            done = self._end(node) + self.params.dsp.latency + 1
            ended = Mux(self._later(m, self.cut[node], done), Value.cast(result), 0)
            waits = self.params.latency - done
            m.d.comb += self.results[node].eq(self._later(m, ended, waits))
        return m

    def _later(self, m: Module, value: Value, slots: int) -> Value:
        return delayed(m, self.advance, value, slots)

    def _end(self, node: int) -> int:
        """Return the last slice before a node."""
        return (node + 1) * self.params.group - 1

    def _slices(self, m: Module, bank: WeightBank) -> list[Value]:
        """Chain the slices up; returns the packed sum at each node."""
        params, sums = self.params, list[Value]()
        for position in range(params.stages):
            m.submodules[f"slice_{position}"] = each = SparseSlice(params, position)
            m.d.comb += [
                each.advance.eq(self.advance),
                each.act.eq(self.act),
                each.pair.eq(bank.held[position]),
            ]
            if position % (params.segment_groups * params.group):
                m.d.comb += [
                    each.addend.eq(
                        Mux(self._cut_before(m, position), Addend.NOTHING, Addend.CASCADE)
                    ),
                    each.cascade.eq(sums[-1]),
                ]
            sums.append(each.sum)
        return sums[params.group - 1 :: params.group]

    def _cut_before(self, m: Module, position: int) -> Value:
        """Tell whether a row ends before a slice, when its product is added."""
        if position % self.params.group:
            return Const(0)
        cut = self.cut[position // self.params.group - 1]
        return self._later(m, cut, position + self.params.dsp.latency - 1)

    def _nodes(self, m: Module, sums: list[Value]) -> list[Any]:
        """Take the sums apart and join segments; returns each node's unfinished results."""
        params, results = self.params, list[Any]()
        for node, packed in enumerate(sums):
            m.submodules[f"adjust_{node}"] = adjust = OverflowAdjust(params.dsp, params.stages)
            m.d.comb += [adjust.advance.eq(self.advance), adjust.sum.eq(packed)]
            before = node // params.segment_groups * params.segment_groups - 1
            if before >= 0:
                open_row = ~self.cut[before:node].any()
                waits = self._end(node) - self._end(before) - 1
                turn = self._end(node) + params.dsp.latency
                m.d.comb += [
                    adjust.open.eq(self._later(m, open_row, turn)),
                    adjust.earlier.eq(self._later(m, Value.cast(results[before]), waits)),
                ]
            results.append(adjust.result)
        return results
