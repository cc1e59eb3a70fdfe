"""The cocotb testbench: plays stimuli from a file on the exported Verilog, writes what it saw.

It runs inside the simulator and judges nothing; the process that started it compares. The plus
arguments `stimuli` and `observations` name the files.
"""

from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer

from rtl.cosim.exchange import read_stimuli, write_observations
from rtl.cosim.play import Drive, Observation, Sample, play
from rtl.cosim.stimulus import Stimulus

__all__ = ["replay"]

INPUTS = (
    "job__valid",
    "job__payload",
    "side__valid",
    "side__payload",
    "top__valid",
    "top__payload",
    "out__ready",
)


class _Pins:
    """The ports of the array, written only where a value changes."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.inputs = [getattr(dut, name) for name in INPUTS]
        self.last: list[int | None] = [None] * len(INPUTS)

    def drive(self, drive: Drive) -> None:
        for position, value in enumerate(drive):
            if value is not None and value != self.last[position]:
                self.inputs[position].value = int(value)
                self.last[position] = value

    def sample(self) -> Sample:
        dut = self.dut
        valid = int(dut.out__valid.value)
        return Sample(
            int(dut.job__ready.value),
            int(dut.side__ready.value),
            int(dut.top__ready.value),
            valid,
            dut.out__payload.value.to_unsigned() if valid else 0,
        )

    async def edge(self) -> None:
        """Let inputs settle and the clock rise."""
        self.dut.clk.value = 1
        await Timer(1, "ns")
        self.dut.clk.value = 0


async def _replay(pins: _Pins, stimulus: Stimulus) -> tuple[Observation, int]:
    pins.dut.rst.value = 1
    await Timer(1, "ns")
    await pins.edge()
    pins.dut.rst.value = 0
    player = play(stimulus)
    drive = next(player)
    while True:
        pins.drive(drive)
        await Timer(1, "ns")
        try:
            drive = player.send(pins.sample())
        except StopIteration as end:
            return end.value, pins.dut.counters.value.to_unsigned()
        await pins.edge()


@cocotb.test()
async def replay(dut: Any) -> None:
    """Play every stimulus, resetting the array before each."""
    pins = _Pins(dut)
    dut.clk.value = 0
    pins.drive(Drive(0, 0, 0, 0, 0, 0, 0))
    stimuli = read_stimuli(Path(str(cocotb.plusargs["stimuli"])))
    seen = [await _replay(pins, stimulus) for stimulus in stimuli]
    write_observations(Path(str(cocotb.plusargs["observations"])), seen)
