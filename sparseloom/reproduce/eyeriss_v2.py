"""A PE of Eyeriss v2 beside the counts that Sparseloop (MICRO 2022) validates against.

The artefact's ground truth counts cycles in which the PE multiplies: `array_busy`.
"""

import gzip
from collections.abc import Callable
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sparseloom.reproduce.product import run_product
from sparseloom.reproduce.row import Row, Section
from workloads.sparsity import Explicit, Unstructured

__all__ = ["LAYERS", "MASKED", "masks", "section"]

SOURCE: Final = "Sparseloop (MICRO 2022) artefact, Fig. 12"

LAYERS: Final[dict[str, tuple[int, int, int, float, float, int]]] = {
    "L07": (64, 64, 1024, 0.73, 0.52, 1702140),
    "L13": (128, 256, 64, 0.83, 0.64, 1144158),
    "L21": (256, 256, 64, 0.64, 0.60, 1677684),
    "L25": (256, 512, 16, 0.68, 0.65, 948572),
}
"""Channels, features, pixels, density of activations and weights (two digits), cycles."""

MASKED: Final = ("L13", "L25")
"""Layers whose masks are public."""

UNIFORM: Final = 0.07
"""Error of the public estimate from densities alone: 2 to 7 %."""


def _read(name: str) -> NDArray[np.bool_]:
    path = files("sparseloom.reproduce") / "data" / "eyeriss_v2" / f"{name}.txt.gz"
    text = gzip.decompress(path.read_bytes()).strip()
    bits: NDArray[np.bool_] = np.frombuffer(text, "S1") == b"1"
    return bits


def masks(layer: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the layer's true masks: activations (m, k) and weights (k, n)."""
    channels, features, pixels, *_ = LAYERS[layer]
    weights = _read(f"{layer}_weights").reshape(features, channels)
    return _read(f"{layer}_iacts").reshape(pixels, channels), weights.T


def _exact(layer: str) -> Row:
    channels, features, pixels, *_, published = LAYERS[layer]
    act, weight = map(Explicit, masks(layer))
    result = run_product("eyeriss-v2-pe", pixels, channels, features, weight, act)
    return Row(
        what=f"{layer}, true masks",
        published=published,
        ours=result.array_busy,
        unit="cycles",
        source=SOURCE,
        note=f"array_busy, cycles in which the PE multiplies; {result.cycles:,} from first chunk "
        "to last sum",
        tolerance=0,
    )


def _estimate(layer: str) -> Row:
    channels, features, pixels, acts, weights, published = LAYERS[layer]
    drawn = Unstructured(weights), Unstructured(acts)
    result = run_product("eyeriss-v2-pe", pixels, channels, features, *drawn)
    return Row(
        what=f"{layer}, densities {weights} and {acts}",
        published=published,
        ours=result.array_busy,
        unit="cycles",
        source=SOURCE,
        note="array_busy of drawn masks: real zeros share positions, uniform ones do not; "
        "the public estimate is 2 to 7 % off",
        tolerance=UNIFORM,
    )


def section(on_step: Callable[[str], None]) -> Section:
    """Return the layers by their true masks, where these are public, and all by densities."""
    rows = []
    for make, layers in ((_exact, MASKED), (_estimate, tuple(LAYERS))):
        for layer in layers:
            rows.append(make(layer))
            on_step(layer)
    return Section(
        name="eyeriss-v2",
        title="One PE of Eyeriss v2, sparse MobileNet0.5: Sparseloop (MICRO 2022)",
        rows=tuple(rows),
    )
