"""The NMArray: controller, edges, grid, result port and counters."""

from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib import wiring

from rtl import shapes
from rtl.nm_array.controller import Controller
from rtl.nm_array.edge import SideEdge, TopEdge
from rtl.nm_array.grid import Grid
from rtl.nm_array.monitor import Monitor
from rtl.nm_array.output import ResultPort
from rtl.unit import Unit
from simulator.arch import NMArray

__all__ = ["NMArrayCore"]


class NMArrayCore(Unit):
    """An R x C array of unified sparse PEs that runs ArrayJobs of any dataflow back to back.

    The array moves in slots, all of it or none: in a cycle in which the slot's operand beats are
    present and no result beat is refused. A beat is accepted in the cycle of its slot.

    Latency: a job accepted in one cycle has its slot 0 offered in the next; results follow
    `ArrayJob`'s closed forms. Throughput: one slot a cycle. Back-pressure: `ready` of either
    operand depends on the other operand's `valid` and on `out.ready`; `out.valid` depends on
    registers only. Reset: synchronous, idle, counters zero.
    """

    def __init__(self, arch: NMArray, *, part_module: str | None = None) -> None:
        self.arch = arch
        self.part_module = part_module
        super().__init__(shapes.nm_array(arch))

    def elaborate(self, platform: object) -> Module:
        """Build the array."""
        m = Module()
        m.submodules.controller = controller = Controller(self.arch)
        m.submodules.side_edge = side_edge = SideEdge(self.arch)
        m.submodules.top_edge = top_edge = TopEdge(self.arch)
        m.submodules.grid = grid = Grid(self.arch, part_module=self.part_module)
        m.submodules.port = port = ResultPort(self.arch)
        wiring.connect(m, wiring.flipped(self.job), controller.job)
        wiring.connect(m, port.out, wiring.flipped(self.out))
        side_there = ~controller.take_side | self.side.valid
        top_there = ~controller.take_top | self.top.valid
        advance = side_there & top_there & port.clear
        m.d.comb += [
            self.side.ready.eq(controller.take_side & top_there & port.clear),
            self.top.ready.eq(controller.take_top & side_there & port.clear),
            side_edge.mode.eq(controller.mode),
            side_edge.take.eq(controller.take_side),
            side_edge.beat.eq(self.side.payload),
            side_edge.control.eq(controller.row),
            top_edge.take.eq(controller.take_top),
            top_edge.beat.eq(self.top.payload),
            top_edge.load.eq(controller.load),
            grid.mode.eq(controller.mode),
            grid.tap.eq(controller.tap),
            grid.lanes.eq(side_edge.lanes),
            grid.controls.eq(side_edge.controls),
            grid.kept.eq(top_edge.kept),
            grid.loads.eq(top_edge.loads),
            grid.valids.eq(top_edge.valids),
            port.sums.eq(grid.sums),
            port.draining.eq(grid.draining),
            port.emitting.eq(grid.emitting),
        ]
        for part in (controller, side_edge, top_edge, grid, port):
            m.d.comb += part.advance.eq(advance)
        self._monitor(m, controller, grid, port, side_there)
        return m

    def _monitor(
        self, m: Module, controller: Controller, grid: Grid, port: ResultPort, side_there: Value
    ) -> None:
        m.submodules.monitor = monitor = Monitor(self.arch)
        m.d.comb += [
            monitor.advance.eq(controller.advance),
            monitor.running.eq(controller.running),
            monitor.last.eq(controller.job.ready),
            monitor.mode.eq(controller.mode),
            monitor.working.eq(controller.streaming),
            monitor.clear.eq(port.clear),
            monitor.side_there.eq(side_there),
            monitor.full.eq(grid.full),
            monitor.gated.eq(grid.gated),
            monitor.side_lanes.eq(_lanes(self.side, self.arch.rows)),
            monitor.top_lanes.eq(_lanes(self.top, self.arch.cols)),
            monitor.out_beat.eq(self.out.valid & self.out.ready),
            self.counters.eq(monitor.counters),
        ]


def _lanes(port: Any, lanes: int) -> Any:
    """Return the number of valid lanes accepted in this cycle."""
    taken = port.valid & port.ready
    return sum(taken & port.payload[lane].valid for lane in range(lanes))
