"""MPU and MPE: chains on shared candidates, their sums over MPUs, and accumulators."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import memory, wiring

from rtl.dsp_chain import shapes
from rtl.dsp_chain.chain import Vpu
from rtl.dsp_chain.controller import Controller
from rtl.float.pipeline import delayed
from rtl.streams import Enable, beats, carried, count, enable, job_events, offer
from rtl.unit import Unit, add_part, structured, tree_sum
from simulator.arch.dsp_cells import TOKENS, MpeParams

__all__ = ["Accumulators", "Mpe", "Mpu"]


class Mpu(Unit):
    """VPUs on the same candidates, each with rows of its own.

    `kept` counts the slices whose weight is not zero. Latency, throughput, back-pressure and
    reset are those of `Vpu`.
    """

    def __init__(self, params: MpeParams, *, part_module: str | None = None) -> None:
        self.params, self.part_module = params, part_module
        super().__init__(shapes.mpu(params))

    def elaborate(self, platform: object) -> Module:
        """Build the chains."""
        m = Module()
        kept, chain = [], self.params.chain
        for position in range(self.params.vpus):
            name, ports = f"vpu_{position}", shapes.chain(chain)
            vpu = add_part(m, name, ports, lambda: Vpu(chain), self.part_module)
            m.d.comb += [
                vpu.advance.eq(self.advance),
                vpu.control.eq(self.control),
                vpu.act.eq(self.act),
                vpu.pairs.eq(self.pairs[position]),
                vpu.cuts.eq(self.cuts[position]),
                self.results[position].eq(vpu.results),
                self.cut[position].eq(vpu.cut),
            ]
            kept.append(vpu.kept)
        m.d.comb += self.kept.eq(sum(kept))
        return m


class Accumulators(Unit):
    """Sums of one chain's nodes over the groups of a job, a place for every pass of a set.

    Sums wrap at 32 bits. Latency: a pass's totals show one slot later. Throughput: one pass a
    slot, of any address. Back-pressure: holds while `advance` is 0. Reset: none; a place is
    replaced by the first sum of a tile.
    """

    def __init__(self, params: MpeParams) -> None:
        self.params = params
        super().__init__(shapes.accumulators(params))

    def elaborate(self, platform: object) -> Module:
        """Build the accumulators."""
        m = Module()
        layout: Any = shapes.totals(self.params)
        places: Any = memory.Memory(shape=layout, depth=self.params.depth, init=[])
        m.submodules.places = places
        read, write = places.read_port(domain="comb"), places.write_port()
        sums = structured(layout, "sums_now")
        for node in range(self.params.chain.groups):
            for token in range(TOKENS):
                before = Mux(self.control.first, 0, read.data[node][token])
                m.d.comb += sums[node][token].eq(before + self.sums[node][token])
        m.d.comb += [
            read.addr.eq(self.control.address),
            write.addr.eq(self.control.address),
            write.data.eq(sums),
            write.en.eq(self.advance & self.control.there),
        ]
        with m.If(self.advance):
            m.d.sync += self.totals.eq(sums)
        return m


class Mpe(Unit):
    """The matrix engine: runs ChainJobs, `tokens` by rows of N of 16 weights, back to back.

    The MPUs take consecutive groups of the reduction and hold the same rows; the MPE adds their
    results and accumulates over the groups of a job. It moves in slots, all of it or none: in a
    cycle in which the slot's operand beats are present and no result beat is refused.

    Latency: a job accepted in one cycle has its slot 0 offered in the next; a pass's results are
    offered `MpeParams.latency` slots after its beat. Throughput: one pass a slot, the next weights
    loading meanwhile; slots without a job only bring results out. Back-pressure: `ready` of either
    operand depends on the other operand's `valid` and on `out.ready`; `out.valid` depends on
    registers only; a result is offered until it is taken, and once. Reset: synchronous, idle,
    counters zero.
    """

    def __init__(self, params: MpeParams, *, part_module: str | None = None) -> None:
        self.params, self.part_module = params, part_module
        super().__init__(shapes.mpe(params))

    def elaborate(self, platform: object) -> Module:
        """Build the engine."""
        m = Module()
        m.submodules.controller = control = Controller(self.params)
        wiring.connect(m, wiring.flipped(self.job), control.job)
        slot = enable(m, self, control.take_side, control.take_top)
        self._advance = advance = slot.advance
        m.d.comb += control.advance.eq(advance)
        mpus = self._mpus(m, control)
        passing = carried(m, advance, control.control, self.params.latency - 1)
        offer(m, self.out, advance, passing.there & passing.last)
        self._accumulate(m, mpus, passing)
        valid = delayed(m, advance, Value.cast(mpus[0].cut), self.params.latency)
        m.d.comb += self.out.payload.valid.eq(valid)
        self._count(m, control, slot, mpus)
        return m

    def _mpus(self, m: Module, control: Controller) -> list[Mpu]:
        """Build the MPUs; the second token of a single one's pass is 0."""
        mpus = []
        for position in range(self.params.mpus):
            m.submodules[f"mpu_{position}"] = mpu = Mpu(self.params, part_module=self.part_module)
            m.d.comb += [
                mpu.advance.eq(self._advance),
                mpu.control.eq(control.bank),
                mpu.pairs.eq(self.top.payload.pairs[position]),
                mpu.cuts.eq(self.top.payload.cuts),
            ]
            for target, act in zip(mpu.act, self.side.payload[position], strict=True):
                m.d.comb += [target[0].eq(act[0]), target[1].eq(Mux(control.single, 0, act[1]))]
            mpus.append(mpu)
        return mpus

    def _accumulate(self, m: Module, mpus: list[Mpu], control: Value) -> None:
        """Add the MPUs' sums in one slot, accumulate in the next."""
        for vpu in range(self.params.vpus):
            m.submodules[f"accumulators_{vpu}"] = totals = Accumulators(self.params)
            m.d.comb += [
                totals.advance.eq(self._advance),
                totals.control.eq(control),
                self.out.payload.sums[vpu].eq(totals.totals),
            ]
            for node in range(self.params.chain.groups):
                for token in range(TOKENS):
                    total = Signal.like(totals.sums[node][token], reset_less=True)
                    with m.If(self._advance):
                        m.d.sync += total.eq(sum(mpu.results[vpu][node][token] for mpu in mpus))
                    m.d.comb += totals.sums[node][token].eq(total)

    def _count(self, m: Module, control: Controller, slot: Enable, mpus: list[Mpu]) -> None:
        """Count: of the products a pass has room for, those of a weight and a token are full."""
        kept, used = sum(mpu.kept for mpu in mpus), Signal(shapes.tally(self.params), name="used")
        m.d.comb += used.eq(Mux(control.single, kept, kept << 1))
        passed = beats(self)
        events = {
            **job_events(m, slot, control.running, control.job.ready),
            **passed,
            "mac_full": Mux(passed["side_beats"], used, 0),
            "mac_gated": Mux(passed["side_beats"], self.params.peak_macs_per_cycle - used, 0),
            "out_lanes": Mux(passed["out_beats"], tree_sum(list(self.out.payload.valid)), 0),
        }
        count(m, self.counters, events)
