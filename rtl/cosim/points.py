"""How each kind of unit is checked: random points, their port words, and what the model expects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rtl.cosim.chain_points import chain_expected, chain_stimulus, random_chain_point
from rtl.cosim.check import expected
from rtl.cosim.delta_points import delta_expected, delta_stimulus, random_delta_point
from rtl.cosim.dequantiser_points import (
    dequantiser_expected,
    dequantiser_stimulus,
    random_dequantiser_point,
)
from rtl.cosim.flex_points import flex_expected, flex_stimulus, random_flex_point
from rtl.cosim.grid_points import grid_expected, grid_stimulus, random_grid_point
from rtl.cosim.play import Observation, Stimulus
from rtl.cosim.sore_points import random_sore_point, sore_expected, sore_stimulus
from rtl.cosim.special_points import (
    random_special_point,
    special_expected,
    special_stimulus,
)
from rtl.cosim.stimulus import random_point, stimulus
from rtl.cosim.wuve_points import random_wuve_point, wuve_expected, wuve_stimulus
from rtl.export import UnitParams
from simulator.arch import NMArray
from simulator.arch.delta import DeltaParams
from simulator.arch.dequantiser import DequantiserParams
from simulator.arch.dsp_cells import MpeParams
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.pe_grid import PEGrid
from simulator.arch.sore import SoreParams
from simulator.arch.special import SpecialParams
from simulator.arch.wuve import WuveParams

__all__ = ["POINTS", "Points", "draw_points", "points_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """The points of one kind of unit; `str(point)` is its line in a report."""

    draw: Callable[[Any, np.random.Generator], Any]
    stimulus: Callable[[Any], Stimulus]
    expected: Callable[[Any], Observation]


POINTS: Final[Mapping[type, Points]] = {
    NMArray: Points(draw=random_point, stimulus=stimulus, expected=expected),
    SoreParams: Points(draw=random_sore_point, stimulus=sore_stimulus, expected=sore_expected),
    WuveParams: Points(draw=random_wuve_point, stimulus=wuve_stimulus, expected=wuve_expected),
    PEGrid: Points(draw=random_grid_point, stimulus=grid_stimulus, expected=grid_expected),
    DeltaParams: Points(draw=random_delta_point, stimulus=delta_stimulus, expected=delta_expected),
    FlexDpe: Points(draw=random_flex_point, stimulus=flex_stimulus, expected=flex_expected),
    MpeParams: Points(draw=random_chain_point, stimulus=chain_stimulus, expected=chain_expected),
    DequantiserParams: Points(
        draw=random_dequantiser_point, stimulus=dequantiser_stimulus, expected=dequantiser_expected
    ),
    SpecialParams: Points(
        draw=random_special_point, stimulus=special_stimulus, expected=special_expected
    ),
}
"""By the type of a unit's parameters."""


def points_of(params: UnitParams) -> Points:
    """Return how the unit is checked."""
    return POINTS[type(params)]


def draw_points(params: UnitParams, points: int, seed: int) -> list[Any]:
    """Return random points; the i-th depends on the unit, `seed` and i alone."""
    own, draw = int(params.digest()[:16], 16), points_of(params).draw
    return [draw(params, np.random.default_rng([own, seed, i])) for i in range(points)]
