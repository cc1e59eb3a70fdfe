"""SIGMA and a dense 128 x 128 array beside TeAAL's published cycles (MICRO 2023 artefact)."""

from collections.abc import Callable
from typing import Final

from sparseloom.reproduce.product import run_product
from sparseloom.reproduce.row import Row, Section
from workloads.sparsity import Unstructured

__all__ = ["DENSITY", "PRODUCTS", "section"]

SOURCE: Final = "TeAAL (MICRO 2023) artefact"
DENSITY: Final = 0.2
"""Density of the (M, K) operand on SIGMA."""

PRODUCTS: Final = (
    (128, 2048, 4096, 66454, 73728),
    (320, 3072, 4096, 100576, 319488),
    (2048, 4096, 32, 4213, 68096),
    (84, 1024, 4096, 33376, 40960),
    (256, 256, 2048, 5014, 16384),
)
"""M, N, K; cycles of SIGMA and of the TPU."""


def _row(what: str, published: int, ours: int) -> Row:
    return Row(what=what, published=published, ours=ours, unit="cycles", source=SOURCE, tolerance=0)


def section(on_step: Callable[[str], None]) -> Section:
    """Return every product on both machines."""
    rows: list[Row] = []
    for m, n, k, sigma, tpu in PRODUCTS:
        size = f"{m} x {n} x {k}"
        sparse = run_product("sigma-like", m, k, n, activation=Unstructured(DENSITY))
        rows.append(_row(f"SIGMA, {size}, density {DENSITY}", sigma, sparse.cycles))
        rows.append(_row(f"TPU, {size}", tpu, run_product("dense-tpu", m, k, n).cycles))
        on_step(size)
    return Section(
        name="sigma-tpu", title="SIGMA and a dense array: TeAAL (MICRO 2023)", rows=tuple(rows)
    )
