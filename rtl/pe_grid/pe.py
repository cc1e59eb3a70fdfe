"""The PEGrid's processing element: match, select, multiply, accumulate."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from rtl.pe_grid import shapes
from rtl.pe_grid.fifo import ChunkFifo
from rtl.unit import Unit, structured
from simulator.arch.pe_grid import PEGrid, ZeroAction

__all__ = ["GridElement"]


class GridElement(Unit):
    """Pops pairs of chunks and multiplies `macs_per_pe` of their matching positions a cycle.

    The working register is free when its last positions are multiplied; in the next cycle the PE
    pops the oldest pair and multiplies its first positions at once. With look-ahead it pops any
    number of empty pairs together with the first one that is not. The pair that ends a tile
    always takes a cycle of its own, even if it is empty.

    Latency: a chunk pushed in one cycle can be popped in the next; a sum is final after the
    cycle in which `done` rises. Throughput: a pair every max(1, ceil(matches / macs_per_pe))
    cycles. Back-pressure: `act_space` and `weight_space` fall while a FIFO is full and nothing is
    popped. At `barrier` the sum moves to the shadow register, which is `result` from the next
    cycle on; each `shift` replaces it by `below`. The sum goes on from there unless `drop`.
    Reset: everything empty and zero.
    """

    def __init__(self, grid: PEGrid) -> None:
        self.grid = grid
        super().__init__(shapes.pe_ports(grid))

    def elaborate(self, platform: object) -> Module:
        """Build the PE."""
        m = Module()
        self._busy, self._finished = Signal(), Signal()
        work = structured(shapes.working_chunk(self.grid), "work")
        chunk = structured(shapes.working_chunk(self.grid), "chunk")
        popped, pops = self._pop(m)
        active, left = Signal(), Signal(self.grid.chunk)
        m.d.comb += [
            chunk.eq(Mux(self._busy, work.as_value(), popped.as_value())),
            active.eq(self._busy | (pops != 0)),
        ]
        products = self._match(m, chunk, active, left)
        m.d.sync += [work.eq(chunk), work.left.eq(left), self._busy.eq(active & (left != 0))]
        ends = active & chunk.act.last & (left == 0)
        m.d.comb += self.done.eq(self._finished | ends)
        m.d.sync += self._finished.eq(self.done & ~self.barrier)
        self._state(m, active, chunk, pops)
        self._accumulate(m, products)
        return m

    def _fifos(self, m: Module) -> tuple[ChunkFifo, ChunkFifo]:
        m.submodules.act_fifo = act = ChunkFifo(self.grid)
        m.submodules.weight_fifo = weight = ChunkFifo(self.grid)
        m.d.comb += [
            act.push.eq(self.act_push),
            act.chunk.eq(self.act),
            self.act_space.eq(act.space),
            weight.push.eq(self.weight_push),
            weight.chunk.eq(self.weight),
            self.weight_space.eq(weight.space),
        ]
        return act, weight

    def _pop(self, m: Module) -> tuple[Any, Signal]:
        """Choose the pair to start: the first one seen that is not empty, else the last one."""
        act, weight = self._fifos(m)
        grid, full = self.grid, Const((1 << self.grid.chunk) - 1, self.grid.chunk)
        popped = structured(shapes.working_chunk(grid), "popped")
        pops = Signal.like(act.pops, name="popped_pairs")
        found: Value = Const(0)
        for age in range(shapes.seen_chunks(grid)):
            left = Signal(grid.chunk, name=f"left_{age}")
            m.d.comb += left.eq(
                (act.heads[age].mask if grid.skips_activations else full)
                & (weight.heads[age].mask if grid.skips_weights else full)
            )
            there = (act.level > age) & (weight.level > age)
            with m.If(there & ~found & ~self._busy):
                m.d.comb += [
                    pops.eq(age + 1),
                    popped.act.eq(act.heads[age]),
                    popped.weight.eq(weight.heads[age]),
                    popped.left.eq(left),
                ]
            found = found | (left != 0)
        m.d.comb += [act.pops.eq(pops), weight.pops.eq(pops)]
        return popped, pops

    def _match(self, m: Module, chunk: Any, active: Value, left: Signal) -> list[Value]:
        """Give the first positions left to the multipliers; `left` keeps the others."""
        both = chunk.act.mask & chunk.weight.mask
        waiting: Value = chunk.left
        products, uses, effectual = [], [], []
        for lane in range(self.grid.macs_per_pe):
            first, rest = (Signal(self.grid.chunk, name=f"{n}_{lane}") for n in ("first", "rest"))
            m.d.comb += [first.eq(waiting & -waiting), rest.eq(waiting ^ first)]
            uses.append(active & first.any())
            effectual.append(active & (first & both).any())
            index = self._position(m, first, lane)
            use = uses[-1] if self.grid.zero is ZeroAction.COMPUTE else effectual[-1]
            products.append(
                Mux(use, chunk.act.value[index], 0) * Mux(use, chunk.weight.value[index], 0)
            )
            waiting = rest
        m.d.comb += left.eq(waiting)
        full = uses if self.grid.zero is ZeroAction.COMPUTE else effectual
        m.d.comb += [
            self.tally.effectual.eq(sum(effectual)),
            self.tally.full.eq(sum(full)),
            self.tally.gated.eq(sum(uses) - sum(full)),
        ]
        return products

    def _position(self, m: Module, first: Signal, lane: int) -> Signal:
        """Encode the one set bit of `first`."""
        index = Signal(shapes.position(self.grid), name=f"position_{lane}")
        positions = range(self.grid.chunk)
        m.d.comb += index.eq(
            Cat(
                (first & sum(1 << p for p in positions if p >> bit & 1)).any()
                for bit in range(len(index))
            )
        )
        return index

    def _state(self, m: Module, active: Signal, chunk: Any, pops: Signal) -> None:
        """Tell what this cycle is for; looking past an empty pair is waiting for the next one."""
        works = active & (chunk.left != 0)
        passes = active & (chunk.left == 0) & (chunk.act.last | (not self.grid.look_ahead))
        m.d.comb += [
            self.tally.work.eq(works),
            self.tally.vacant.eq(passes),
            self.tally.finished.eq(self._finished),
            self.tally.wait.eq(~works & ~passes & ~self._finished),
            self.tally.empty.eq(Mux(works & ~self._busy, pops - 1, pops)),
        ]

    def _accumulate(self, m: Module, products: list[Value]) -> None:
        kept, total = (Signal.like(self.result, name=name) for name in ("kept", "total"))
        shadow = Signal.like(self.result, name="shadow")
        m.d.comb += [total.eq(kept + sum(products)), self.result.eq(shadow)]
        m.d.sync += kept.eq(Mux(self.drop, 0, total))
        with m.If(self.barrier):
            m.d.sync += shadow.eq(total)
        with m.Elif(self.shift):
            m.d.sync += shadow.eq(self.below)
