"""The matrix unit: a row of engines of one chain each, which MV and MM take in turn."""

from typing import Any, Final

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out

from rtl.dsp_chain.mpe import Mpe
from rtl.dsp_machine import shapes
from rtl.unit import Unit
from simulator.arch.dsp_cells import KEPT
from simulator.arch.dsp_chain import DspChain

__all__ = ["STEPS", "Engine", "engine_user", "row_cuts", "row_node"]

STEPS: Final = len(KEPT) - 1
"""Numbers of rows in a chain: 1, 2, 4 or 8."""


def engine_user(arch: DspChain) -> dict[str, Any]:
    """Ports of a module that multiplies, beside those that start the engine.

    It brings candidates of every chain in a cycle with `takes_side`, weights in one with
    `takes_top`, and takes the sums of a pass with `there`.
    """
    return {
        "takes_side": In(1),
        "side": Out(shapes.candidates(arch)),
        "takes_top": In(1),
        "top": Out(shapes.weights(arch)),
        "there": In(1),
        "sums": In(shapes.sums(arch)),
    }


def row_node(row: int, step: int, groups: int) -> int:
    """Return the node where one of the 2**step rows of a chain ends."""
    return (row + 1) * groups // (1 << step) - 1


def row_cuts(m: Module, name: str, step: Any, groups: int) -> Signal:
    """Return a bit for every node where one of the 2**step rows of a chain ends."""
    cuts = Signal(groups, name=name)
    with m.Switch(step):
        for each in range(STEPS):
            nodes = [row_node(row, each, groups) for row in range(1 << each)]
            with m.Case(each):
                m.d.comb += cuts.eq(sum(1 << node for node in nodes))
    return cuts


class Engine(Unit):
    """One `Mpe` for each of `mv_columns` chains, all in step.

    In MV they share a token's candidates and hold rows of their own; in MM they share the rows and
    each takes two tokens. `pairs` says which: it fills the second slot of every product.

    Latency: weights of a job are taken one cycle after `go`, candidates two; sums of a pass come
    `DspChain.fill_cycles` cycles after its weights. Throughput: a pass a cycle, one job at a
    time. Back-pressure: none. Reset: idle.
    """

    def __init__(self, arch: DspChain, *, part_module: str | None = None) -> None:
        self.arch, self.part_module = arch, part_module
        ports = {
            "takes_side": Out(1),
            "side": In(shapes.candidates(arch)),
            "takes_top": Out(1),
            "top": In(shapes.weights(arch)),
            "there": Out(1),
            "sums": Out(shapes.sums(arch)),
        }
        super().__init__(
            {
                "go": In(1),
                "pairs": In(1),
                "passes": In(16),
                "groups": In(shapes.GROUP_BITS),
                **ports,
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the chains."""
        m = Module()
        for chain in range(self.arch.mv_columns):
            mpe = Mpe(shapes.chain(self.arch), part_module=self.part_module)
            m.submodules[f"chain_{chain}"] = mpe
            m.d.comb += [
                mpe.job.valid.eq(self.go),
                mpe.job.payload.tokens.eq(1 + self.pairs),
                mpe.job.payload.tiles.eq(self.passes),
                mpe.job.payload.groups.eq(self.groups),
                mpe.side.valid.eq(1),
                mpe.side.payload[0].eq(self.side[chain]),
                mpe.top.valid.eq(1),
                mpe.top.payload.eq(self.top[chain]),
                mpe.out.ready.eq(1),
                self.sums[chain].eq(mpe.out.payload.sums[0]),
            ]
            if chain == 0:
                m.d.comb += [
                    self.takes_side.eq(mpe.side.ready),
                    self.takes_top.eq(mpe.top.ready),
                    self.there.eq(mpe.out.valid),
                ]
        return m
