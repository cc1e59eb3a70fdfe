"""The feeder: walks a job's operand beats in the array's order and forms them from the buffers."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from rtl import shapes as array_shapes
from rtl.machine import shapes
from rtl.shapes import Mode
from rtl.unit import Unit, structured
from simulator.arch import NMArray
from simulator.arch.nm_job import fold_rows

__all__ = ["Feeder", "counted"]


def counted(
    m: Module, enable: Value, limits: Sequence[Value | int], name: str
) -> tuple[list[Signal], list[Signal]]:
    """Return nested counters, outermost first, and whether each is about to wrap around.

    They move with `enable`; limits are at least 1.
    """
    counters, wraps = [], []
    moves = enable
    for position, limit in reversed(list(enumerate(limits))):
        counter = Signal(shapes.COUNT_BITS, name=f"{name}_{position}")
        wraps_now = Signal(name=f"{name}_{position}_wraps")
        m.d.comb += wraps_now.eq(moves & (counter + 1 == limit))
        with m.If(moves):
            m.d.sync += counter.eq(Mux(wraps_now, 0, counter + 1))
        counters.append(counter)
        wraps.append(wraps_now)
        moves = wraps_now
    return counters[::-1], wraps[::-1]


def accumulated(m: Module, step: Value | int, moves: Value, clears: Value, name: str) -> Signal:
    """Return a sum that grows by `step` with `moves` and starts anew with `clears`."""
    total = Signal(shapes.COUNT_BITS, name=name)
    with m.If(clears):
        m.d.sync += total.eq(0)
    with m.Elif(moves):
        m.d.sync += total.eq(total + step)
    return total


class Feeder(Unit):
    """Forms the side and top beats of the running job.

    Each lane names a row and a column of its operand (`act_row_i` and so on, into the address
    tables) and gets back the operand's item. Both streams are always valid: the array never waits.
    Latency: a beat is formed in the cycle it is taken in. `load` takes over a new job's settings;
    by then the last beat of the one before is taken. Reset: none.
    """

    def __init__(self, arch: NMArray) -> None:
        self.arch = arch
        self.acts, self.weights = arch.rows * arch.max_m, max(arch.rows, arch.cols)
        table = range(shapes.TABLE_ENTRIES)
        ports: dict[str, Any] = {
            "step": In(shapes.array_step(arch)),
            "load": In(1),
            "side": Out(stream.Signature(array_shapes.side_beat(arch))),
            "top": Out(stream.Signature(array_shapes.top_beat(arch))),
        }
        for operand, lanes in (("act", self.acts), ("weight", self.weights)):
            for lane in range(lanes):
                ports |= {
                    f"{operand}_row_{lane}": Out(table),
                    f"{operand}_col_{lane}": Out(table),
                    f"{operand}_{lane}": In(shapes.pair_bits(arch)),
                }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Build the feeder."""
        m = Module()
        self._step = step = structured(shapes.array_step(self.arch), "held")
        with m.If(self.load):
            m.d.sync += step.eq(self.step)
        m.d.comb += [self.side.valid.eq(1), self.top.valid.eq(1)]
        os = self._streams_os(m)
        ws = self._streams_ws(m)
        is_ = self._streams_is(m)
        with m.Switch(step.job.mode):
            for mode, connect in ((Mode.OS, os), (Mode.WS, ws), (Mode.IS, is_)):
                with m.Case(mode):
                    connect()
        return m

    def _enables(self, mode: Mode) -> tuple[Value, Value]:
        mine = self._step.job.mode == mode
        return self.side.ready & mine, self.top.ready & mine

    def _act(self, m: Module, lane: int, row: Value, col: Value) -> Value:
        """Ask for an activation; returns it, 0 beyond the reduction."""
        step = self._step
        m.d.comb += [
            getattr(self, f"act_row_{lane}").eq(step.act_row + row),
            getattr(self, f"act_col_{lane}").eq(step.act_col + col),
        ]
        return Mux(col < step.k_limit, getattr(self, f"act_{lane}")[: shapes.VALUE_BITS], 0)

    def _pair(self, m: Module, pair: Any, lane: int, row: Value, col: Value, place: Value) -> None:
        """Ask for a kept pair; a dense weight's index is its place in the group."""
        step = self._step
        item = getattr(self, f"weight_{lane}")
        m.d.comb += [
            getattr(self, f"weight_row_{lane}").eq(step.weight_row + row),
            getattr(self, f"weight_col_{lane}").eq(step.weight_col + col),
        ]
        with m.If(row < step.pair_limit):
            m.d.comb += pair.value.eq(item[: shapes.VALUE_BITS])
            if self.arch.index_bits:
                index = Mux(step.indexed, item[shapes.VALUE_BITS :], place)
                m.d.comb += pair.index.eq(index)

    def _streams_os(self, m: Module) -> Any:
        """Row tile, column tile, group, sum; beside it kept values for the column tile."""
        arch, step = self.arch, self._step
        take_side, take_top = self._enables(Mode.OS)
        (_, _, _, part), wraps = counted(
            m, take_side, [step.outer, step.inner, step.job.length, arch.interleave], "os_side"
        )
        first = accumulated(m, fold_rows(arch), wraps[1], wraps[0], "os_m")
        group = accumulated(m, step.job.group, wraps[3], wraps[2], "os_k")
        (_, _, _, kept), tops = counted(
            m, take_top, [step.outer, step.inner, step.job.length, step.job.kept], "os_top"
        )
        col = accumulated(m, arch.cols, tops[2], tops[1], "os_n")
        pair = accumulated(m, step.job.kept, tops[3], tops[2], "os_pair")

        def connect() -> None:
            for row in range(arch.rows):
                lane = self.side.payload[row]
                index = first + part * arch.rows + row
                m.d.comb += lane.valid.eq(index < step.m_limit)
                for place in range(arch.max_m):
                    value = self._act(m, row * arch.max_m + place, index, group + place)
                    m.d.comb += lane.data.group[place].eq(value)
            for column in range(arch.cols):
                lane, index = self.top.payload[column], col + column
                m.d.comb += lane.valid.eq(index < step.n_limit)
                self._pair(m, lane.kept[0], column, pair + kept, index, kept)

        return connect

    def _reduction(self, m: Module, moves: Value, clears: Value, name: str) -> tuple[Value, ...]:
        """Return the first group, position and pair of a reduction fold."""
        rows, job = self.arch.rows, self._step.job
        return (
            accumulated(m, rows, moves, clears, f"{name}_group"),
            accumulated(m, rows * job.group, moves, clears, f"{name}_k"),
            accumulated(m, rows * job.kept, moves, clears, f"{name}_pair"),
        )

    def _streams_ws(self, m: Module) -> Any:
        """Column tile, reduction tile, vector; loads bottom row and last kept value first."""
        arch, step = self.arch, self._step
        take_side, take_top = self._enables(Mode.WS)
        (_, _, vector), wraps = counted(
            m, take_side, [step.outer, step.inner, step.job.length], "ws_side"
        )
        groups, k, _ = self._reduction(m, wraps[2], wraps[1], "ws_side")
        (_, _, row_up, kept_up), tops = counted(
            m, take_top, [step.outer, step.inner, arch.rows, step.job.kept], "ws_top"
        )
        top_groups, _, pairs = self._reduction(m, tops[2], tops[1], "ws_top")
        col = accumulated(m, arch.cols, tops[1], tops[0], "ws_n")
        row, kept = arch.rows - 1 - row_up, step.job.kept - 1 - kept_up

        def connect() -> None:
            for r in range(arch.rows):
                lane = self.side.payload[r]
                m.d.comb += lane.valid.eq(groups + r < step.group_limit)
                for place in range(arch.max_m):
                    position = k + r * step.job.group + place
                    value = self._act(m, r * arch.max_m + place, vector, position)
                    m.d.comb += lane.data.group[place].eq(value)
            for column in range(arch.cols):
                lane, index = self.top.payload[column], col + column
                there = (top_groups + row < step.group_limit) & (index < step.n_limit)
                m.d.comb += lane.valid.eq(there)
                at = (pairs + row * step.job.kept + kept)[: shapes.COUNT_BITS]
                self._pair(m, lane.kept[0], column, at, index, kept)

        return connect

    def _streams_is(self, m: Module) -> Any:
        """Row tile, reduction tile, block of vectors, kept value, vector of the block."""
        arch, step = self.arch, self._step
        take_side, take_top = self._enables(Mode.IS)
        kept, part, base = (
            Signal(shapes.COUNT_BITS, name=f"is_side_{n}") for n in ("kept", "part", "base")
        )
        left = step.job.length - base
        together = Mux(left < arch.interleave, left, arch.interleave)
        part_last, kept_last = part + 1 == together, kept + 1 == step.job.kept
        block_last = take_side & part_last & kept_last
        fold_last = block_last & (base + arch.interleave >= step.job.length)
        with m.If(take_side):
            m.d.sync += part.eq(Mux(part_last, 0, part + 1))
            with m.If(part_last):
                m.d.sync += kept.eq(Mux(kept_last, 0, kept + 1))
        with m.If(block_last):
            m.d.sync += base.eq(Mux(fold_last, 0, base + arch.interleave))
        _, wraps = counted(m, fold_last, [step.outer, step.inner], "is_side")
        groups, _, pairs = self._reduction(m, fold_last, wraps[1], "is_side")
        (_, _, row_up, place_up), tops = counted(
            m, take_top, [step.outer, step.inner, arch.rows, step.job.group], "is_top"
        )
        _, k, _ = self._reduction(m, tops[2], tops[1], "is_top")
        first = accumulated(m, arch.cols, tops[1], tops[0], "is_m")
        row, place = arch.rows - 1 - row_up, step.job.group - 1 - place_up

        def connect() -> None:
            for r in range(arch.rows):
                lane = self.side.payload[r]
                m.d.comb += lane.valid.eq(groups + r < step.group_limit)
                at = (pairs + r * step.job.kept + kept)[: shapes.COUNT_BITS]
                self._pair(m, lane.data.kept[0], r, at, base + part, kept)
            position = (k + row * step.job.group + place)[: shapes.COUNT_BITS]
            for column in range(arch.cols):
                lane, index = self.top.payload[column], first + column
                there = (index < step.m_limit) & (position < step.k_limit)
                m.d.comb += lane.valid.eq(there)
                m.d.comb += lane.kept[0].value.eq(self._act(m, column, index, position))

        return connect
