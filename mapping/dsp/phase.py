"""One phase of a decoder's run: what every node of every layer takes, over all its programs."""

import collections.abc as abc
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mapping.dsp.compile import CompiledModel, Program, Section, Stage, bucket
from mapping.dsp.events import code_events
from mapping.dsp.model import Attention, Decoder, Embed, Linear, Node, Norm
from mapping.dsp.timing import VARIANTS, Timeline, busy_cycles
from simulator.arch.dsp_chain import DspChain
from simulator.counts import Event, add, scale
from simulator.dsp_isa import Module
from simulator.result import OP_RECORD, STALLS

__all__ = ["Codes", "PhaseRun", "macs", "run_phase", "scored_tokens", "split_products"]

Cycles = NDArray[np.int64]
Codes = tuple[tuple[Section, int], ...]
_KINDS: Final = {Embed: "move", Norm: "norm", Linear: "gemm", Attention: "matmul"}


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseRun:
    """One phase: its programs with the number of times each runs, and what its nodes take.

    `codes` are a node's sections with the runs of each, `alone` int64[programs, nodes] the cycles
    of one run, `events` those of all runs; `rows` may have one more, for fetching instructions.
    """

    name: str
    programs: tuple[tuple[Program, int], ...]
    rows: NDArray[np.void]
    nodes: tuple[Node, ...]
    codes: tuple[Codes, ...]
    alone: Cycles
    events: tuple[dict[Event, int], ...]
    busy: dict[Module, int]

    @cached_property
    def counts(self) -> dict[Event, int]:
        """Events of all nodes."""
        return add(self.events)

    @property
    def cycles(self) -> int:
        """Cycles of the phase."""
        return int(self.rows["cycles"].sum())

    @property
    def memory_bytes(self) -> int:
        """Bytes read and written."""
        return sum(bits for (part, _, _), bits in self.counts.items() if part == "dram") // 8


def run_phase(
    model: CompiledModel,
    timeline: Timeline,
    name: str,
    programs: tuple[tuple[Program, int], ...],
) -> PhaseRun:
    """Time and count the programs of a phase; rows are nodes, layer after layer."""
    times = np.array([n for _, n in programs])
    alone = {variant: _alone(timeline, programs, variant) for variant in VARIANTS}
    shares = {variant: times @ cycles for variant, cycles in alone.items()}
    nodes = tuple(
        node
        for stage in programs[0][0].stages
        for layer in range(stage.times)
        for node in _nodes(model.decoder, stage, layer)
    )
    codes = _codes(programs)
    known: dict[tuple[int, ...], tuple[dict[Event, int], dict[Module, int]]] = {}
    rows = np.zeros(len(nodes) + 1, dtype=OP_RECORD)
    counts, busy = [], Counter[Module]()
    for index, node in enumerate(nodes):
        key = tuple(id(section.code) for section, _ in codes[index])
        if key not in known:
            known[key] = _work(model.arch, codes[index])
        events, cycles = known[key]
        dense, effectual = macs(model, node, name, *_tokens(model.decoder, name))
        events = split_products(events, effectual)
        parts = [int(shares[variant][index]) for variant in VARIANTS]
        _fill(rows[index], model.arch, name, node, parts, events, cycles, (dense, effectual))
        counts.append(events)
        busy.update(cycles)
    _fetch(rows[-1], model.arch, name, programs, int(rows["cycles"].sum()))
    return PhaseRun(
        name=name,
        programs=programs,
        rows=rows if rows[-1]["cycles"] else rows[:-1],
        nodes=nodes,
        codes=codes,
        alone=alone["all"],
        events=tuple(counts),
        busy={module: busy[module] for module in Module},
    )


def _alone(timeline: Timeline, programs: abc.Sequence[tuple[Program, int]], variant: str) -> Cycles:
    """Return int64[programs, nodes]: what every node of every layer adds to one run."""
    return np.array(
        [
            np.concatenate([shares.ravel() for shares in timeline.shares(program, variant)])
            for program, _ in programs
        ]
    )


def _nodes(decoder: Decoder, stage: Stage, layer: int) -> abc.Sequence[Node]:
    if stage.first is None:
        return [section.node for section in stage.sections]
    return decoder.layers[stage.first + layer]


def _codes(programs: abc.Sequence[tuple[Program, int]]) -> tuple[Codes, ...]:
    """Return for every node of every layer its section in each program, with its runs."""
    flat = [
        [
            section
            for stage in program.stages
            for _ in range(stage.times)
            for section in stage.sections
        ]
        for program, _ in programs
    ]
    times = [n for _, n in programs]
    return tuple(tuple(zip(column, times, strict=True)) for column in zip(*flat, strict=True))


def _work(arch: DspChain, codes: Codes) -> tuple[dict[Event, int], dict[Module, int]]:
    """Return events and busy cycles of one node over all its runs."""
    runs = Counter[int]()
    by_id = {id(section.code): section.code for section, _ in codes}
    for section, times in codes:
        runs[id(section.code)] += times
    events = add([scale(code_events(arch, by_id[key]), n) for key, n in runs.items()])
    busy = Counter[Module]()
    for key, n in runs.items():
        for module, cycles in busy_cycles(arch, by_id[key]).items():
            busy[module] += cycles * n
    return events, dict(busy)


def split_products(events: abc.Mapping[Event, int], effectual: int) -> dict[Event, int]:
    """Return `events` with multiplier uses split by their weight's value."""
    out = dict(events)
    offered = out.pop(("mac", "int8", "offered"), 0)
    if offered:
        out["mac", "int8", "full"] = effectual
        out["mac", "int8", "gated"] = offered - effectual
    return {event: n for event, n in out.items() if n}


def _tokens(decoder: Decoder, phase: str) -> tuple[int, int]:
    """Return the tokens of a phase, and in decode the cached ones that they score in all."""
    if phase == "prefill":
        return decoder.prefill, 0
    return decoder.decode, scored_tokens(decoder.prefill + 1, decoder.decode)


def scored_tokens(first: int, steps: int) -> int:
    """Return the cached tokens that so many decode steps score, the first of them `first`.

    >>> scored_tokens(5, 3)
    18
    """
    return steps * (2 * first + steps - 1) // 2


def macs(model: CompiledModel, node: Node, phase: str, tokens: int, scored: int) -> tuple[int, int]:
    """Return dense and effectual products of a node for tokens of a phase.

    A prompt's tokens are all of it; those of decode score `scored` cached ones.
    """
    arch = model.arch
    if isinstance(node, Linear):
        rows = 1 if phase == "prefill" and node in model.decoder.after else tokens
        return rows * node.k * node.n, rows * node.nonzeros
    if not isinstance(node, Attention):
        return 0, 0
    pair = 2 * node.heads * node.size
    if phase == "decode":
        return pair * scored, pair * scored
    needed = np.minimum(model.needed(tokens), tokens)
    rows = min(arch.mm_tokens, bucket(tokens, arch.prefill_bucket))
    real = np.clip(tokens - rows * np.arange(len(needed)), 0, rows)
    return pair * tokens**2, pair * int(real @ needed)


def _fill(
    row: Any,
    arch: DspChain,
    phase: str,
    node: Node,
    left: list[int],
    events: abc.Mapping[Event, int],
    busy: abc.Mapping[Module, int],
    macs: tuple[int, int],
) -> None:
    cycles = left[0]
    left = np.minimum.accumulate(left).tolist()
    products = busy[Module.MM] + busy[Module.MV]
    array = min(products, left[3])
    dense, effectual = macs
    causes = {
        "compute": array,
        "pipeline": 0,
        "vector": left[3] - array,
        "latency": left[0] - left[1],
        "store": left[1] - left[2],
        "bandwidth": left[2] - left[3],
    }
    values: dict[str, Any] = {
        "name": f"{phase}.{node.name}",
        "kind": _KINDS[type(node)],
        "cycles": cycles,
        "macs_dense": dense,
        "macs_effectual": effectual,
        "macs_weight": effectual,
        # Activations are dense; what a block of attention leaves out is never executed.
        "macs_act": effectual if isinstance(node, Attention) else dense,
        "array_busy": array,
        "array_cycles": products,
        "dma_cycles": busy[Module.LD] + busy[Module.ST],
        "vector_cycles": busy[Module.MISC],
        **{f"stall_{cause}": causes.get(cause, 0) for cause in STALLS},
        "dram_read_bytes": _memory(events, "read"),
        "dram_write_bytes": _memory(events, "write"),
        "utilisation": effectual / (arch.peak_macs_per_cycle * max(cycles, 1)),
        "bottleneck": max(causes, key=lambda cause: causes[cause]) if cycles else "",
        "dataflow": ("mm" if busy[Module.MM] else "mv") if products else "",
        "nm": _kept(node),
    }
    for name, value in values.items():
        row[name] = value


def _kept(node: Node) -> str:
    if not isinstance(node, Linear):
        return ""
    return "+".join(str(kept) for kept in node.kept_rows) + ":16"


def _memory(events: abc.Mapping[Event, int], action: str) -> int:
    return (
        sum(bits for (part, did, _), bits in events.items() if (part, did) == ("dram", action)) // 8
    )


def _fetch(
    row: Any,
    arch: DspChain,
    phase: str,
    programs: abc.Sequence[tuple[Program, int]],
    cycles: int,
) -> None:
    """Charge what streaming the instructions from DDR to every core takes beyond the run."""
    size = sum(program.size_bytes * times for program, times in programs) * arch.cores
    fetched = -(-size * arch.clock_hz // arch.ddr.bandwidth_bytes_per_s)
    row["name"], row["kind"] = f"{phase}.instructions", "fetch"
    row["cycles"] = row["stall_bandwidth"] = max(0, fetched - cycles)
    row["bottleneck"] = "bandwidth"
