"""The units of a weight's update: WUVE on buffered tensors, and the selector's own pass."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import fifo
from amaranth.lib.wiring import In, Out

from rtl.machine import shapes
from rtl.machine.feeder import accumulated, counted
from rtl.machine.selector import values
from rtl.unit import Unit, structured
from rtl.wuve import UpdateLane, wuve_operand
from simulator.arch import NMArray
from simulator.arch.wuve import WuveParams

__all__ = ["SelectPass", "UpdateUnit"]

STEPS = 8
"""Steps whose results may be under way."""

HALF = shapes.VALUE_BITS


class _Walk:
    """Counters over groups, blocks and rows, and the element where a beat begins."""

    def __init__(self, m: Module, step: Any, moves: Value, lanes: int, name: str) -> None:
        _, wraps = counted(m, moves, [step.groups, step.blocks, step.rows], name)
        width = step.blocks * lanes
        group = accumulated(m, step.rows * width, wraps[1], wraps[0], f"{name}_group")
        block = accumulated(m, lanes, wraps[2], wraps[1], f"{name}_block")
        row = accumulated(m, width, moves, wraps[2], f"{name}_row")
        self.last = wraps[0]
        self.element = group + block + row


class UpdateUnit(Unit):
    """WUVE's lanes on tensors in the activations' buffer, fp32 numbers as two items.

    Unlike `Wuve` it never waits for an operand inside a step, so results of a step leave while the
    next one waits. Latency: `WuveParams.latency` cycles from operands to results, which are
    written, and offered to the selectors as `fresh`, in that cycle. Throughput: a beat a cycle,
    steps without a gap. `given` are the tokens of a step's last operands, `given_late` those of
    its last results. Back-pressure: none. Reset: idle.
    """

    def __init__(self, params: WuveParams, arch: NMArray) -> None:
        self.params, self.arch = params, arch
        ports: dict[str, Any] = {
            "go": In(1),
            "step": In(shapes.wuve_step()),
            "free": Out(1),
            "busy": Out(1),
            "given": Out(len(shapes.CHANNELS)),
            "given_late": Out(len(shapes.CHANNELS)),
            "fresh": Out(values(params.lanes)),
            "fresh_ff": Out(1),
            "fresh_bp": Out(1),
        }
        for port in range(5 * params.lanes):
            ports |= {f"at_{port}": Out(shapes.ITEM_BITS), f"item_{port}": In(HALF)}
            ports |= {f"write_{port}": Out(shapes.item_write(arch))}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the unit."""
        m = Module()
        lanes = self.params.lanes
        step = structured(shapes.wuve_step(), "held")
        walk = _Walk(m, step, self.busy, lanes, "operand")
        late = self._late(m)
        m.d.comb += [
            self.free.eq(~self.busy | walk.last),
            self.given.eq(Mux(walk.last, step.frees, 0)),
        ]
        with m.If(self.go):
            m.d.sync += [step.eq(self.step), self.busy.eq(1)]
        with m.Elif(walk.last):
            m.d.sync += self.busy.eq(0)
        line = Signal(self.params.latency)
        m.d.sync += line.eq(Cat(self.busy, line))
        there = line[-1]
        result = _Walk(m, late, there, lanes, "result")
        m.d.comb += [
            self._pop.eq(result.last),
            self.given_late.eq(Mux(result.last, late.gives, 0)),
            self.fresh_ff.eq(there & late.with_ff),
            self.fresh_bp.eq(there & late.with_bp),
        ]
        for lane in range(lanes):
            m.submodules[f"lane_{lane}"] = unit = UpdateLane(self.params)
            self._operands(m, unit, step, walk.element, lane)
            self._results(m, unit, late, result.element, there, lane)
        return m

    def _late(self, m: Module) -> Any:
        """Return the step whose results come out next."""
        layout = shapes.wuve_step()
        m.submodules.steps = queue = fifo.SyncFIFO(width=layout.size, depth=STEPS)
        late, self._pop = structured(layout, "late"), Signal(name="pop")
        m.d.comb += [
            queue.w_data.eq(self.step),
            queue.w_en.eq(self.go),
            queue.r_en.eq(self._pop),
            late.as_value().eq(queue.r_data),
        ]
        return late

    def _operands(self, m: Module, unit: Any, step: Any, element: Value, lane: int) -> None:
        first = 5 * lane
        items = [getattr(self, f"item_{first + i}") for i in range(5)]
        at = element + lane
        places = [
            step.gradient_base + at,
            *(step[f"{n}_base"] + 2 * at + h for n in ("master", "momentum") for h in range(2)),
        ]
        operand = structured(wuve_operand(), f"operand_{lane}")
        m.d.comb += [getattr(self, f"at_{first + i}").eq(place) for i, place in enumerate(places)]
        m.d.comb += [
            operand.gradient.eq(items[0]),
            operand.weight.eq(Cat(items[1], items[2])),
            operand.velocity.eq(Cat(items[3], items[4])),
            unit.advance.eq(1),
            unit.operand.eq(operand),
        ]
        for name in shapes.WUVE_SETTINGS:
            m.d.comb += unit.settings[name].eq(step[name])

    def _results(
        self, m: Module, unit: Any, late: Any, element: Value, there: Value, lane: int
    ) -> None:
        first, at, result = 5 * lane, element + lane, unit.result
        writes = [(late.copy_base + at, result.copy, there & late.with_copy)]
        for name, number in (("new_master", result.weight), ("new_momentum", result.velocity)):
            for half in range(2):
                part = number[HALF * half : HALF * (half + 1)]
                writes.append((late[f"{name}_base"] + 2 * at + half, part, there))
        for i, (place, item, enable) in enumerate(writes):
            write = getattr(self, f"write_{first + i}")
            m.d.comb += [write.address.eq(place), write.item.eq(item), write.enable.eq(enable)]
        m.d.comb += self.fresh[lane].eq(result.copy)


class SelectPass(Unit):
    """Feeds the selector from the activations' buffer, a row of a matrix a lane.

    `step.blocks` blocks of as many rows as there are lanes, `step.width` values each. Latency: an
    item is offered in the cycle it is read. Throughput: a beat a cycle, steps without a gap.
    `begun` tells the selector of each step ahead. Back-pressure: none. Reset: idle.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "go": In(1),
                "step": In(shapes.sore_step()),
                "free": Out(1),
                "busy": Out(1),
                "given": Out(len(shapes.CHANNELS)),
                "beat": Out(values(lanes)),
                **{f"at_{i}": Out(shapes.ITEM_BITS) for i in range(lanes)},
                **{f"item_{i}": In(HALF) for i in range(lanes)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the pass."""
        m = Module()
        step = structured(shapes.sore_step(), "held")
        (_, column), wraps = counted(m, self.busy, [step.blocks, step.width], "walk")
        block = accumulated(m, step.width * self.lanes, wraps[1], wraps[0], "block")
        m.d.comb += [
            self.free.eq(~self.busy | wraps[0]),
            self.given.eq(Mux(wraps[0], step.frees, 0)),
        ]
        with m.If(self.go):
            m.d.sync += [step.eq(self.step), self.busy.eq(1)]
        with m.Elif(wraps[0]):
            m.d.sync += self.busy.eq(0)
        for lane in range(self.lanes):
            at = step.first + block + lane * step.width + column
            m.d.comb += [
                getattr(self, f"at_{lane}").eq(at),
                self.beat[lane].eq(getattr(self, f"item_{lane}")),
            ]
        return m
