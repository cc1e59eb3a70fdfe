"""The PEGrid: edges, PEs, controller, drain and counters."""

from typing import Any

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring

from rtl.pe_grid import shapes
from rtl.pe_grid.controller import Controller, Drain
from rtl.pe_grid.edge import Edge
from rtl.pe_grid.monitor import Monitor
from rtl.pe_grid.pe import GridElement
from rtl.unit import Unit, add_part, tree_sum
from simulator.arch.pe_grid import PEGrid

__all__ = ["PEGridCore"]


class PEGridCore(Unit):
    """An R x C grid of sparse-aware PEs that runs GridJobs back to back.

    Every row and every column has a stream of its own: rows drift apart as far as the FIFOs allow.

    Latency: a job accepted in one cycle takes chunks from the next one on; a chunk can be worked
    on in the cycle after its acceptance; results are offered from the cycle after a barrier on.
    Throughput: as the recurrence of the timing model says. Back-pressure: `ready` of a stream
    depends on the PEs' state and, in a barrier cycle, on `out.ready`, not on any `valid`;
    `out.valid` depends on registers only. Reset: synchronous, idle, counters zero.

    With `part_module` the PEs are instances of a module of that name, elaborated elsewhere once.
    """

    def __init__(self, grid: PEGrid, *, part_module: str | None = None) -> None:
        self.grid = grid
        self.part_module = part_module
        super().__init__(shapes.pe_grid(grid))

    def elaborate(self, platform: object) -> Module:
        """Build the grid."""
        m = Module()
        rows, cols = range(self.grid.rows), range(self.grid.cols)
        m.submodules.controller = controller = Controller(self.grid)
        pes = [[self._element(m, row, col) for col in cols] for row in rows]
        sides = [self._edge(m, controller, shapes.side_name(row)) for row in rows]
        tops = [self._edge(m, controller, shapes.top_name(col)) for col in cols]
        for side, row in zip(sides, pes, strict=True):
            self._broadcast(m, side, row, "act")
        for top, column in zip(tops, zip(*pes, strict=True), strict=True):
            self._broadcast(m, top, list(column), "weight")
        wiring.connect(m, wiring.flipped(self.job), controller.job)
        m.d.comb += controller.done.eq(Cat(pe.done for row in pes for pe in row).all())
        self._drain(m, controller, pes)
        self._monitor(m, controller, pes, sides, tops)
        return m

    def _element(self, m: Module, row: int, col: int) -> Any:
        name, grid = f"pe_{row}_{col}", self.grid
        return add_part(m, name, shapes.pe_ports(grid), lambda: GridElement(grid), self.part_module)

    def _edge(self, m: Module, controller: Controller, name: str) -> Edge:
        m.submodules[f"{name}_edge"] = edge = Edge(self.grid)
        wiring.connect(m, wiring.flipped(getattr(self, name)), edge.stream)
        for port in ("running", "start", "restart", "chunks"):
            m.d.comb += getattr(edge, port).eq(getattr(controller, port))
        return edge

    def _broadcast(self, m: Module, edge: Edge, pes: list[Any], kind: str) -> None:
        """Push the edge's chunk into all its PEs at once, when all of them have space."""
        m.d.comb += edge.space.eq(Cat(getattr(pe, f"{kind}_space") for pe in pes).all())
        for pe in pes:
            m.d.comb += [
                getattr(pe, kind).eq(edge.chunk),
                getattr(pe, f"{kind}_push").eq(edge.push),
            ]

    def _drain(self, m: Module, controller: Controller, pes: list[list[Any]]) -> None:
        m.submodules.drain = drain = Drain(self.grid)
        wiring.connect(m, drain.out, wiring.flipped(self.out))
        step = self.grid.drain_rows
        m.d.comb += [controller.clear.eq(drain.clear), drain.barrier.eq(controller.barrier)]
        for position, row in enumerate(pes):
            below = pes[position + step] if position + step < len(pes) else None
            for col, pe in enumerate(row):
                m.d.comb += [
                    pe.barrier.eq(controller.barrier),
                    pe.drop.eq(controller.drop),
                    pe.shift.eq(drain.shift),
                    pe.below.eq(below[col].result if below else 0),
                ]
                if position < step:
                    m.d.comb += drain.results[position][col].eq(pe.result)

    def _monitor(
        self,
        m: Module,
        controller: Controller,
        pes: list[list[Any]],
        sides: list[Edge],
        tops: list[Edge],
    ) -> None:
        m.submodules.monitor = monitor = Monitor(self.grid)
        elements = [pe for row in pes for pe in row]
        m.d.comb += [
            monitor.running.eq(controller.running),
            monitor.finish.eq(controller.finish),
            monitor.tally.eq(Cat(Value.cast(pe.tally) for pe in elements)),
            monitor.side_push.eq(Cat(edge.push for edge in sides)),
            monitor.side_values.eq(tree_sum([edge.count for edge in sides])),
            monitor.top_push.eq(Cat(edge.push for edge in tops)),
            monitor.top_values.eq(tree_sum([edge.count for edge in tops])),
            monitor.out_beat.eq(self.out.valid & self.out.ready),
            self.counters.eq(monitor.counters),
        ]
