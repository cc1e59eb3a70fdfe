"""Run a schedule: exact cycles, the causes of the array's waits, and counted events."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from simulator.arch import Accelerator, DspChain, MemoryMode
from simulator.counts import Counts, Event, add, scale
from simulator.engine import program_cycles, unit_cycles, without
from simulator.recent import PerProgram
from simulator.result import OP_RECORD, STALLS, Provenance, Result, Totals
from simulator.schedule import OpSchedule, Schedule, Step, Unit, verify_schedule

__all__ = ["VERSION", "dram_bytes", "op_cycles", "op_events", "simulate", "totals"]

VERSION: Final = "0.1.0"

_EVENTS: PerProgram[dict[Event, int]] = PerProgram()


def op_cycles(arch: Accelerator, op: OpSchedule) -> int:
    """Return the cycles of one execution of `op` under the machine's memory mode."""
    match arch.memory:
        case MemoryMode.MODELLED:
            return program_cycles(op.program, op.tokens)
        case MemoryMode.IDEAL:
            return unit_cycles(op)[Unit.ARRAY]
        case MemoryMode.STEADY:
            return max(unit_cycles(op).values())


def simulate(
    schedule: Schedule,
    arch: Accelerator,
    *,
    seed: int = 0,
    on_op: Callable[[str], None] | None = None,
) -> Result:
    """Return the exact result of running `schedule` on `arch`, operator after operator.

    Raises ValueError if the schedule was made for another machine or can never finish, and for a
    DspChain, whose programs are no schedules.
    `on_op` is called with each operator's name when it is done.
    """
    _check(schedule, arch)
    records = np.zeros(len(schedule.ops), dtype=OP_RECORD)
    counts: list[dict[Event, int]] = []
    known: dict[Any, tuple[int, dict[str, int]]] = {}
    for index, op in enumerate(schedule.ops):
        # Operators lowered alike share one program object; their time is the same.
        key = id(op.program)
        if key not in known:
            known[key] = _causes(arch, op)
        events = op_events(op)
        _record(records[index], arch, op, *known[key], events)
        counts.append(scale(events, op.repeat))
        if on_op:
            on_op(op.name)
    return Result(
        workload=schedule.workload,
        sparsity=schedule.sparsity,
        arch=arch,
        cycles=int(records["cycles"].sum()),
        counts=add(counts),
        per_op=records,
        notes=schedule.notes,
        provenance=Provenance(
            workload_digest=schedule.workload_digest,
            arch_digest=schedule.arch_digest,
            schedule_digest=schedule.digest(),
            seed=seed,
            version=VERSION,
        ),
    )


def totals(schedule: Schedule, arch: Accelerator) -> Totals:
    """Return what `simulate` returns without the causes of waiting: the same cycles and counts.

    Raises ValueError as `simulate` does.
    """
    _check(schedule, arch)
    known: dict[int, tuple[int, dict[Event, int]]] = {}
    counts: dict[Event, int] = {}
    cycles = moved = 0
    for op in schedule.ops:
        key = id(op.program)
        if key not in known:
            known[key] = op_cycles(arch, op), _step_events(op)
        time, stepped = known[key]
        events = _split(stepped, op)
        cycles += time * op.repeat
        moved += (dram_bytes(events, "read") + dram_bytes(events, "write")) * op.repeat
        for event, number in events.items():
            counts[event] = counts.get(event, 0) + number * op.repeat
    return Totals(
        arch=arch,
        cycles=cycles,
        counts=dict(sorted(counts.items())),
        macs_effectual=sum(op.macs_effectual * op.repeat for op in schedule.ops),
        dram_bytes=moved,
    )


def _check(schedule: Schedule, arch: Accelerator) -> None:
    if isinstance(arch, DspChain):
        raise ValueError("A DspChain runs the graph of a decoder, not a schedule")
    if schedule.arch_digest != arch.digest():
        raise ValueError(
            f"Schedule of {schedule.workload!r} was made for another machine: its digest is "
            f"{schedule.arch_digest[:12]}, this machine's {arch.digest()[:12]}"
        )
    verify_schedule(schedule)


def _without_latency(step: Step) -> Step:
    return replace(step, latency=0)


def _without_stores(step: Step) -> Step:
    return replace(step, latency=0, cycles=0 if step.label == "store" else step.cycles)


def _without_transfers(step: Step) -> Step:
    return replace(step, latency=0, cycles=0 if step.unit is Unit.DMA else step.cycles)


def _causes(arch: Accelerator, op: OpSchedule) -> tuple[int, dict[str, int]]:
    """Return cycles of one execution and how they split into compute and causes of waiting.

    A cause is what vanishes when it is taken away, in this order: DRAM latency, write-back,
    operand transfers, the other units; then the array's own fill and load. So the parts are never
    negative and sum to the cycles.
    """
    units = unit_cycles(op)
    total = op_cycles(arch, op)
    left = [total] * 4
    if arch.memory is MemoryMode.MODELLED:
        changes = (_without_latency, _without_stores, _without_transfers)
        left[1:] = [program_cycles(without(op.program, c), op.tokens) for c in changes]
    elif arch.memory is MemoryMode.STEADY:
        left[3] = max(n for unit, n in units.items() if unit is not Unit.DMA)
    waits = op.array_waits or {"pipeline": units[Unit.ARRAY] - _busy(op)}
    beside = left[3] - units[Unit.ARRAY]
    # Next to a grid's array nothing runs but the drain of its results.
    pipeline, vector = (beside, 0) if op.array_waits else (0, beside)
    return total, {
        **dict.fromkeys(STALLS, 0),
        **waits,
        "compute": units[Unit.ARRAY] - sum(waits.values()),
        "pipeline": waits["pipeline"] + pipeline,
        "vector": vector,
        "latency": left[0] - left[1],
        "store": left[1] - left[2],
        "bandwidth": left[2] - left[3],
    }


def _busy(op: OpSchedule) -> int:
    """Return the cycles of one execution in which some PE works."""
    return sum(step.busy * times for step, times in op.steps())


def op_events(op: OpSchedule) -> dict[Event, int]:
    """Return the events of one execution; multiplier uses split by their weight's value."""
    return _split(_step_events(op), op)


def _step_events(op: OpSchedule) -> dict[Event, int]:
    def sums() -> dict[Event, int]:
        return add(scale(step.counts, times) for step, times in op.steps())

    return _EVENTS.get(op.program, op.tokens, sums)


def _split(stepped: Counts, op: OpSchedule) -> dict[Event, int]:
    events = (
        {**op.counts, **stepped}
        if op.counts.keys().isdisjoint(stepped)
        else add([op.counts, stepped])
    )
    for key in [key for key in events if key[2] == "offered"]:
        component, precision, _ = key
        offered = events.pop(key)
        events[component, precision, "full"] = op.macs_effectual
        events[component, precision, "gated"] = offered - op.macs_effectual
    return events


def dram_bytes(events: Counts, action: str) -> int:
    """Return the whole bytes that main memory reads or writes for the bits in `events`."""
    return sum(-(-v // 8) for (c, a, _), v in events.items() if (c, a) == ("dram", action))


def _record(
    row: Any,
    arch: Accelerator,
    op: OpSchedule,
    cycles: int,
    causes: dict[str, int],
    events: dict[Event, int],
) -> None:
    times = op.repeat
    units = unit_cycles(op)
    values: dict[str, Any] = {
        "name": op.name,
        "kind": op.kind,
        "phase": op.phase,
        "cycles": cycles * times,
        "macs_dense": op.macs_dense * times,
        "macs_effectual": op.macs_effectual * times,
        "macs_weight": (op.macs_effectual if op.macs_weight is None else op.macs_weight) * times,
        "macs_act": (op.macs_dense if op.macs_act is None else op.macs_act) * times,
        "array_busy": _busy(op) * times,
        "array_cycles": units[Unit.ARRAY] * times,
        "dma_cycles": units[Unit.DMA] * times,
        "vector_cycles": sum(units[unit] for unit in (Unit.VECTOR, Unit.SORE, Unit.WUVE)) * times,
        **{f"stall_{cause}": causes[cause] * times for cause in STALLS},
        "dram_read_bytes": dram_bytes(events, "read") * times,
        "dram_write_bytes": dram_bytes(events, "write") * times,
        "utilisation": op.macs_effectual / (arch.peak_macs_per_cycle * max(cycles, 1)),
        "bottleneck": max(causes, key=lambda c: causes[c]) if cycles else "",
        **op.detail,
    }
    for name, value in values.items():
        row[name] = value
