"""The DMA keeps reads behind writes, and its offers up, however late the bus answers."""

import pytest
from amaranth.sim import Simulator

from rtl.machine.dma import Dma
from simulator.arch.load import load_arch

pytestmark = pytest.mark.rtl

MANY = 300
"""Bursts of a beat each: more than any counter of them holds at once."""

STORE = {"store": 1, "beats": MANY, "run": 1, "count_0": MANY, "stride_0": 2}
LOAD = {"address": 5, "beats": 1, "run": 1}


def played(steps, cycles, *, takes_read, answers):
    """Run steps on a bus that takes writes at once, and reads and answers in the given cycles.

    Returns, cycle by cycle, reads on offer, acknowledgements so far, and whether all is quiet.
    """
    dma, seen = Dma(load_arch("sat-tiny")), []

    async def bench(ctx):
        left, open_bursts, answered = list(steps), 0, 0
        for signal in (dma.bus.aw.ready, dma.bus.w.ready, dma.room):
            ctx.set(signal, 1)
        for cycle in range(cycles):
            answer = bool(open_bursts) and answers(cycle)
            ctx.set(dma.bus.b.valid, answer)
            ctx.set(dma.bus.ar.ready, takes_read(cycle))
            goes = bool(left) and bool(ctx.get(dma.free))
            ctx.set(dma.go, goes)
            if goes:
                ctx.set(dma.step, left.pop(0))
            seen.append((ctx.get(dma.bus.ar.valid), answered, ctx.get(dma.quiet)))
            open_bursts += ctx.get(dma.bus.aw.valid) - answer
            answered += answer
            await ctx.tick()

    simulator = Simulator(dma)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def test_a_read_waits_for_every_write_before_it_however_many_are_unanswered():
    """Answers begin after 2 * MANY cycles, one in two: no read, and no end, before the last."""
    late = played(
        [STORE, LOAD],
        6 * MANY,
        takes_read=lambda _: True,
        answers=lambda cycle: cycle > 2 * MANY and cycle % 2,
    )
    assert [answered for read, answered, _ in late if read] == [MANY]
    assert {answered for _, answered, quiet in late[2:] if quiet} == {MANY}


def test_a_read_on_offer_stays_until_it_is_taken_however_many_writes_follow():
    """The bus takes no read for 2 * MANY cycles and answers every write at once."""
    stalled = played(
        [LOAD, STORE], 4 * MANY, takes_read=lambda cycle: cycle >= 2 * MANY, answers=lambda _: True
    )
    offered = [cycle for cycle, (read, _, _) in enumerate(stalled) if read]
    assert offered == list(range(offered[0], 2 * MANY + 1))
    assert stalled[-1][1:] == (MANY, 1)
