"""The one door to what `place` does: units on a device, or the machine to build there."""

from pathlib import Path

from mapping.placer import Placement, Problem, SitesProblem, load_problem
from mapping.placer import place as place_units
from mapping.placer.spec import read_spec
from sparseloom.designs import DESIGNS, Design, DesignSpec, design, load_design
from sparseloom.designs.spec import PROBLEM
from sparseloom.sweeps.run import OnPoint

__all__ = ["load_placement", "place"]


def load_placement(
    source: str | Path, *, device: str | None = None
) -> Problem | SitesProblem | DesignSpec:
    """Return what a built-in name or a YAML file asks for, on another device if one is given.

    Raises ValueError naming file, line and key of whatever is unknown, mistyped or out of range.
    """
    if str(source) in DESIGNS:
        return load_design(source, device=device)
    file = read_spec(source, more=DESIGNS)
    if isinstance(file.content, dict) and file.content.get("problem") == PROBLEM:
        return load_design(file, device=device)
    return load_problem(file, device=device, more=(PROBLEM,))


def place(
    spec: str | Path | Problem | SitesProblem | DesignSpec,
    *,
    device: str | None = None,
    solver: str = "highs",
    time_limit_s: float = 60,
    store: str | Path | None = None,
    jobs: int = 1,
    on_point: OnPoint | None = None,
) -> Placement | Design:
    """Return the placement of units, or the design, that a built-in spec, a file or a problem asks.

    `device` replaces the one a file names. `store`, `jobs` and `on_point` are those of a sweep,
    for a design's candidates. Raises InfeasiblePlacement naming what is short, ValueError for bad
    input, RuntimeError if time runs out before anything is found.
    """
    if isinstance(spec, str | Path):
        spec, device = load_placement(spec, device=device), None
    if not isinstance(spec, DesignSpec):
        if store is not None or jobs != 1:
            raise ValueError("A store and jobs go with a design, which simulates its candidates")
        return place_units(spec, device=device, solver=solver, time_limit_s=time_limit_s)
    if device is not None:
        raise ValueError("A design has its device already; device goes with a name or a file")
    return design(
        spec, solver=solver, time_limit_s=time_limit_s, store=store, jobs=jobs, on_point=on_point
    )
