"""Run the DSP machine compiled to native code on programs and memory images.

Both of its AXI4 memories are the driver's: in order, a beat a cycle, with the latency that the
model counts, or with random pauses on every channel.
"""

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from string import Template

import numpy as np
from amaranth.back import rtlil  # type: ignore[attr-defined]  # missing from the stubs
from numpy.typing import NDArray

from rtl.cosim.machine import compile_verilog, converted_verilog
from rtl.dsp_chain import SpecialLane, Vpu
from rtl.dsp_machine import DspTop, shapes
from rtl.dsp_machine.program import check_program
from rtl.dsp_machine.shapes import MODULES, Setting
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import Instruction, Registers, decode, execute
from simulator.dsp_isa.layout import Module

__all__ = ["DspModel", "DspOutcome", "build_dsp", "check_shared_chains", "core_settings"]

CHAIN_NAME, LANE_NAME = "dsp_vpu", "dsp_lane"

DRIVER = """
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include "Vtop.h"

double sc_time_stamp() { return 0; }

struct Noise {
    uint64_t state;
    bool pause() {
        if (!state) return false;
        state ^= state << 13; state ^= state >> 7; state ^= state << 17;
        return state & 1;
    }
};

struct Reads {
    uint8_t *bytes; size_t size; uint64_t latency; Noise noise;
    struct Burst { uint64_t addr, left, ready; };
    std::deque<Burst> bursts;
    bool ready = true, valid = false;
    uint32_t data = 0; bool last = false;
    bool outside = false;
    void offer(uint64_t now) {
        ready = !noise.pause();
        valid = !bursts.empty() && bursts.front().ready <= now && !noise.pause();
        if (!valid) return;
        Burst &burst = bursts.front();
        data = 0;
        if (burst.addr + 4 <= size) memcpy(&data, bytes + burst.addr, 4);
        else outside = true;
        last = burst.left == 1;
    }
    void take(uint64_t now, bool asked, uint64_t addr, uint64_t len) {
        if (valid) {
            bursts.front().addr += 4;
            if (!--bursts.front().left) bursts.pop_front();
        }
        if (asked && ready) bursts.push_back({addr, len + 1, now + latency});
    }
};

struct Writes {
    uint8_t *bytes; size_t size; uint64_t answer; Noise noise;
    std::deque<uint64_t> addresses, answers;
    bool aw_ready = true, w_ready = true, b_valid = false;
    bool outside = false;
    void offer(uint64_t now, bool asked) {
        aw_ready = !noise.pause();
        w_ready = (!addresses.empty() || (asked && aw_ready)) && !noise.pause();
        b_valid = !answers.empty() && answers.front() <= now && !noise.pause();
    }
    void take(uint64_t now, bool asked, uint64_t addr, bool given, uint32_t data, bool last) {
        if (b_valid) answers.pop_front();
        if (asked && aw_ready) addresses.push_back(addr);
        if (!given || !w_ready) return;
        uint64_t &at = addresses.front();
        if (at + 4 <= size) memcpy(bytes + at, &data, 4);
        else outside = true;
        at += 4;
        if (last) { addresses.pop_front(); answers.push_back(now + answer); }
    }
};

struct Offer {
    bool open = false; uint64_t kept = 0;
    bool broken(bool valid, bool ready, uint64_t payload) {
        bool changed = open && (!valid || payload != kept);
        open = valid && !ready;
        kept = payload;
        return changed;
    }
};

static void clock_once(Vtop *top) {
    top->clk = 0;
    top->eval();
    top->clk = 1;
    top->eval();
}

extern "C" uint64_t run(const uint32_t *settings, size_t count, uint8_t *memory, size_t size,
                        uint8_t *code, size_t code_size, uint64_t limit, uint64_t seed,
                        uint64_t *busy, uint64_t *seen, uint16_t *out, size_t words) {
    Vtop *top = new Vtop;
    top->rst = 1;
    clock_once(top);
    top->rst = 0;
    top->load_enable = 1;
    for (size_t at = 0; at < count; at++) {
        top->load = settings[2 * at] | (uint64_t)settings[2 * at + 1] << 6;
        clock_once(top);
    }
    top->load_enable = 0;
    Reads data{memory, size, $latency, {seed}}, program{code, code_size, 1, {seed ? seed + 1 : 0}};
    Writes writes{memory, size, $answer, {seed ? seed + 2 : 0}};
    top->start = 1;
    Offer ar, fetch, aw, w;
    bool broken = false;
    uint64_t now = 0;
    do {
        data.offer(now);
        program.offer(now);
        writes.offer(now, top->m_axi_awvalid);
        top->m_axi_arready = data.ready;
        top->m_axi_rvalid = data.valid;
        top->m_axi_rdata = data.data;
        top->m_axi_rlast = data.last;
        top->p_axi_arready = program.ready;
        top->p_axi_rvalid = program.valid;
        top->p_axi_rdata = program.data;
        top->p_axi_rlast = program.last;
        top->m_axi_awready = writes.aw_ready;
        top->m_axi_wready = writes.w_ready;
        top->m_axi_bvalid = writes.b_valid;
        top->clk = 0;
        top->eval();
        broken |= ar.broken(top->m_axi_arvalid, data.ready,
                            top->m_axi_araddr | (uint64_t)top->m_axi_arlen << 32);
        broken |= fetch.broken(top->p_axi_arvalid, program.ready,
                               top->p_axi_araddr | (uint64_t)top->p_axi_arlen << 32);
        broken |= aw.broken(top->m_axi_awvalid, writes.aw_ready,
                            top->m_axi_awaddr | (uint64_t)top->m_axi_awlen << 32);
        broken |= w.broken(top->m_axi_wvalid, writes.w_ready,
                           top->m_axi_wdata | (uint64_t)top->m_axi_wlast << 32);
        broken |= !top->m_axi_rready || !top->p_axi_rready || !top->m_axi_bready;
        data.take(now, top->m_axi_arvalid, top->m_axi_araddr, top->m_axi_arlen);
        program.take(now, top->p_axi_arvalid, top->p_axi_araddr, top->p_axi_arlen);
        writes.take(now, top->m_axi_awvalid, top->m_axi_awaddr, top->m_axi_wvalid,
                    top->m_axi_wdata, top->m_axi_wlast);
        top->clk = 1;
        top->eval();
        top->start = 0;
    } while (!top->done && !top->stuck && ++now < limit);
    seen[0] = top->done;
    seen[1] = top->stuck;
    seen[2] = data.outside || program.outside || writes.outside;
    seen[3] = broken;
$busy
    for (size_t at = 0; at < words; at++) {
        top->out_at = at;
        top->eval();
        for (size_t i = 0; i < 8; i++) {
            out[16 * at + 2 * i] = top->out_seen[i];
            out[16 * at + 2 * i + 1] = top->out_seen[i] >> 16;
        }
    }
    uint64_t cycles = top->cycles;
    delete top;
    return cycles;
}
"""
"""Sets the core's registers, starts it and answers on both buses until it ends or is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DspOutcome:
    """What a run did: memory and out buffer after it, cycles, and busy cycles by module."""

    memory: NDArray[np.uint8]
    out: NDArray[np.int16]
    cycles: int
    busy: Mapping[Module, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DspModel:
    """A compiled machine."""

    arch: DspChain
    library: ctypes.CDLL

    def run(
        self,
        words: NDArray[np.uint32],
        registers: Registers,
        memory: NDArray[np.uint8],
        tokens: Mapping[str, int] | None = None,
        *,
        limit: int = 10**7,
        pause_seed: int = 0,
    ) -> DspOutcome:
        """Run a program's words on a memory image uint8[bytes].

        With a `pause_seed` all channels of both buses pause at random. Raises ValueError for a
        program that deadlocks, in the words of `execute`, and for one that the core cannot run;
        RuntimeError if the machine leaves its memory, breaks AXI4's handshakes or is not done
        after `limit` cycles.
        """
        program = decode(words)
        check_program(self.arch, program)
        check_shared_chains(self.arch, program, tokens or {})
        settings = np.array(core_settings(registers, tokens or {}, words.size), np.uint32)
        after, code = memory.copy(), words.astype("<u4").view(np.uint8).copy()
        busy, seen = np.zeros(3 * len(MODULES), np.uint64), np.zeros(4, np.uint64)
        out = np.zeros((shapes.out_words(self.arch), shapes.WORD_RESULTS), np.uint16)
        run = self.library.run
        run.restype = ctypes.c_uint64
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        cycles = run(
            pointer(settings.ctypes.data),
            size(len(settings)),
            pointer(after.ctypes.data),
            size(after.size),
            pointer(code.ctypes.data),
            size(code.size),
            ctypes.c_uint64(limit),
            ctypes.c_uint64(pause_seed),
            *(pointer(array.ctypes.data) for array in (busy, seen, out)),
            size(len(out)),
        )
        done, stuck, outside, broken = map(bool, seen)
        if stuck:
            raise ValueError(_deadlock(busy))
        wrong = {
            "left its memory": outside,
            "took back what it offered on a bus, or did not take what it must": broken,
            f"is not done after {limit} cycles": not done,
        }
        for what, found in wrong.items():
            if found:
                raise RuntimeError(f"The machine {what}")
        return DspOutcome(
            memory=after,
            out=out.view(np.int16).ravel(),
            cycles=int(cycles),
            busy=dict(zip(MODULES, busy[: len(MODULES)].tolist(), strict=True)),
        )


def check_shared_chains(
    arch: DspChain, program: Sequence[Instruction], tokens: Mapping[str, int]
) -> None:
    """Raise ValueError if a program has an MM and an MV at work in the same cycle: one must wait.

    One that deadlocks is left to the machine.
    """
    spans: list[tuple[int, int, int]] = []

    def note(number: int, start: int, end: int) -> None:
        if program[number].module in (Module.MM, Module.MV):
            spans.append((start, end, number))

    if {Module.MM, Module.MV} <= {item.module for item in program}:
        with suppress(ValueError):
            execute(arch, program, tokens, on_run=note)
    for (_, end, first), (start, _, second) in pairwise(sorted(spans)):
        if start < end:
            raise ValueError(
                f"The RTL machine runs no {program[second].module} beside an "
                f"{program[first].module} on the same chains ({first} and {second})"
            )


def core_settings(
    registers: Registers, tokens: Mapping[str, int], words: int
) -> list[tuple[int, int]]:
    channels = {
        f"{source}>{target}": Setting.TOKENS.value + i * len(MODULES) + j
        for i, source in enumerate(MODULES)
        for j, target in enumerate(MODULES)
    }
    return [
        *((Setting.BASE.value + int(base), line) for base, line in registers.bases.items()),
        (Setting.LENGTH.value, registers.length),
        (Setting.WORDS.value, words),
        *((channels[name], count) for name, count in tokens.items()),
    ]


def _deadlock(state: NDArray[np.uint64]) -> str:
    """Return the sentence of `execute`: who waits, for whose token, at which instruction."""
    numbers, missing = state[len(MODULES) :].reshape(2, -1).tolist()
    waiting = [(u, n, lack) for u, n, lack in zip(MODULES, numbers, missing, strict=True) if lack]
    module, number, lack = waiting[0]
    source = next(giver for place, giver in enumerate(MODULES) if lack >> place & 1)
    others = ", ".join(f"{unit} at instruction {at}" for unit, at, _ in waiting)
    return (
        f"The program deadlocks: {module} waits at instruction {number} for a token of {source} "
        f"that never comes (waiting: {others})"
    )


def build_dsp(arch: DspChain, directory: Path) -> DspModel:
    """Compile the machine into `directory` and load it.

    Raises ToolError when a tool is missing or fails.
    """
    designs = [
        rtlil.convert(Vpu(shapes.chain(arch).chain), name=CHAIN_NAME, emit_src=False),
        rtlil.convert(SpecialLane(shapes.special(arch)), name=LANE_NAME, emit_src=False),
        rtlil.convert(
            DspTop(arch, chain_module=CHAIN_NAME, lane_module=LANE_NAME),
            name="top",
            emit_src=False,
        ),
    ]
    # Look-up tables are the statistics' and the lanes'; all other memories start as they are.
    tables = ["top.machine.misc.unit.statistics*", f"{LANE_NAME}*"]
    names = [
        [f"{module.lower()}_{what}" for module in MODULES] for what in ("busy", "number", "missing")
    ]
    busy = "\n".join(
        f"    busy[{place}] = top->{name};"
        for place, name in enumerate(name for row in names for name in row)
    )
    latency = arch.hbm.latency_cycles
    driver = Template(DRIVER).substitute(
        latency=latency - shapes.OVERHEAD, answer=latency - 1, busy=busy
    )
    library = compile_verilog(
        converted_verilog(designs, directory, tables), driver, directory, "machine"
    )
    return DspModel(arch=arch, library=library)
