"""Sparse tensor cores and DSTC beside Sparseloop's tables (MICRO 2022 artefact, Figs. 13, 15)."""

from collections.abc import Callable
from typing import Final

from sparseloom.reproduce.product import run_product
from sparseloom.reproduce.row import TOLERANCE, Row, Section
from workloads.sparsity import NofM, Sparsity, Unstructured

__all__ = ["DSTC", "LAYERS", "section"]

SOURCE: Final = "Sparseloop (MICRO 2022) artefact"

LAYERS: Final = (
    (128, 1152, 1024, 0.44, 147456, 66707, 42271, 51197),
    (512, 1024, 256, 0.27, 131072, 59295, 32768, 35482),
    (512, 128, 1024, 0.56, 65536, 29648, 21784, 30226),
    (512, 256, 1024, 0.82, 131072, 59295, 56549, 78640),
)
"""Features, reduction, pixels, activation density; cycles dense, flexible at 1:4, both operands
compressed at 1:4, DSTC at weight density .5 (Fig. 15)."""

DSTC: Final = (
    (0.7, 1.0, 3300, 0.12),
    (0.3, 1.0, 1930, 0.02),
    (1.0, 0.4, 2500, 0.07),
    (0.5, 0.4, 1480, 0.06),
)
"""Density of activations and weights of a 4096^3 product, its time beside 4600 dense, as read off
the plot (Fig. 13), and our residual."""

DSTC_DENSE: Final = 4600
SIZE: Final = (4096, 4096, 4096)

ROUNDING: Final = 1e-4
"""A cycle of the smallest layer: the artefact rounds bytes otherwise."""

DRAWN: Final = 0.015
"""DSTC's cycles follow from drawn masks, and which side takes the wide lanes is assumed."""

SLOWER: Final = (
    "read off a plot; the non-zeros of 32 positions fill whole groups of 8 and 16 lanes, which we "
    "count in full: at density .7 three or four groups of 8, 80 % of the dense time"
)
FASTER: Final = (
    "read off a plot; whole groups of 8 and 16 lanes and the port are all that we count, and the "
    "published machine loses more"
)


def _layer_rows(layer: tuple[int, int, int, float, int, int, int, int]) -> tuple[Row, ...]:
    features, k, pixels, act, dense, flexible, dual, dstc = layer
    cases: tuple[tuple[str, str, Sparsity | None, float, float], ...] = (
        ("stc-like", "dense", None, dense, 0),
        ("stc-like", "2:4", NofM(2, 4), dense / 2, 0),
        ("stc-flexible", "1:4", NofM(1, 4), flexible, 0),
        ("stc-dual", "1:4", NofM(1, 4), dual, ROUNDING),
        ("dstc-like", "2:4", NofM(2, 4), dstc, DRAWN),
    )
    return tuple(
        Row(
            what=f"{arch}, {features} x {k} x {pixels}, weights {label}",
            published=published,
            ours=run_product(arch, pixels, k, features, weight, Unstructured(act)).cycles,
            unit="cycles",
            source=f"{SOURCE}, Fig. 15",
            tolerance=tolerance,
        )
        for arch, label, weight, published, tolerance in cases
    )


def _dstc_row(act: float, weight: float, time: int, dense_cycles: int) -> Row:
    sparse = run_product("dstc-like", *SIZE, Unstructured(weight), Unstructured(act))
    ours, published = sparse.cycles / dense_cycles, time / DSTC_DENSE
    return Row(
        what=f"dstc-like, 4096^3, time at densities {act} and {weight} over dense",
        published=published,
        ours=ours,
        unit="x",
        source=f"{SOURCE}, Fig. 13",
        note=SLOWER if ours > published else FASTER,
        tolerance=TOLERANCE,
    )


def section(on_step: Callable[[str], None]) -> Section:
    """Return four layers on every tensor core, and DSTC's time over densities."""
    rows: list[Row] = []
    for layer in LAYERS:
        rows += _layer_rows(layer)
        on_step(f"{layer[0]} x {layer[1]} x {layer[2]}")
    dense = run_product("dstc-like", *SIZE).cycles
    rows += [_dstc_row(act, weight, time, dense) for act, weight, time, _ in DSTC]
    on_step("DSTC 4096^3")
    return Section(
        name="tensor-cores",
        title="Sparse tensor cores and DSTC: Sparseloop (MICRO 2022)",
        rows=tuple(rows),
    )
