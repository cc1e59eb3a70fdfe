"""The cocotb testbench of the exported machine: its AXI4 port on cocotbext-axi's RAM.

A machine with a program memory of its own reads it at `p_axi`.
It runs inside the simulator and judges the protocol alone; the process that started it compares
what memory holds. The plus arguments `given` and `seen` name the files of `rtl.cosim.axi`.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, SimTimeoutError, with_timeout
from cocotbext.axi import AxiBus, AxiRam, AxiRamRead, AxiReadBus

__all__ = ["train"]

PERIOD_NS = 2

MASTERED: Final = {
    "aw": ("addr", "len", "size", "burst", "id"),
    "w": ("data", "strb", "last"),
    "ar": ("addr", "len", "size", "burst", "id"),
}
"""What the machine must hold on each of its channels until it is taken."""


def _pauses(random: Random) -> Iterator[bool]:
    """Yield one stretch after the other, mostly short, of cycles that pause or do not."""
    while True:
        yield from [random.random() < 0.5] * random.choice((1, 1, 2, 3, 30))


def _pause(ram: AxiRam, seed: int) -> None:
    random, reads, writes = Random(seed), ram.read_if, ram.write_if
    addresses, data = (reads.ar_channel, writes.aw_channel), (reads.r_channel, writes.w_channel)
    for channel in (*addresses, *data, writes.b_channel):
        channel.set_pause_generator(_pauses(Random(random.random())))


async def _watch(dut: Any, channel: str) -> None:
    """Fail unless what is offered on the channel stays on offer until it is taken."""
    valid, ready = (getattr(dut, f"m_axi_{channel}{name}") for name in ("valid", "ready"))
    pins = [getattr(dut, f"m_axi_{channel}{name}") for name in MASTERED[channel]]
    held = None
    while True:
        await RisingEdge(dut.clk)
        offer = [int(pin.value) for pin in pins] if valid.value else None
        assert held in (None, offer), f"m_axi_{channel}: {held} was not taken, now it is {offer}"
        held = None if ready.value else offer


async def _load(dut: Any, words: list[str]) -> None:
    """Reset the machine and write its program."""
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    dut.load_enable.value = 1
    for word in words:
        dut.load.value = int(word, 16)
        await RisingEdge(dut.clk)
    dut.load_enable.value = 0


async def _done(dut: Any, limit_cycles: int) -> None:
    try:
        await with_timeout(RisingEdge(dut.done), PERIOD_NS * limit_cycles, "ns")
    except SimTimeoutError:
        raise RuntimeError(f"The machine is not done after {limit_cycles} cycles") from None


@cocotb.test()
async def train(dut: Any) -> None:
    """Run the program on the memory image and write what it left."""
    given = json.loads(Path(str(cocotb.plusargs["given"])).read_bytes())
    logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
    Clock(dut.clk, PERIOD_NS, "ns").start()
    await _load(dut, given["words"])
    memory = bytearray.fromhex(given["memory"])
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, mem=memory)
    if given["pause_seed"] is not None:
        _pause(ram, given["pause_seed"])
    if "program" in given:
        code = bytearray.fromhex(given["program"])
        AxiRamRead(AxiReadBus.from_prefix(dut, "p_axi"), dut.clk, size=len(code), mem=code)
    for channel in MASTERED:
        cocotb.start_soon(_watch(dut, channel))
    dut.start.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.start.value = 0
    await _done(dut, given["limit_cycles"])
    seen = {"memory": memory.hex(), "cycles": dut.cycles.value.to_unsigned()}
    Path(str(cocotb.plusargs["seen"])).write_text(json.dumps(seen), encoding="utf-8")
