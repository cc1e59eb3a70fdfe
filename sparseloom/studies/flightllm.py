"""What is published of FlightLLM (arXiv 2401.03868 and its artefact) with LLaMA-2-7B."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from simulator.dsp_isa import Module
from workloads.canonical import Spec

__all__ = [
    "BOARD_BANDWIDTH",
    "BOARD_CYCLES",
    "BOARD_LENGTH",
    "BOARD_WEIGHT_BYTES",
    "LONGEST",
    "PROGRAMS",
    "RUNS",
    "SPARSITY_GAIN",
    "STEP_INSTRUCTIONS",
    "STORAGE_RATIO",
    "UTILISATION",
    "Published",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Spec):
    """Milliseconds of one program and of its modules."""

    ms: float
    modules: Mapping[Module, float] = field(hash=False)


def _step(ms: float, ld: float, st: float, mv: float, misc: float) -> Published:
    modules = {Module.LD: ld, Module.ST: st, Module.MV: mv, Module.MISC: misc}
    return Published(ms=ms, modules=modules)


def _prompt(ms: float, ld: float, st: float, mm: float, misc: float) -> Published:
    modules = {Module.LD: ld, Module.ST: st, Module.MM: mm, Module.MISC: misc}
    return Published(ms=ms, modules=modules)


PROGRAMS: Final[Mapping[tuple[str, int], Published]] = {
    ("decode", 144): _step(9.281941, 6.704711, 0.031453, 8.810382, 0.225422),
    ("decode", 256): _step(9.429263, 6.827646, 0.033316, 8.890027, 0.245333),
    ("decode", 512): _step(9.809803, 7.108639, 0.037573, 9.072071, 0.290844),
    ("decode", 1024): _step(10.615256, 7.670626, 0.046088, 9.527182, 0.381867),
    ("decode", 1536): _step(11.420709, 8.232612, 0.054603, 9.982293, 0.472889),
    ("decode", 2048): _step(12.226162, 8.794599, 0.063118, 10.437404, 0.563911),
    ("prefill", 128): _prompt(289.882369, 104.406553, 0.932377, 274.240853, 9.318400),
    ("prefill", 512): _prompt(1181.419287, 426.847472, 4.000220, 1109.111324, 49.550222),
}
"""VHK158, by phase and length: the artefact's own simulator."""

RUNS: Final[Mapping[tuple[int, int], tuple[float, float]]] = {
    (128, 512): (289.9, 4946.4),
    (128, 1024): (289.9, 10318.6),
    (128, 1536): (289.9, 16103.1),
    (512, 512): (1181.4, 5269.0),
    (512, 1024): (1181.4, 10950.5),
    (512, 1536): (1181.4, 17044.3),
}
"""VHK158: {(prompt, tokens): (prefill, decode) in milliseconds}; token/s are of decode."""

STEP_INSTRUCTIONS: Final = 103_765
"""Instructions of a decode step at KV 256 on VHK158."""

BOARD_LENGTH: Final = 128
BOARD_CYCLES: Final[Mapping[int, int]] = {BOARD_LENGTH: 3_937_100, 512: 4_272_163}
"""U280: decode steps by KV length as measured on the board."""

BOARD_WEIGHT_BYTES: Final = 3.43e9
BOARD_BANDWIDTH: Final = 0.426
"""U280: share of 460 GB/s that these weights take at 57.1 token/s."""

UTILISATION: Final = (0.356, 0.659)
"""Bandwidth utilisation without and with always-on-chip decode and mixed precision; the paper's
introduction puts decoding elsewhere at 29 to 43 %."""

STORAGE_RATIO: Final = 500
SPARSITY_GAIN: Final = 1.6
LONGEST: Final = 2048
"""Longest sequence that programs are compiled for."""
