"""Length-adaptive compilation: one program for every bucket of lengths, shared by all cores.

A prompt is padded to its bucket of `prefill_bucket` tokens, a decode step to the bucket of
`decode_bucket` cached tokens, so lengths of a bucket share a program. Cores share it too: they
differ in their base registers. The naive alternative keeps a program for every length and core.
"""

import collections.abc as abc
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mapping.dsp.emit import SLOTS, Emitter, Layout, lines
from mapping.dsp.model import Attention, Decoder, Embed, Linear, Node, Norm
from mapping.dsp.offchip import OffChip
from mapping.dsp.onchip import ACT_SHIFT, OnChip
from mapping.dsp.places import Area, Spot, place_nodes, prompt_areas, rotary_size
from mapping.dsp.prefill import Prefill
from simulator.arch.dsp_chain import DspChain
from simulator.dsp_isa import (
    LINE_BYTES,
    Base,
    Buffer,
    Code,
    Instruction,
    Loop,
    Module,
    ProgramFile,
    count,
    encode,
    size_words,
)
from workloads.canonical import Spec

__all__ = [
    "LAYER_AXIS",
    "CompiledModel",
    "Library",
    "Program",
    "Section",
    "Stage",
    "bucket",
    "compile_model",
    "program_file",
]

LAYER_AXIS = 0
WORD_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Spec):
    """The code of one node; `name` is the node's in the first layer of its stage."""

    name: str
    node: Node
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Spec):
    """Nodes run `times` times: equal layers that follow each other from layer `first`."""

    times: int
    first: int | None
    bits: int
    sections: tuple[Section, ...]

    @property
    def code(self) -> Code:
        """The code of all its layers."""
        body = tuple(item for section in self.sections for item in section.code)
        return (Loop(axis=LAYER_AXIS, times=self.times, body=body),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Spec):
    """The program of one bucket: `phase` is prefill or decode, `length` its largest length."""

    phase: str
    length: int
    stages: tuple[Stage, ...]
    tokens: abc.Mapping[str, int] = field(default_factory=lambda: dict(SLOTS), hash=False)

    @property
    def code(self) -> Code:
        """The whole program, folded."""
        return tuple(item for stage in self.stages for item in stage.code)

    @property
    def instructions(self) -> dict[Module, int]:
        """Instructions by module."""
        return count(self.code)

    @property
    def size_bytes(self) -> int:
        """Bytes of the unrolled program."""
        return size_words(self.code) * WORD_BYTES


def bucket(length: int, step: int) -> int:
    """Return the bucket of a length: the next multiple of `step`."""
    return -(-length // step) * step


def needed_columns(arch: DspChain, decoder: Decoder, tokens: int) -> tuple[int, ...]:
    """Return how many columns every tile of tokens scores.

    With all scores asked for that is `tokens`. Otherwise the tile map keeps whole blocks: those
    on the diagonal and enough of the others below it; a tile of tokens scores the union of the
    rows of blocks it touches.
    """
    rows = min(arch.mm_tokens, tokens)
    starts = range(0, tokens, rows)
    if decoder.attention_percent == 100 or arch.compression is None:
        return (tokens,) * len(starts)
    block = arch.compression.attention_block
    kept = block_map(-(-tokens // block), decoder.attention_percent)
    union = [kept[t // block : -(-(t + rows) // block)].any(axis=0).sum() for t in starts]
    return tuple(min(tokens, int(blocks) * block) for blocks in union)


def block_map(blocks: int, percent: int) -> NDArray[np.bool_]:
    """Return bool[blocks, blocks]: the kept blocks of causal attention, the diagonal among them.

    The share of each row of blocks is exact up to rounding. Blocks are drawn row by row from a
    fixed seed, so a longer map begins with a shorter one.
    """
    rng = np.random.default_rng(0)
    kept = np.eye(blocks, dtype=np.bool_)
    for row in range(1, blocks):
        others = max(0, round((row + 1) * percent / 100) - 1)
        kept[row, rng.choice(row, others, replace=False)] = True
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Library(Spec):
    """Instruction storage of all lengths up to a limit, in bytes, and the programs behind it.

    adaptive_bytes keeps a program for every bucket, naive_bytes one for every length and core.
    """

    programs: int
    adaptive_bytes: int
    naive_programs: int
    naive_bytes: int

    @property
    def reduction(self) -> float:
        """Naive over adaptive bytes."""
        return self.naive_bytes / self.adaptive_bytes


@dataclass(frozen=True, kw_only=True)
class CompiledModel:
    """A decoder on a machine: memory laid out, programs made on request and kept."""

    decoder: Decoder
    arch: DspChain
    layout: Layout
    places: abc.Mapping[str, int]
    spots: abc.Mapping[str, Spot]
    areas: abc.Mapping[str, Area]
    area_lines: int
    _codes: dict[tuple[object, ...], Code] = field(default_factory=dict, repr=False)
    _programs: dict[tuple[str, int], Program] = field(default_factory=dict, repr=False)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, scales and bias in the memory of all cores."""
        head = sum(self._lines(node, self.arch.head_bits) for node in self._head)
        layers = sum(
            self._lines(node, self.arch.layer_bits(index))
            for index, layer in enumerate(self.decoder.layers)
            for node in layer
            if isinstance(node, Linear)
        )
        return (head + layers) * LINE_BYTES * self.arch.cores

    @property
    def weight_memory_bytes(self) -> int:
        """Bytes set aside for weights in all cores: every layer gets what the widest takes."""
        head = sum(self._lines(node, self.arch.head_bits) for node in self._head)
        layers = len(self.decoder.layers) * self.layout.layer_lines
        return (head + layers) * LINE_BYTES * self.arch.cores

    @cached_property
    def _head(self) -> tuple[Linear, ...]:
        return tuple(node for node in self.decoder.after if isinstance(node, Linear))

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache at full capacity."""
        return self.layout.kv_layer_lines * LINE_BYTES * len(self.decoder.layers) * self.arch.cores

    def needed(self, tokens: int) -> tuple[int, ...]:
        """Return how many columns every tile of tokens of a prompt's bucket scores."""
        return needed_columns(self.arch, self.decoder, bucket(tokens, self.arch.prefill_bucket))

    def _lines(self, node: Linear, bits: int) -> int:
        return OnChip(arch=self.arch, layout=self.layout, bits=bits, kv=1).node_lines(node)

    def program(self, phase: str, length: int) -> Program:
        """Return the program of the bucket that holds `length` tokens (decode: cached ones)."""
        step = self.arch.prefill_bucket if phase == "prefill" else self.arch.decode_bucket
        size = bucket(length, step)
        key = (phase, size)
        if key not in self._programs:
            self._programs[key] = self._compile(phase, size)
        return self._programs[key]

    def _compile(self, phase: str, length: int) -> Program:
        make = _Maker(self, phase, length)
        first = make.stage(self.decoder.before, None, 1, self.arch.head_bits, opening=False)
        stages = [first] if first.sections else []
        for (_, opening), group in groupby(enumerate(self.decoder.layers), self._same(phase)):
            members = [index for index, _ in group]
            bits = self.arch.layer_bits(members[0])
            nodes = self.decoder.layers[members[0]]
            stages.append(make.stage(nodes, members[0], len(members), bits, opening=opening))
        stages.append(make.head())
        return Program(phase=phase, length=length, stages=tuple(stages))

    def _same(self, phase: str) -> abc.Callable[[tuple[int, tuple[Node, ...]]], tuple[int, bool]]:
        """Return a key that is equal for layers that can share a loop."""
        alike = self._alike
        # Only the first layer of an on-chip decode step waits for the token's row.
        return lambda entry: (alike[entry[0]], entry[0] == 0 and phase == "decode")

    @cached_property
    def _alike(self) -> list[int]:
        """Number layers so that equal ones, names aside, have equal numbers."""
        numbers: dict[tuple[object, ...], int] = {}
        found = []
        for index, nodes in enumerate(self.decoder.layers):
            bare = tuple(replace(node, name="").digest() for node in nodes)
            key = (bare, self.arch.layer_bits(index))
            found.append(numbers.setdefault(key, len(numbers)))
        return found

    def library(self, longest: int) -> Library:
        """Return the instruction storage of prompts and decode steps of 1 to `longest` tokens."""
        totals = np.zeros(4, dtype=object)
        for phase, step in (
            ("prefill", self.arch.prefill_bucket),
            ("decode", self.arch.decode_bucket),
        ):
            for size in range(step, bucket(longest, step) + 1, step):
                stored = self.program(phase, size).size_bytes
                lengths = min(size, longest) - (size - step)
                copies = lengths * self.arch.cores
                totals += np.array([1, stored, copies, stored * copies], dtype=object)
        programs, adaptive, naive_programs, naive = map(int, totals)
        return Library(
            programs=programs,
            adaptive_bytes=adaptive,
            naive_programs=naive_programs,
            naive_bytes=naive,
        )


class _Maker:
    """Emits the sections of one program."""

    def __init__(self, model: CompiledModel, phase: str, length: int) -> None:
        self.model, self.phase, self.length = model, phase, length
        self.needed = (
            needed_columns(model.arch, model.decoder, length) if phase == "prefill" else ()
        )

    def emitter(self, bits: int, layer: int = 0) -> Emitter:
        """Return the emitter of the phase for layers of a weight width from `layer` on."""
        model = self.model
        if self.phase == "prefill":
            return Prefill(
                arch=model.arch,
                layout=model.layout,
                bits=bits,
                layer=layer,
                tokens=self.length,
                needed=self.needed,
                rotary=rotary_size(model.decoder),
                areas=model.areas,
            )
        if not model.arch.always_on_chip:
            return OffChip(
                arch=model.arch, layout=model.layout, bits=bits, layer=layer, kv=self.length
            )
        return self.on_chip(bits, layer)

    def on_chip(self, bits: int, layer: int = 0) -> OnChip:
        """Return the emitter of what runs on one token without leaving the chip."""
        model = self.model
        return OnChip(
            arch=model.arch,
            layout=model.layout,
            bits=bits,
            layer=layer,
            kv=self.length,
            rotary=rotary_size(model.decoder),
            spots=model.spots,
        )

    def stage(
        self, nodes: abc.Sequence[Node], first: int | None, times: int, bits: int, *, opening: bool
    ) -> Stage:
        """Return the sections of a layer (or what stands before all) run `times` times."""
        emitter = self.emitter(bits, first or 0)
        sections, fresh, rotated, start = [], False, False, opening
        for node in nodes:
            code = self._code(emitter, node, fresh=fresh, rotated=rotated, opening=start)
            sections.append(Section(name=node.name, node=node, code=code))
            if isinstance(node, Linear):
                rotated = bool(node.then) if node.role == "q" else rotated
                fresh = node.role == "wide"
            else:
                fresh = not isinstance(node, Embed)
            start = False
        return Stage(times=times, first=first, bits=bits, sections=tuple(sections))

    def _code(
        self,
        emitter: Emitter,
        node: Node,
        *,
        fresh: bool,
        rotated: bool,
        opening: bool,
    ) -> Code:
        lengths = self.phase == "prefill" or isinstance(node, Attention)
        key = (self.phase, node, emitter.bits, fresh, rotated, opening, lengths and self.length)
        if key not in self.model._codes:
            self.model._codes[key] = self._emit(emitter, node, fresh, rotated, opening)
        return self.model._codes[key]

    def _emit(
        self,
        emitter: Emitter,
        node: Node,
        fresh: bool,
        rotated: bool,
        opening: bool,
    ) -> Code:
        match node:
            case Embed():
                return emitter.embed(node)
            case Norm():
                return emitter.norm(node, after_embed=opening)
            case Linear():
                return emitter.linear(node, self.model.places[node.name], fresh=fresh)
            case Attention():
                return emitter.attention(node, rotated=rotated)

    def head(self) -> Stage:
        """Return what follows the layers: one token in both phases, results to the host."""
        model = self.model
        bits = model.arch.head_bits
        prefill = self.phase == "prefill"
        emitter = self.on_chip(bits) if prefill else self.emitter(bits)
        sections = []
        for node in model.decoder.after:
            code: Code
            if isinstance(node, Linear):
                place = model.places[node.name]
                end = Instruction(module=Module.SYS, waits=(Module.ST,))
                code = (*emitter.linear(node, place, fresh=True, logits=True), end)
            else:
                assert isinstance(node, Norm)
                code = emitter.norm(node, after_embed=prefill)
                code = (*(self._last_token(node) if prefill else ()), *code)
            sections.append(Section(name=node.name, node=node, code=code))
        return Stage(times=1, first=None, bits=bits, sections=tuple(sections))

    def _last_token(self, node: Norm) -> Code:
        """Return the LD of the last token's row once the layers have stored it."""
        fields = {
            "buffer": Buffer.OUT,
            "base": Base.LAST_TOKENS,
            "split": 1,
            "bytes": -(-node.width // self.model.arch.cores),
            "bank": self.model.spots[node.name].source,
            "shift": ACT_SHIFT,
            "channels": self.model.arch.hbm.channels_per_core,
        }
        return (
            Instruction(
                module=Module.LD, waits=(Module.ST,), releases=(Module.MISC,), fields=fields
            ),
        )


def compile_model(decoder: Decoder, arch: DspChain) -> CompiledModel:
    """Return `decoder` laid out in the memory of `arch`, ready to give programs.

    Raises ValueError if a run exceeds the KV capacity, a tile half a buffer, or weights and KV
    cache the HBM.
    """
    asked = decoder.prefill + decoder.decode
    if asked > arch.kv_capacity_tokens:
        raise ValueError(
            f"{decoder.name}: prefill {decoder.prefill} and decode {decoder.decode} need {asked} "
            f"tokens of KV cache; the machine holds {arch.kv_capacity_tokens}"
        )
    _check_buffers(decoder, arch)
    model = _laid_out(decoder, arch)
    needed = model.weight_memory_bytes + model.kv_bytes
    if needed > arch.hbm.capacity_bytes:
        raise ValueError(
            f"{decoder.name}: weights take {model.weight_memory_bytes} B and the KV cache "
            f"{model.kv_bytes} B; the HBM holds {arch.hbm.capacity_bytes} B"
        )
    return model


def _check_buffers(decoder: Decoder, arch: DspChain) -> None:
    """Raise if two tiles of the widest reduction or of scores do not fit their buffers."""
    rows = min(arch.mm_tokens, arch.prefill_bucket)
    widest = max((node for _, node in decoder.linears), key=lambda node: node.k)
    scores = bucket(decoder.prefill, arch.prefill_bucket)
    for name, what, columns in (
        ("act_buffer", f"inputs of {widest.name}", widest.k),
        ("out_buffer", "scores of one head", scores),
    ):
        held = getattr(arch, name).capacity_bytes
        if 2 * rows * columns > held:
            raise ValueError(
                f"{decoder.name}: two tiles of {rows} tokens, {what}, take {2 * rows * columns} B; "
                f"the {name} holds {held} B"
            )


def program_file(program: Program, arch: DspChain) -> ProgramFile:
    """Return `program` unrolled, as a file holds it."""
    return ProgramFile(
        name=f"{program.phase} {program.length}",
        arch_digest=arch.digest(),
        words=encode(program.code),
        tokens=program.tokens,
    )


def _laid_out(decoder: Decoder, arch: DspChain) -> CompiledModel:
    attention = decoder.attention
    heads = -(-attention.kv_heads // arch.cores)
    head_lines = lines(arch.kv_capacity_tokens * attention.size)
    layout = Layout(layer_lines=0, kv_head_lines=head_lines, kv_layer_lines=2 * heads * head_lines)
    places, widest = {}, 0
    for index, layer in enumerate(decoder.layers):
        emitter = OnChip(arch=arch, layout=layout, bits=arch.layer_bits(index), kv=1)
        place = 0
        for node in layer:
            if isinstance(node, Linear):
                places[node.name] = place
                place += emitter.node_lines(node)
        widest = max(widest, place)
    layout = replace(layout, layer_lines=widest)
    for index, layer in enumerate(decoder.layers):
        for node in layer:
            if isinstance(node, Linear):
                places[node.name] += index * widest
    head = len(decoder.layers) * widest
    places |= {node.name: head for node in decoder.after if isinstance(node, Linear)}
    areas, area_lines = prompt_areas(arch, decoder)
    return CompiledModel(
        decoder=decoder,
        arch=arch,
        layout=layout,
        places=places,
        spots=place_nodes(arch, decoder),
        areas=areas,
        area_lines=area_lines,
    )
