"""Solve a linear model with PuLP: the one place of the mapper that knows it."""

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

__all__ = ["SOLVERS", "Model", "Row", "Solution", "Status", "solve"]

SOLVERS: Final = ("highs", "cbc")


class Status(StrEnum):
    """What a solver proved."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"  # a solution, but time ran out before its proof
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


_STATUS: Final = {1: Status.OPTIMAL, 2: Status.FEASIBLE, -1: Status.INFEASIBLE}
"""PuLP's sol_status: a time-limited incumbent has status "optimal", only sol_status tells."""

Key = Hashable


@dataclass(frozen=True, slots=True)
class Row:
    """Sum of coefficients times variables, at most `high`, or equal to it."""

    terms: Mapping[Key, float]
    high: float
    equal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Minimise `goal`, one of the variables, all at least 0; binaries are 0 or 1."""

    goal: Key
    binaries: tuple[Key, ...]
    continuous: tuple[Key, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Values of the variables, none without a solution."""

    status: Status
    values: Mapping[Key, float]


def solve(model: Model, *, solver: str = "highs", time_limit_s: float = 60) -> Solution:
    """Return the best solution found within the time.

    Raises ValueError for an unknown solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"Unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    import pulp

    problem, variables = _problem(model)
    run = pulp.HiGHS if solver == "highs" else pulp.PULP_CBC_CMD
    with warnings.catch_warnings():
        # PuLP 3 ships its CBC under a name that PuLP 4 will not have.
        warnings.filterwarnings("ignore", "PULP_CBC_CMD", DeprecationWarning)
        tool = run(msg=False, timeLimit=time_limit_s, gapRel=0, threads=1)
    problem.solve(tool)
    status = _STATUS.get(problem.sol_status, Status.UNKNOWN)
    found = status in (Status.OPTIMAL, Status.FEASIBLE)
    values = {key: float(v.varValue or 0) for key, v in variables.items()} if found else {}
    return Solution(status=status, values=values)


def _problem(model: Model) -> tuple[Any, dict[Key, Any]]:
    import pulp

    problem = pulp.LpProblem("mapping", pulp.LpMinimize)
    kinds = ((model.binaries, pulp.LpBinary), (model.continuous, pulp.LpContinuous))
    variables: dict[Key, Any] = {}
    for keys, kind in kinds:
        for key in keys:
            variables[key] = problem.add_variable(f"v{len(variables)}", 0, None, kind)
    problem += variables[model.goal]
    for row in model.rows:
        total = pulp.LpAffineExpression([(variables[key], c) for key, c in row.terms.items()])
        problem += total == row.high if row.equal else total <= row.high
    return problem, variables
