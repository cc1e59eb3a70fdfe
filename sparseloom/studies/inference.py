"""LLM inference on a DspChain: how long prompts and decode steps take, and what carries them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cost_models import price
from mapping import simulate_graph
from mapping.dsp import CompiledModel, compile_model, decoder_of, published
from mapping.dsp.compile import Program
from mapping.dsp.run import decode_buckets
from mapping.dsp.timing import Timeline, busy_cycles
from simulator.arch import DspChain
from simulator.arch.accelerator import kind
from simulator.arch.load import load_arch
from simulator.dsp_isa import Module, count, decode, encode, execute
from sparseloom.studies.flightllm import BOARD_LENGTH
from workloads.canonical import Spec
from workloads.zoo import build

__all__ = [
    "MODEL",
    "InferenceStudy",
    "Span",
    "energy_per_token",
    "infer",
    "spans",
]

MODEL: Final = "llama2-7b"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferenceStudy:
    """LLaMA-2-7B compiled for a machine, and what has been timed so far."""

    arch: DspChain
    model: CompiledModel
    timeline: Timeline

    def cycles(self, phase: str, length: int) -> int:
        """Return the cycles of a prompt of `length`, or of the decode step at that KV length."""
        return self.timeline.cycles(self.model.program(phase, length))

    def run_cycles(self, prefill: int, decode: int) -> tuple[int, int]:
        """Return the cycles of a prompt and of all decode steps after it."""
        steps = decode_buckets(self.arch.decode_bucket, prefill, decode)
        return (
            self.cycles("prefill", prefill),
            sum(times * self.cycles("decode", size) for size, times in steps),
        )

    def busy(self, phase: str, length: int) -> dict[Module, int]:
        """Return the cycles in which every module works."""
        return busy_cycles(self.arch, self.model.program(phase, length).code)

    def ms(self, cycles: int) -> float:
        """Return milliseconds, `sustained` included."""
        return 1e3 * self.arch.seconds(cycles)

    def uncorrected_ms(self, cycles: int) -> float:
        """Return milliseconds at the machine's clock alone."""
        return 1e3 * cycles / self.arch.clock_hz


def infer(
    arch: str | DspChain = "flightllm-vhk158", *, compress: bool = True, **overrides: Any
) -> InferenceStudy:
    """Return LLaMA-2-7B compiled for a DspChain, compressed as published unless told not to.

    Raises ValueError for a machine of another kind.
    """
    machine = load_arch(arch, **overrides)
    if not isinstance(machine, DspChain):
        raise ValueError(f"An inference study needs a dsp_chain, not a {kind(machine)}")
    graph, percent = build(MODEL, prefill=BOARD_LENGTH, decode=1), 100
    if compress:
        graph, percent, _ = published(machine, graph)
    model = compile_model(decoder_of(graph, attention_percent=percent), machine)
    return InferenceStudy(arch=machine, model=model, timeline=Timeline(machine))


def energy_per_token(
    arch: str | DspChain, lengths: Sequence[int], *, tokens: int = 16
) -> dict[int, dict[str, float]]:
    """Return joules of a decode step by component: {prompt: mean of the `tokens` after it}."""
    machine = load_arch(arch)
    found = {}
    for length in lengths:
        both, prompt = (
            price(simulate_graph(build(MODEL, prefill=length, decode=n), machine).result)
            for n in (tokens, None)
        )
        before = prompt.by_component()
        found[length] = {
            name: 1e-12 * (pj - before.get(name, 0.0)) / tokens
            for name, pj in both.by_component().items()
        }
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Spec):
    """One instruction: its module, its node by its name in the first equal layer, and its cycles.

    `start` is the cycle it starts in, `end` the one after its last.
    """

    module: Module
    node: str
    start: int
    end: int


def spans(study: InferenceStudy, phase: str, length: int, layer: int) -> tuple[Span, ...]:
    """Return every instruction of one layer in the order it was compiled.

    The whole program runs instruction by instruction: what other layers do to this one counts.
    Raises ValueError for a layer that the model has not.
    """
    program = study.model.program(phase, length)
    layers = len(study.model.decoder.layers)
    if not 0 <= layer < layers:
        raise ValueError(f"Layer must be 0 to {layers - 1}, not {layer}")
    flat = decode(encode(program.code))
    times: dict[int, tuple[int, int]] = {}

    def note(number: int, start: int, end: int) -> None:
        times[number] = (start, end)

    execute(study.arch, flat, program.tokens, on_run=note)
    owners = [owner for owner in _owners(program) for _ in range(owner.instructions)]
    return tuple(
        Span(module=flat[i].module, node=owner.node, start=times[i][0], end=times[i][1])
        for i, owner in enumerate(owners)
        if owner.layer == layer
    )


class _Owner(NamedTuple):
    """A node of a layer (None: of no layer) and how many instructions it has."""

    layer: int | None
    node: str
    instructions: int


def _owners(program: Program) -> Iterator[_Owner]:
    """Yield the nodes of an unrolled program in order."""
    for stage in program.stages:
        for at in range(stage.times):
            layer = None if stage.first is None else stage.first + at
            for section in stage.sections:
                yield _Owner(layer, section.node.name, sum(count(section.code).values()))
