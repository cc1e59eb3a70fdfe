"""What left-out weights and blocks of attention are worth: speed-ups of a prompt."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from mapping.dsp.model import Attention, Linear, Node
from simulator.arch import Compression, DspChain
from sparseloom.studies.inference import MODEL, InferenceStudy, infer
from sparseloom.studies.tables import Table
from workloads.canonical import Spec

__all__ = [
    "CAUSAL",
    "COMPRESSIONS",
    "PROJECTIONS",
    "Gain",
    "Kept",
    "by_prompt",
    "kept_for",
    "sparsity_gains",
]

Kept = tuple[tuple[str, ...], int, int]
"""Projections, % of their weights kept, % of causal attention blocks kept (100: all scores)."""

PROJECTIONS: Final = tuple(f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down"))
COMPRESSIONS: Final[tuple[Kept, ...]] = (
    (PROJECTIONS[:2], 70, 30),
    (PROJECTIONS[:2], 100, 30),
    (PROJECTIONS, 75, 30),
    (PROJECTIONS, 60, 100),
    (PROJECTIONS, 60, 30),
    (PROJECTIONS, 50, 30),
)
"""The first is what the artefact's model keeps."""

CAUSAL: Final[Kept] = (PROJECTIONS[:2], 100, 99)
"""All weights and every causal block: of fewer than 50 blocks in a row 99 % round to all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain(Spec):
    """What one compression makes of a prompt: cycles before over cycles after.

    `speedup` is of the whole prompt, `sparse` of the operators from which something is left out.
    """

    projections: tuple[str, ...]
    kept_percent: int
    attention_percent: int
    prompt: int
    speedup: float
    sparse: float

    def __str__(self) -> str:
        """Name what is kept."""
        which = "all" if self.projections == PROJECTIONS else "q and k"
        return f"{which} weights {self.kept_percent} %, blocks {self.attention_percent} %"


def sparsity_gains(
    arch: str | DspChain = "flightllm-vhk158",
    compressions: Iterable[Kept] = COMPRESSIONS,
    *,
    prompts: Iterable[int] = (1024,),
    baseline: Kept | None = None,
) -> tuple[Gain, ...]:
    """Return the speed-ups of prompts by what is left out, over the dense model or `baseline`.

    The dense model computes every score, those above the diagonal too. Gains of one compression
    are neighbours.
    """
    dense, lengths = infer(arch, compress=False), tuple(prompts)
    before = _compressed(dense.arch, baseline) if baseline else dense
    return tuple(
        gain
        for kept in compressions
        for gain in _gains(before, _compressed(dense.arch, kept), kept, lengths)
    )


def _compressed(arch: DspChain, kept: Kept) -> InferenceStudy:
    projections, weights, blocks = kept
    chosen = Compression(
        model=MODEL, projections=projections, kept_percent=weights, attention_percent=blocks
    )
    return infer(replace(arch, compression=chosen))


def _gains(
    before: InferenceStudy, after: InferenceStudy, kept: Kept, prompts: tuple[int, ...]
) -> Iterator[Gain]:
    projections, weights, blocks = kept
    for prompt in prompts:
        whole, sparse = _cycles(before, prompt, kept)
        less, sparse_less = _cycles(after, prompt, kept)
        yield Gain(
            projections=projections,
            kept_percent=weights,
            attention_percent=blocks,
            prompt=prompt,
            speedup=whole / less,
            sparse=sparse / sparse_less if sparse_less else 1.0,
        )


def _cycles(study: InferenceStudy, prompt: int, kept: Kept) -> tuple[int, int]:
    """Return the cycles of a prompt, and those of its operators that `kept` says are sparse."""
    program = study.model.program("prefill", prompt)
    whole = sparse = 0
    for stage, shares in zip(program.stages, study.timeline.shares(program), strict=True):
        for section, cycles in zip(stage.sections, shares.sum(axis=0).tolist(), strict=True):
            whole += cycles
            sparse += cycles * _is_sparse(section.node, kept)
    return whole, sparse


def _is_sparse(node: Node, kept: Kept) -> bool:
    projections, weights, blocks = kept
    if isinstance(node, Linear):
        return weights < 100 and node.name.endswith(projections)
    return isinstance(node, Attention) and blocks < 100


def kept_for(
    speedup: float, prompts: Iterable[int], arch: str | DspChain = "flightllm-vhk158"
) -> dict[int, int]:
    """Return the most % of all projections' weights that still gain `speedup`, by prompt length.

    Attention keeps 30 % of its blocks. 49 says that keeping half gains less.
    """
    dense, candidates = infer(arch, compress=False), range(50, 101)

    @cache
    def study(kept: int) -> InferenceStudy:
        return _compressed(dense.arch, (PROJECTIONS, kept, 30))

    found = {}
    for prompt in prompts:
        most = dense.cycles("prefill", prompt) / speedup
        found[prompt] = candidates.start - 1
        found[prompt] += bisect_right(
            candidates, most, key=lambda kept: study(kept).cycles("prefill", prompt)
        )
    return found


def by_prompt(gains: Iterable[Gain]) -> Table:
    """Return speed-ups by what is kept and prompt length; of the sparse operators as well."""
    rows: dict[str, dict[int, float]] = {}
    for gain in gains:
        rows.setdefault(str(gain), {})[gain.prompt] = gain.speedup
        rows.setdefault(f"{gain}: sparse operators", {})[gain.prompt] = gain.sparse
    prompts = next(iter(rows.values()))
    return Table(
        title="Speed-up over the dense model by prompt length",
        columns=("kept", *map(str, prompts)),
        rows=tuple((name, *found.values()) for name, found in rows.items()),
    )
