"""A run of a decoder: a prompt, then tokens one by one, from programs to a Result."""

import collections.abc as abc
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from mapping.dsp.choices import decoder_mapping
from mapping.dsp.compile import CompiledModel, Program, bucket, compile_model
from mapping.dsp.kv import kv_summary
from mapping.dsp.model import Attention, Decoder, compression_name, decoder_of, published
from mapping.dsp.phase import PhaseRun, macs, run_phase
from mapping.dsp.timing import Timeline
from mapping.objective import Objective
from mapping.types import MapperResult
from simulator.arch.dsp_chain import Compression, DspChain
from simulator.counts import add
from simulator.result import Provenance, Result
from simulator.simulate import VERSION
from workloads.canonical import digest
from workloads.graph import WorkloadGraph
from workloads.sparsity import Dense

__all__ = ["DspRun", "decode_buckets", "simulate_decoder"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DspRun:
    """What one run on a DspChain gives: the compiled model, its programs' summary, the result."""

    model: CompiledModel
    mapped: MapperResult
    result: Result


def simulate_decoder(
    graph: WorkloadGraph,
    arch: DspChain,
    *,
    mapper: str = "exhaustive",
    objective: Objective = Objective.CYCLES,
    compress: bool = True,
    seed: int = 0,
) -> DspRun:
    """Return the run of `graph` (prefill, decode or both) on `arch`, costed under `objective`.

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
        run_phase(model, timeline, name, programs)
        for name, programs in _programs(model)
        if programs
    ]
    label = _label(used, decoder, arch.compression if notes else None)
    result = Result(
        workload=graph.name,
        sparsity=label,
        arch=arch,
        cycles=sum(phase.cycles for phase in phases),
        counts=add([phase.counts for phase in phases]),
        per_op=np.concatenate([phase.rows for phase in phases]),
        notes=(
            *notes,
            *_scored(model),
            *_padded(model),
            *decoder.notes,
            *_gated(decoder),
            *_sustained(arch, phases),
        ),
        provenance=Provenance(
            workload_digest=graph.digest(),
            arch_digest=arch.digest(),
            schedule_digest=digest([arch, decoder]),
            seed=seed,
            version=VERSION,
        ),
        detail={**_detail(arch, model, phases), "compressed": bool(notes)},
    )
    mapped = decoder_mapping(
        model,
        phases,
        result,
        mapper=mapper,
        objective=objective,
        seconds=time.perf_counter() - began,
    )
    return DspRun(model=model, mapped=mapped, result=result)


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


def _scored(model: CompiledModel) -> tuple[str, ...]:
    """Say what block-sparse attention scores, which is more than the blocks it keeps."""
    tokens, decoder = model.decoder.prefill, model.decoder
    if not tokens or decoder.attention_percent == 100:
        return ()
    node = next(node for node in decoder.layers[0] if isinstance(node, Attention))
    dense, scored = macs(model, node, "prefill", tokens, 0)
    rows = min(model.arch.mm_tokens, tokens)
    share = f"{scored / dense:.0%} of all pairs of tokens"
    why = f"{rows} tokens at once take every block that one of them keeps"
    return (f"Attention of this prompt scores {share}: {why}",)


def _padded(model: CompiledModel) -> tuple[str, ...]:
    tokens, step = model.decoder.prefill, model.arch.prefill_bucket
    if tokens % step == 0:
        return ()
    time = f"A prompt of {tokens} tokens takes the time of {bucket(tokens, step)}"
    return (f"{time}: programs serve prompts up to multiples of {step}",)


def _sustained(arch: DspChain, phases: abc.Sequence[PhaseRun]) -> tuple[str, ...]:
    if arch.sustained == 1:
        return ()
    seconds = ", ".join(f"{p.name} {p.cycles / arch.clock_hz:.4g} s" for p in phases)
    note = f"progress in {arch.sustained:.0%} of its cycles (sustained); without: {seconds}"
    return (f"Times assume that the machine makes {note}",)


def _detail(arch: DspChain, model: CompiledModel, phases: abc.Sequence[PhaseRun]) -> dict[str, Any]:
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
