"""The vector unit: element-wise gradients and the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from rtl.float import FP16, FP32, Adder, Converter, Multiplier
from rtl.machine import shapes
from rtl.machine.feeder import accumulated, counted
from rtl.machine.shapes import Work
from rtl.unit import Unit, structured
from simulator.arch import NMArray

__all__ = ["VectorUnit", "exponential_table", "reciprocal_table"]

LOSS_PASSES = 3
MINUS_ONE = 0xBF800000
MINUS_ZERO = 0x80000000
QUIET_NAN = 0x7E00


def _table(function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> NDArray[np.uint16]:
    """Return `function` in fp16 of every upper part of a non-negative fp16 x, uint16[entries]."""
    step = 1 << (FP16.bits - 1 - shapes.LUT_BITS)
    bits = np.arange(1 << shapes.LUT_BITS, dtype=np.uint16) * np.uint16(step)
    with np.errstate(all="ignore"):  # zero, infinity and NaN are entries like others
        halves = function(bits.view(np.float16).astype(np.float32)).astype(np.float16)
    return np.where(np.isnan(halves), np.uint16(QUIET_NAN), halves.view(np.uint16))


def exponential_table() -> NDArray[np.uint16]:
    """Return exp(-x) in fp16 for every upper part of a non-negative fp16 x, uint16[entries]."""
    return _table(lambda x: np.exp(-x))


def reciprocal_table() -> NDArray[np.uint16]:
    """Return 1 / x in fp16 for every upper part of a non-negative fp16 x, uint16[entries]."""
    return _table(lambda x: np.float32(1) / x)


class VectorUnit(Unit):
    """`vector_lanes` element operations a cycle: ReLU, its gradient, and the loss' gradient.

    The loss is the softmax cross-entropy of a row: a pass for the maximum, one for the sum of
    exp(x - maximum) and one for the probabilities less the label's one. Differences are rounded to
    fp16, their exponentials and the sum's reciprocal looked up, products and sums are fp32.

    Latency: a result is written in the cycle of its last pass. Throughput: a beat a cycle, the
    next step without a gap. Back-pressure: none. Reset: idle.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        lanes = range(arch.vector_lanes)
        operands = {f"{n}_{i}": In(shapes.VALUE_BITS) for n in ("first", "second") for i in lanes}
        places = {f"{n}_at_{i}": Out(shapes.ITEM_BITS) for n in ("first", "second") for i in lanes}
        super().__init__(
            {
                "go": In(1),
                "step": In(shapes.vector_step()),
                "free": Out(1),
                "busy": Out(1),
                "given": Out(len(shapes.CHANNELS)),
                **operands,
                **places,
                **{f"write_{i}": Out(shapes.item_write(arch)) for i in lanes},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the unit."""
        m = Module()
        lanes = self.arch.vector_lanes
        self._step = step = structured(shapes.vector_step(), "held")
        is_loss = step.work == Work.LOSS
        (row, passed, _), wraps = counted(
            m, self.busy, [step.rows, Mux(is_loss, LOSS_PASSES, 1), step.beats], "walk"
        )
        last = wraps[0]
        offset = accumulated(m, lanes, self.busy, wraps[2], "offset")
        begin = accumulated(m, step.beats * lanes, wraps[1], wraps[0], "begin")
        m.d.comb += [
            self.free.eq(~self.busy | last),
            self.given.eq(Mux(last, step.frees | step.gives, 0)),
        ]
        with m.If(self.go):
            m.d.sync += [step.eq(self.step), self.busy.eq(1)]
        with m.Elif(last):
            m.d.sync += self.busy.eq(0)
        final = self.busy & (~is_loss | (passed == LOSS_PASSES - 1))
        losses = self._loss(m, row, passed, offset)
        for lane in range(lanes):
            place = begin + offset + lane
            first, second = (getattr(self, f"{n}_{lane}") for n in ("first", "second"))
            label = step.second + 2 * row
            write = getattr(self, f"write_{lane}")
            positive = ~second[-1] & second[:-1].any()
            gated = Mux(positive, first, 0)
            relu = Mux(first[-1], 0, first)
            m.d.comb += [
                getattr(self, f"first_at_{lane}").eq(step.first + place),
                getattr(self, f"second_at_{lane}").eq(Mux(is_loss, label, step.second + place)),
                write.enable.eq(final),
                write.address.eq(step.out + place),
                write.item.eq(Mux(is_loss, losses[lane], Mux(step.work == Work.RELU, relu, gated))),
            ]
        return m

    def _loss(self, m: Module, row: Value, passed: Value, offset: Value) -> list[Value]:
        """Return every lane's probability less its label."""
        lanes = self.arch.vector_lanes
        first_beat = offset == 0
        xs = [getattr(self, f"first_{lane}") for lane in range(lanes)]
        maximum = self._maximum(m, xs, first_beat & (passed == 0), self.busy & (passed == 0))
        exponentials = [self._exponential(m, lane, maximum, x) for lane, x in enumerate(xs)]
        total = Signal(FP32.bits)
        running: Value = Mux(first_beat, 0, total)
        for lane, value in enumerate(exponentials):
            wide = self._converted(m, f"wide_{lane}", FP16, FP32, value)
            running = self._sum(m, f"sum_{lane}", running, wide)
        with m.If(self.busy & (passed == 1)):
            m.d.sync += total.eq(running)
        narrow = self._converted(m, "narrow_total", FP32, FP16, total)
        inverse = self._look_up(m, "reciprocal", reciprocal_table(), narrow)
        results = []
        for lane, value in enumerate(exponentials):
            m.submodules[f"product_{lane}"] = product = Multiplier(FP16, 0)
            m.d.comb += [product.advance.eq(1), product.a.eq(value), product.b.eq(inverse)]
            hit = getattr(self, f"second_{lane}") == offset + lane
            less = Mux(hit, Const(MINUS_ONE, FP32.bits), Const(MINUS_ZERO, FP32.bits))
            result = self._sum(m, f"less_{lane}", product.y, less)
            results.append(self._converted(m, f"result_{lane}", FP32, FP16, result))
        return results

    def _maximum(self, m: Module, xs: list[Value], begins: Value, moves: Value) -> Value:
        """Return the largest number of the row so far; packed magnitudes compare as integers."""
        held = Signal(FP16.bits, name="maximum")
        best: Value = Mux(begins, xs[0], held)
        for x in xs:
            best = Mux(_order(x) > _order(best), x, best)
        with m.If(moves):
            m.d.sync += held.eq(best)
        return held

    def _exponential(self, m: Module, lane: int, maximum: Value, x: Value) -> Value:
        wide = self._converted(m, f"x_{lane}", FP16, FP32, x)
        top = self._converted(m, f"top_{lane}", FP16, FP32, maximum)
        minus = wide ^ Const(MINUS_ZERO, FP32.bits)
        difference = self._sum(m, f"difference_{lane}", top, minus)
        narrow = self._converted(m, f"distance_{lane}", FP32, FP16, difference)
        return self._look_up(m, f"exponential_{lane}", exponential_table(), narrow)

    def _look_up(self, m: Module, name: str, table: NDArray[np.uint16], x: Value) -> Value:
        words: Any = memory.Memory(shape=FP16.bits, depth=table.size, init=table.tolist())
        m.submodules[name] = words
        port = words.read_port(domain="comb")
        m.d.comb += port.addr.eq(x[FP16.bits - 1 - shapes.LUT_BITS : FP16.bits - 1])
        return port.data

    def _converted(self, m: Module, name: str, source: Any, target: Any, x: Value) -> Value:
        m.submodules[name] = unit = Converter(source, target, 0)
        m.d.comb += [unit.advance.eq(1), unit.a.eq(x)]
        return unit.y

    def _sum(self, m: Module, name: str, a: Value, b: Value) -> Value:
        m.submodules[name] = unit = Adder(0, FP32)
        m.d.comb += [unit.advance.eq(1), unit.a.eq(a), unit.b.eq(b)]
        return unit.y


def _order(x: Value) -> Value:
    """Return a number's bits as an unsigned integer that sorts as the numbers do."""
    return Mux(x[-1], ~x, x | (1 << (FP16.bits - 1)))[: FP16.bits]
