"""The integer-program placer: units, DSP chains and buffers on real device tables."""

from pathlib import Path

from mapping.placer.device import DEVICES, Device, load_device
from mapping.placer.infeasible import InfeasiblePlacement, Shortage
from mapping.placer.problem import Placement, Problem
from mapping.placer.sites import SitesProblem, place_sites
from mapping.placer.slots import place_slots
from mapping.placer.spec import SPECS, load_problem, summary
from mapping.solver import Status

__all__ = [
    "DEVICES",
    "SPECS",
    "Device",
    "InfeasiblePlacement",
    "Placement",
    "Problem",
    "Shortage",
    "SitesProblem",
    "Status",
    "load_device",
    "load_problem",
    "place",
    "summary",
]


def place(
    spec: str | Path | Problem | SitesProblem,
    *,
    device: str | None = None,
    solver: str = "highs",
    time_limit_s: float = 60,
) -> Placement:
    """Return the placement of a built-in spec, a YAML file or a problem.

    `device` replaces the one a file names. Raises InfeasiblePlacement naming what is short,
    ValueError for bad input, RuntimeError if time runs out before a placement is found.
    """
    if isinstance(spec, (Problem, SitesProblem)):
        if device is not None:
            raise ValueError("A problem has its device already; device goes with a name or a file")
        problem = spec
    else:
        problem = load_problem(spec, device=device)
    if isinstance(problem, SitesProblem):
        return place_sites(problem, solver=solver, time_limit_s=time_limit_s)
    return place_slots(problem, solver=solver, time_limit_s=time_limit_s)
