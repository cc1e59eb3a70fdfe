"""The cocotb testbench: plays stimuli from a file on the exported Verilog, writes what it saw.

It runs inside the simulator and judges nothing; the process that started it compares. The plus
arguments `stimuli` and `observations` name the files.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer

from rtl.cosim.exchange import read_stimuli, write_observations
from rtl.cosim.play import Drive, Observation, Sample, Stimulus, play

__all__ = ["replay"]


class _Pins:
    """The ports of the unit, written only where a value changes."""

    def __init__(self, dut: Any, streams: Iterable[str]) -> None:
        self.dut = dut
        self.valid, self.payload, self.ready = (
            {name: getattr(dut, f"{name}__{part}") for name in streams}
            for part in ("valid", "payload", "ready")
        )
        self.last: dict[Any, int] = {}
        for pin in (*self.valid.values(), *self.payload.values(), dut.out__ready):
            self.write(pin, 0)

    def write(self, pin: Any, value: int) -> None:
        if self.last.get(pin) != value:
            pin.value = self.last[pin] = int(value)

    def drive(self, drive: Drive) -> None:
        for name, (valid, word) in drive.offers.items():
            self.write(self.valid[name], valid)
            if word is not None:
                self.write(self.payload[name], word)
        self.write(self.dut.out__ready, drive.out_ready)

    def sample(self) -> Sample:
        valid = int(self.dut.out__valid.value)
        return Sample(
            {name: int(pin.value) for name, pin in self.ready.items()},
            valid,
            self.dut.out__payload.value.to_unsigned() if valid else 0,
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
    """Play every stimulus, resetting the unit before each."""
    stimuli = read_stimuli(Path(str(cocotb.plusargs["stimuli"])))
    dut.clk.value = 0
    pins = _Pins(dut, stimuli[0].feeds)
    seen = [await _replay(pins, stimulus) for stimulus in stimuli]
    write_observations(Path(str(cocotb.plusargs["observations"])), seen)
