"""A run of a decoder: a prompt, then tokens one by one, from programs to a Result."""

import collections.abc as abc
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mapping.dsp.compile import CompiledModel, Program, Section, Stage, bucket, compile_model
from mapping.dsp.events import code_events
from mapping.dsp.kv import kv_summary
from mapping.dsp.model import (
    Attention,
    Decoder,
    Embed,
    Linear,
    Node,
    Norm,
    compression_name,
    decoder_of,
    published,
)
from mapping.dsp.timing import VARIANTS, Timeline, busy_cycles
from mapping.types import MapperResult
from simulator.arch.dsp_chain import Compression, DspChain
from simulator.counts import Event, add, scale
from simulator.dsp_isa import Module
from simulator.result import OP_RECORD, STALLS, Provenance, Result
from simulator.schedule import Schedule
from simulator.simulate import VERSION
from workloads.canonical import digest
from workloads.graph import WorkloadGraph
from workloads.sparsity import Dense

__all__ = ["DspRun", "decode_buckets", "simulate_decoder"]

Cycles = NDArray[np.int64]
_KINDS: Final = {Embed: "move", Norm: "norm", Linear: "gemm", Attention: "matmul"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DspRun:
    """What one run on a DspChain gives: the compiled model, its programs' summary, the result."""

    model: CompiledModel
    mapped: MapperResult
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Phase:
    """One phase: its programs with the number of times each runs, and its real tokens."""

    name: str
    programs: tuple[tuple[Program, int], ...]
    rows: NDArray[np.void]
    counts: dict[Event, int]
    busy: dict[Module, int]

    @property
    def cycles(self) -> int:
        return int(self.rows["cycles"].sum())

    @property
    def memory_bytes(self) -> int:
        return sum(bits for (part, _, _), bits in self.counts.items() if part == "dram") // 8


def simulate_decoder(
    graph: WorkloadGraph, arch: DspChain, *, compress: bool = True, seed: int = 0
) -> DspRun:
    """Return the run of `graph` (prefill, decode or both) on `arch`.

    A dense graph of the machine's published model runs compressed as published unless
    `compress` is false. Decode steps run at KV lengths prefill + 1 ... prefill + decode, each at
    the time of its bucket. Raises ValueError for a graph that is no decoder, and for one that
    does not fit the machine.
    """
    began = time.perf_counter()
    used, percent, notes = published(arch, graph) if compress else (graph, 100, ())
    decoder = decoder_of(used, attention_percent=percent)
    model = compile_model(decoder, arch)
    timeline = Timeline(arch)
    phases = [
        _phase(model, timeline, name, programs) for name, programs in _programs(model) if programs
    ]
    label = _label(used, decoder, arch.compression if notes else None)
    result = Result(
        workload=graph.name,
        sparsity=label,
        arch=arch,
        cycles=sum(phase.cycles for phase in phases),
        counts=add([phase.counts for phase in phases]),
        per_op=np.concatenate([phase.rows for phase in phases]),
        notes=(*notes, *decoder.notes, *_gated(decoder), *_sustained(arch, phases)),
        provenance=Provenance(
            workload_digest=graph.digest(),
            arch_digest=arch.digest(),
            schedule_digest=digest([arch, decoder]),
            seed=seed,
            version=VERSION,
        ),
        detail={**_detail(arch, model, phases), "compressed": bool(notes)},
    )
    seconds = time.perf_counter() - began
    return DspRun(model=model, mapped=_mapped(result, phases, seconds), result=result)


def _programs(
    model: CompiledModel,
) -> abc.Iterator[tuple[str, tuple[tuple[Program, int], ...]]]:
    """Yield the phases with the programs they run and how often."""
    decoder, step = model.decoder, model.arch.decode_bucket
    prefill = ((model.program("prefill", decoder.prefill), 1),) if decoder.prefill else ()
    yield "prefill", prefill
    steps = decode_buckets(step, decoder.prefill, decoder.decode)
    yield "decode", tuple((model.program("decode", size), n) for size, n in steps)


def decode_buckets(step: int, prefill: int, decode: int) -> tuple[tuple[int, int], ...]:
    """Return (bucket, decode steps in it): they run at KV lengths prefill + 1 ... + decode.

    >>> decode_buckets(16, 30, 5)
    ((32, 2), (48, 3))
    """
    lengths = np.arange(prefill + 1, prefill + decode + 1)
    sizes, times = np.unique(-(-lengths // step) * step, return_counts=True)
    return tuple(zip(sizes.tolist(), times.tolist(), strict=True))


def _label(graph: WorkloadGraph, decoder: Decoder, compression: Compression | None) -> str:
    weights = [graph.tensors[op.inputs[1]] for op in graph.gemm_ops]
    sparse = [w for w in weights if w.parameter and not isinstance(w.sparsity, Dense)]
    if compression and not graph.values:
        return compression_name(compression)
    labels = {str(weight.sparsity) for weight in sparse}
    if not labels and any(min(node.kept_rows) < 16 for _, node in decoder.linears):
        labels = {"rows of N:16"}
    # A structure with one N for every row is too long a label.
    return ", ".join(sorted(x if len(x) < 32 else "rows of N:16" for x in labels)) or "dense"


def _gated(decoder: Decoder) -> tuple[str, ...]:
    """Return a sentence about weights whose zeros save no time."""
    found = [node for _, node in decoder.linears if node.nonzeros < node.places]
    if not found:
        return ()
    zeros = 1 - sum(node.nonzeros for node in found) / sum(node.places for node in found)
    why = (
        "the chains skip N:M along the reduction, M dividing 16, at the N of a row's fullest group"
    )
    what = f"{zeros:.1%} of the weights of {len(found)} projections ({found[0].name}, ...)"
    return (f"{what} are zeros that run at dense time, gated: {why}",)


def _sustained(arch: DspChain, phases: abc.Sequence[_Phase]) -> tuple[str, ...]:
    if arch.sustained == 1:
        return ()
    seconds = ", ".join(f"{p.name} {p.cycles / arch.clock_hz:.4g} s" for p in phases)
    note = f"progress in {arch.sustained:.0%} of its cycles (sustained); without: {seconds}"
    return (f"Times assume that the machine makes {note}",)


def _mapped(result: Result, phases: abc.Sequence[_Phase], seconds: float) -> MapperResult:
    """Return the mapping's figures: no program ends before its busiest module."""
    schedule = Schedule(
        workload=result.workload,
        workload_digest=result.provenance.workload_digest,
        arch_digest=result.provenance.arch_digest,
        sparsity=result.sparsity,
        ops=(),
        notes=result.notes,
    )
    return MapperResult(
        schedule=schedule,
        mappings=(),
        mapper="length-adaptive",
        op_costs=tuple(phase.cycles for phase in phases),
        op_bounds=tuple(max(phase.busy.values()) for phase in phases),
        considered=sum(len(phase.programs) for phase in phases),
        seconds=seconds,
    )


def _detail(arch: DspChain, model: CompiledModel, phases: abc.Sequence[_Phase]) -> dict[str, Any]:
    """Return the figures of an LLM run beside those of every result."""
    rate = arch.hbm.bandwidth_bytes_per_s * arch.cores * arch.hbm.channels_per_core
    last = phases[-1]
    share = last.memory_bytes * arch.hbm.channels / rate
    stored = sum(program.size_bytes for phase in phases for program, _ in phase.programs)
    lengths = model.decoder.decode + bool(model.decoder.prefill)
    naive = sum(p.size_bytes * times for phase in phases for p, times in phase.programs)
    return {
        "sustained": arch.sustained,
        "bandwidth_utilisation": share / arch.seconds(last.cycles),
        "bandwidth_utilisation_uncorrected": share * arch.clock_hz / last.cycles,
        "instruction_bytes": stored,
        "instruction_bytes_naive": naive * arch.cores,
        "instruction_programs": sum(len(phase.programs) for phase in phases),
        "instruction_programs_naive": lengths * arch.cores,
        "weight_bytes": model.weight_bytes,
        "weight_memory_bytes": model.weight_memory_bytes,
        "kv_bytes": model.kv_bytes,
        "kv_cache": kv_summary(model),
        "weight_bits": [arch.layer_bits(layer) for layer in range(len(model.decoder.layers))],
        "head_bits": arch.head_bits,
        "always_on_chip": arch.always_on_chip,
        "attention_percent": model.decoder.attention_percent,
        "modules": {
            phase.name: {
                str(module): {"cycles": cycles, "seconds": arch.seconds(cycles)}
                for module, cycles in phase.busy.items()
            }
            for phase in phases
        },
        **{f"{p.name}_uncorrected_s": p.cycles / arch.clock_hz for p in phases},
    }


def _phase(
    model: CompiledModel,
    timeline: Timeline,
    name: str,
    programs: tuple[tuple[Program, int], ...],
) -> _Phase:
    """Time and count the programs of a phase; rows are nodes, layer after layer."""
    shares = {variant: _total(timeline, programs, variant) for variant in VARIANTS}
    nodes = [
        node
        for stage in programs[0][0].stages
        for layer in range(stage.times)
        for node in _nodes(model.decoder, stage, layer)
    ]
    columns = _columns(programs)
    known: dict[tuple[int, ...], tuple[dict[Event, int], dict[Module, int]]] = {}
    rows = np.zeros(len(nodes) + 1, dtype=OP_RECORD)
    counts, busy = [], Counter[Module]()
    for index, node in enumerate(nodes):
        codes = columns[index]
        key = tuple(id(section.code) for section, _ in codes)
        if key not in known:
            known[key] = _work(model.arch, codes)
        events, cycles = known[key]
        dense, effectual = _macs(model, node, name)
        events = _split(events, effectual)
        parts = [int(shares[variant][index]) for variant in VARIANTS]
        _fill(rows[index], model.arch, name, node, parts, events, cycles, (dense, effectual))
        counts.append(events)
        busy.update(cycles)
    _fetch(rows[-1], model.arch, name, programs, int(rows["cycles"].sum()))
    kept = rows if rows[-1]["cycles"] else rows[:-1]
    return _Phase(
        name=name,
        programs=programs,
        rows=kept,
        counts=add(counts),
        busy={module: busy[module] for module in Module},
    )


def _total(timeline: Timeline, programs: abc.Sequence[tuple[Program, int]], variant: str) -> Cycles:
    """Return int64[nodes]: what every node of every layer adds, over all runs of all programs."""
    parts = [
        times * np.concatenate([shares.ravel() for shares in timeline.shares(program, variant)])
        for program, times in programs
    ]
    return np.asarray(np.sum(parts, axis=0))


def _nodes(decoder: Decoder, stage: Stage, layer: int) -> abc.Sequence[Node]:
    if stage.first is None:
        return [section.node for section in stage.sections]
    return decoder.layers[stage.first + layer]


def _columns(
    programs: abc.Sequence[tuple[Program, int]],
) -> list[list[tuple[Section, int]]]:
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
    return [list(zip(column, times, strict=True)) for column in zip(*flat, strict=True)]


def _work(
    arch: DspChain, codes: abc.Sequence[tuple[Section, int]]
) -> tuple[dict[Event, int], dict[Module, int]]:
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


def _split(events: abc.Mapping[Event, int], effectual: int) -> dict[Event, int]:
    """Return `events` with multiplier uses split by their weight's value."""
    out = dict(events)
    offered = out.pop(("mac", "int8", "offered"), 0)
    if offered:
        out["mac", "int8", "full"] = effectual
        out["mac", "int8", "gated"] = offered - effectual
    return {event: n for event, n in out.items() if n}


def _macs(model: CompiledModel, node: Node, phase: str) -> tuple[int, int]:
    """Return dense and effectual products of a node over the phase."""
    decoder, arch = model.decoder, model.arch
    prefill, decode = decoder.prefill, decoder.decode
    if isinstance(node, Linear):
        head = node in decoder.after
        rows = decode if phase == "decode" else 1 if head else prefill
        return rows * node.k * node.n, rows * node.nonzeros
    if not isinstance(node, Attention):
        return 0, 0
    pair = 2 * node.heads * node.size
    if phase == "decode":
        pairs = decode * prefill + decode * (decode + 1) // 2
        return pair * pairs, pair * pairs
    needed = np.minimum(model.needed(prefill), prefill)
    rows = min(arch.mm_tokens, bucket(prefill, arch.prefill_bucket))
    real = np.clip(prefill - rows * np.arange(len(needed)), 0, rows)
    return pair * prefill**2, pair * int(real @ needed)


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
