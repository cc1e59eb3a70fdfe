"""Observe a unit in Amaranth's own simulator: starts at once, needs no tools."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from amaranth.hdl import ClockDomain, Module, Value
from amaranth.lib.wiring import In
from amaranth.sim import Simulator

from rtl.cosim.play import Drive, Observation, Player, Sample, Stimulus, play
from rtl.unit import Unit

__all__ = ["observe"]

CLOCK_PERIOD_S = 1e-6


class _Ports:
    """The unit's ports as plain values."""

    def __init__(self, dut: Unit) -> None:
        streams = [name for name, port in dut.signature.members.items() if port.flow is In]
        self.streams = {
            name: (port.valid, Value.cast(port.payload), port.ready)
            for name, port in ((name, getattr(dut, name)) for name in streams)
        }
        self.out_valid, self.out = dut.out.valid, Value.cast(dut.out.payload)
        self.out_ready, self.counters = dut.out.ready, dut.counters

    def drive(self, ctx: Any, drive: Drive) -> None:
        for name, (offered, word) in drive.offers.items():
            valid, payload, _ = self.streams[name]
            ctx.set(valid, offered)
            if word is not None:
                ctx.set(payload, word)
        ctx.set(self.out_ready, drive.out_ready)

    def sample(self, ctx: Any) -> Sample:
        valid = ctx.get(self.out_valid)
        ready = {name: ctx.get(port) for name, (_, _, port) in self.streams.items()}
        return Sample(ready, valid, ctx.get(self.out) if valid else 0)


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


def observe(dut: Unit, stimuli: Iterable[Stimulus]) -> Iterator[Observation]:
    """Play every stimulus on one elaborated unit, resetting it before each."""
    top = Module()
    top.submodules.dut = dut
    domain: Any = ClockDomain("sync")
    top.domains.sync = domain
    simulator = Simulator(top)
    simulator.add_clock(CLOCK_PERIOD_S)
    ports = _Ports(dut)
    found: list[Observation] = []

    async def bench(ctx: Any) -> None:
        for stimulus in stimuli:
            observation = await _observe(ctx, ports, domain.rst, play(stimulus))
            found.append(observation)

    simulator.add_testbench(bench)
    while found or simulator.advance():
        while found:
            yield found.pop(0)
    yield from found
