"""Observe the array in Amaranth's own simulator: starts at once, needs no tools."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from amaranth.hdl import ClockDomain, Module, Value
from amaranth.sim import Simulator

from rtl.cosim.play import Drive, Observation, Player, Sample
from rtl.unit import Unit

__all__ = ["observe"]

CLOCK_PERIOD_S = 1e-6


class _Ports:
    """The array's ports as plain values."""

    def __init__(self, dut: Unit) -> None:
        self.inputs = (
            dut.job.valid,
            Value.cast(dut.job.payload),
            dut.side.valid,
            Value.cast(dut.side.payload),
            dut.top.valid,
            Value.cast(dut.top.payload),
            dut.out.ready,
        )
        self.job_ready, self.side_ready, self.top_ready = (
            port.ready for port in (dut.job, dut.side, dut.top)
        )
        self.out_valid, self.out = dut.out.valid, Value.cast(dut.out.payload)
        self.counters = dut.counters

    def drive(self, ctx: Any, drive: Drive) -> None:
        for port, value in zip(self.inputs, drive, strict=True):
            if value is not None:
                ctx.set(port, int(value))

    def sample(self, ctx: Any) -> Sample:
        valid = ctx.get(self.out_valid)
        return Sample(
            ctx.get(self.job_ready),
            ctx.get(self.side_ready),
            ctx.get(self.top_ready),
            valid,
            ctx.get(self.out) if valid else 0,
        )


async def _observe(ctx: Any, ports: _Ports, reset: Any, player: Player) -> Observation:
    ctx.set(reset, 1)
    await ctx.tick()
    ctx.set(reset, 0)
    drive = next(player)
    while True:
        ports.drive(ctx, drive)
        seen = ports.sample(ctx)
        try:
            drive = player.send(seen)
        except StopIteration as end:
            counters = ctx.get(ports.counters)
            names = [name for name, _ in ports.counters.shape()]
            return replace(end.value, counters={name: counters[name] for name in names})
        await ctx.tick()


def observe(dut: Unit, players: Iterable[Player]) -> Iterator[Observation]:
    """Run every player on one elaborated array, resetting it before each."""
    top = Module()
    top.submodules.dut = dut
    domain: Any = ClockDomain("sync")
    top.domains.sync = domain
    simulator = Simulator(top)
    simulator.add_clock(CLOCK_PERIOD_S)
    ports = _Ports(dut)
    found: list[Observation] = []

    async def bench(ctx: Any) -> None:
        for player in players:
            observation = await _observe(ctx, ports, domain.rst, player)
            found.append(observation)

    simulator.add_testbench(bench)
    while found or simulator.advance():
        while found:
            yield found.pop(0)
    yield from found
