"""The FlexDpe array: controller, stationary values, engines, tree and counters."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring

from rtl.flex_dpe import shapes
from rtl.flex_dpe.adders import ForwardingTree, tops
from rtl.flex_dpe.controller import Controller
from rtl.flex_dpe.engine import Engine
from rtl.flex_dpe.stationary import Stationary
from rtl.streams import Enable, beats, carried, count, enable, job_events, offer
from rtl.unit import Unit, add_part, structured, tree_sum
from simulator.arch.flex_dpe import FlexDpe

__all__ = ["FlexDpeCore"]


class FlexDpeCore(Unit):
    """Flexible dot-product engines that run FlexJobs, one pass each, back to back.

    The array moves in slots, all of it or none: in a cycle in which the slot's operand beat is
    present and no result beat is refused. Clusters and routes travel or change with their pass,
    so a pass may load while the sums of the last one are still in the tree.

    Latency: a job accepted in one cycle has its slot 0 offered in the next; a vector's sums are
    offered `FlexDpe.latency` slots after its beat. Throughput: a load or a vector a slot.
    Back-pressure: `ready` of an operand depends on `out.ready`; `out.valid` depends on registers
    only; a result is offered until it is taken, and once. Reset: synchronous, idle, counters zero.

    With `part_module` the engines are instances of a module of that name, elaborated elsewhere.
    """

    def __init__(self, arch: FlexDpe, *, part_module: str | None = None) -> None:
        self.arch, self.part_module = arch, part_module
        super().__init__(shapes.flex_ports(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the array."""
        m = Module()
        m.submodules.controller = control = Controller(self.arch)
        wiring.connect(m, wiring.flipped(self.job), control.job)
        slot = enable(m, self, control.take_side, control.take_top)
        m.d.comb += control.advance.eq(slot.advance)
        held = self._stationary(m, control)
        used = self._multiply(m, slot.advance, control, held)
        there = carried(m, slot.advance, control.take_side, self.arch.tree_depth)
        offer(m, self.out, slot.advance, there)
        self._count(m, control, slot, used)
        return m

    def _stationary(self, m: Module, control: Controller) -> Stationary:
        m.submodules.stationary = held = Stationary(self.arch)
        m.d.comb += [
            held.begin.eq(self.job.valid & self.job.ready),
            held.first.eq(self.job.payload.start),
            held.start.eq(control.settings.start),
            held.load.eq(self.top.valid & self.top.ready),
            held.beat.eq(self.top.payload),
        ]
        return held

    def _active(self, m: Module, control: Controller) -> Signal:
        """Return the multipliers of the pass."""
        job, active = control.settings, Signal(self.arch.peak_macs_per_cycle, name="active")
        for place, there in enumerate(active):
            after = Signal(shapes.multiplier(self.arch), name=f"after_{place}")
            m.d.comb += after.eq(place - job.start)
            m.d.comb += there.eq(after < job.nonzeros)
        return active

    def _multiply(self, m: Module, advance: Value, control: Controller, held: Stationary) -> Value:
        """Build engines and tree; returns the multipliers that get a value other than 0."""
        m.submodules.tree = tree = ForwardingTree(self.arch)
        size, used, products = self.arch.dpe_size, [], []
        for index in range(self.arch.dpes):
            name, ports = f"engine_{index}", shapes.engine_ports(self.arch)
            engine = add_part(m, name, ports, lambda: Engine(self.arch), self.part_module)
            m.d.comb += [
                engine.advance.eq(advance),
                engine.side.eq(self.side.payload),
                engine.routes.eq(control.settings.routes[index]),
            ]
            for row in range(size):
                m.d.comb += engine.values[row].eq(held.held[index * size + row].value)
            used.append(engine.nonzero)
            products += list(engine.products)
        for target, product in zip(tree.products, products, strict=True):
            m.d.comb += target.eq(product)
        m.d.comb += [tree.advance.eq(advance), self.out.payload.eq(tree.results)]
        active = self._active(m, control)
        self._lanes(m, advance, held, active, tree)
        return Cat(used) & active

    def _lanes(
        self, m: Module, advance: Value, held: Stationary, active: Signal, tree: ForwardingTree
    ) -> None:
        """Send clusters and joins through the tree beside their products."""
        clusters = [value.cluster for value in held.held]
        joins, lanes = Signal(len(active), name="joins"), structured(tree.lanes.shape(), "lanes")
        for lane in range(len(active) - 1):
            same = clusters[lane] == clusters[lane + 1]
            m.d.comb += joins[lane].eq(active[lane] & active[lane + 1] & same)
        there = tops(joins, active)
        with m.If(advance):
            for lane, cluster in enumerate(clusters):
                m.d.sync += [
                    lanes[lane].join.eq(joins[lane]),
                    lanes[lane].there.eq(there[lane]),
                    lanes[lane].cluster.eq(cluster),
                ]
        m.d.comb += tree.lanes.eq(lanes)

    def _count(self, m: Module, control: Controller, slot: Enable, used: Value) -> None:
        passed = beats(self)
        full = Mux(passed["side_beats"], tree_sum(list(used)), 0)
        lanes = tree_sum([lane.there for lane in self.out.payload])
        events = {
            **job_events(m, slot, control.running, control.job.ready),
            **passed,
            "mac_full": full,
            "mac_gated": Mux(passed["side_beats"], control.settings.nonzeros, 0) - full,
            "out_lanes": Mux(passed["out_beats"], lanes, 0),
        }
        count(m, self.counters, events)
