"""Run a program on six in-order modules that wait for and release each other's tokens.

`execute` runs a flat program instruction by instruction and finds deadlocks; `program_steps`
gives the same program to the max-plus engine, which is exact for any loop at the cost of one
iteration.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa.code import Code, Loop, decode
from simulator.dsp_isa.files import read_program
from simulator.dsp_isa.layout import MISC_PHASES, Instruction, MiscOp, Module
from simulator.schedule import Block, Repeat, Step
from simulator.units.dsp_timing import chain_cycles, link_cycles, misc_cycles, transfer_cycles
from workloads.canonical import Spec

__all__ = ["Execution", "channel", "duration", "execute", "execute_file", "program_steps"]

OnRun = Callable[[int, int, int], None]
"""Called with the number of an instruction, the cycle it starts in and the one it ends in."""


def channel(source: Module, target: Module) -> str:
    """Return the name of the tokens that `source` gives to `target`."""
    return f"{source}>{target}"


def _transfer(arch: DspChain, instruction: Instruction) -> int:
    channels, most = instruction.get("channels"), arch.hbm.channels
    if not 1 <= channels <= most:
        raise ValueError(f"{instruction.module} moves over {channels} channels, not 1 to {most}")
    rate = arch.bytes_per_cycle(channels, cross=bool(instruction.get("cross")))
    return transfer_cycles(rate, instruction.get("bytes"))


def duration(arch: DspChain, instruction: Instruction) -> tuple[int, int]:
    """Return the cycles an instruction takes its module, and how much later its tokens appear.

    Raises ValueError for a transfer over no channel, or more than there are, and for an unknown
    operation of MISC.
    """
    get = instruction.get
    match instruction.module:
        case Module.LD:
            return _transfer(arch, instruction), arch.hbm.latency_cycles
        case Module.ST if get("link"):
            return link_cycles(arch, get("bytes") * arch.cores), 0
        case Module.ST:
            return _transfer(arch, instruction), arch.hbm.latency_cycles
        case Module.MM | Module.MV:
            return chain_cycles(arch, get("groups"), get("passes")), 0
        case Module.MISC:
            phases = MISC_PHASES[MiscOp(get("op"))]
            return misc_cycles(arch, get("rows"), get("groups") * arch.group, phases), 0
        case Module.SYS:
            return 1, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Spec):
    """Cycles of a program, and for every module its busy cycles and instructions."""

    cycles: int
    busy: dict[Module, int]
    instructions: dict[Module, int]


def _deadlock(queues: Mapping[Module, deque[tuple[int, Instruction]]], stuck: str) -> ValueError:
    others = ", ".join(f"{m} at instruction {q[0][0]}" for m, q in queues.items() if q)
    return ValueError(f"The program deadlocks: {stuck} (waiting: {others})")


def execute(
    arch: DspChain,
    program: Sequence[Instruction],
    tokens: Mapping[str, int] | None = None,
    *,
    on_run: OnRun | None = None,
) -> Execution:
    """Return the time of a flat program whose channels start with `tokens`.

    `on_run` is called for every instruction, module by module in the order they run.

    Raises ValueError if it can never end, naming the module that waits, for whose token and at
    which instruction, and for an instruction that the machine cannot run.
    """
    queues: dict[Module, deque[tuple[int, Instruction]]] = {m: deque() for m in Module}
    for number, instruction in enumerate(program):
        queues[instruction.module].append((number, instruction))
    counts = {module: len(queue) for module, queue in queues.items()}
    ready: dict[str, deque[int]] = {name: deque([0] * n) for name, n in (tokens or {}).items()}
    free, busy = dict.fromkeys(Module, 0), dict.fromkeys(Module, 0)
    awake = deque(Module)
    while awake:
        module = awake.popleft()
        for target in _advance(arch, module, queues[module], ready, free, busy, on_run):
            if target not in awake:
                awake.append(target)
    for module, queue in queues.items():
        if queue:
            raise _deadlock(queues, _missing(module, *queue[0], ready))
    return Execution(cycles=max(free.values()), busy=busy, instructions=counts)


def execute_file(arch: DspChain, path: Path) -> Execution:
    """Return the time of the program in a file.

    Raises ValueError if the file is damaged or its program was made for another machine.
    """
    file = read_program(path)
    if file.arch_digest != arch.digest():
        raise ValueError(
            f"Program file {str(path)!r} was made for another machine: its digest is "
            f"{file.arch_digest[:12]}, this machine's {arch.digest()[:12]}"
        )
    return execute(arch, decode(file.words), file.tokens)


def _missing(
    module: Module, number: int, instruction: Instruction, ready: Mapping[str, deque[int]]
) -> str:
    source = next(m for m in instruction.waits if not ready.get(channel(m, module)))
    return f"{module} waits at instruction {number} for a token of {source} that never comes"


def _advance(
    arch: DspChain,
    module: Module,
    queue: deque[tuple[int, Instruction]],
    ready: dict[str, deque[int]],
    free: dict[Module, int],
    busy: dict[Module, int],
    on_run: OnRun | None,
) -> Iterable[Module]:
    """Run a module as far as its tokens allow; return the modules it gave tokens to."""
    woken: dict[Module, None] = {}
    while queue:
        number, instruction = queue[0]
        waiting = [channel(source, module) for source in instruction.waits]
        if not all(ready.get(name) for name in waiting):
            break
        queue.popleft()
        start = max([free[module], *(ready[name].popleft() for name in waiting)])
        try:
            cycles, latency = duration(arch, instruction)
        except ValueError as error:
            raise ValueError(f"Instruction {number}: {error}") from None
        free[module] = start + cycles
        busy[module] += cycles
        if on_run:
            on_run(number, start, free[module])
        for target in instruction.releases:
            ready.setdefault(channel(module, target), deque()).append(free[module] + latency)
            woken[target] = None
    return woken


def program_steps(arch: DspChain, code: Code) -> Block:
    """Return the steps of `code` for the max-plus engine, loops kept."""
    return tuple(
        Repeat(times=item.times, body=program_steps(arch, item.body))
        if isinstance(item, Loop)
        else _step(arch, item)
        for item in code
    )


def _step(arch: DspChain, instruction: Instruction) -> Step:
    cycles, latency = duration(arch, instruction)
    module = instruction.module
    return Step(
        unit=module,
        label=str(module).lower(),
        cycles=cycles,
        latency=latency,
        waits=tuple(channel(source, module) for source in instruction.waits),
        releases=tuple(channel(module, target) for target in instruction.releases),
    )
