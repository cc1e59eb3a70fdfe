"""Solve a model with PuLP: the one place that knows it."""

import os
import re
import tempfile
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from mapping.linear import Model, Row

__all__ = ["SLACK", "SOLVERS", "Solution", "Status", "solve"]

SOLVERS: Final = ("highs", "cbc")
"""HiGHS is the faster on programs of every size measured (benchmarks/place.py)."""


SLACK: Final = 1e-5
"""How far a solver's values may be off, relative to a limit above 1."""


class Status(StrEnum):
    """How a solve ended."""

    OPTIMAL = "optimal"  # proved
    FEASIBLE = "feasible"  # the best found when time ran out
    INFEASIBLE = "infeasible"  # proved
    UNKNOWN = "unknown"  # nothing found when time ran out


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Values of the variables (none without a solution), objective and proved bound."""

    status: Status
    values: dict[Hashable, float]
    objective: float
    bound: float
    seconds: float
    solver: str


def solve(
    model: Model,
    *,
    solver: str = "highs",
    time_limit_s: float = 60,
    step: float = 0,
    start: Mapping[Hashable, float] | None = None,
) -> Solution:
    """Return the best solution found within the time and a proved bound.

    Objectives are known to be multiples of `step` (0: of nothing), so a bound is rounded up to
    one and the search ends when none lies between. `start` is a solution to begin from. Raises
    ValueError for an unknown solver. Without a solution the objective is infinite.
    """
    if solver not in SOLVERS:
        raise ValueError(f"Unknown solver {solver!r}; known: {', '.join(SOLVERS)}")
    began = time.perf_counter()
    problem, variables = _problem(model)
    run = _highs if solver == "highs" else _cbc
    for key, value in (start or {}).items():
        variables[key].setInitialValue(value)
    bound = run(problem, time_limit_s, step * (1 - 1e-4), bool(start))
    # A time-limited incumbent has status "optimal"; only sol_status tells the two apart.
    # CBC tells an integer program without solution by status only.
    ended = problem.sol_status or min(problem.status, 0)
    status = _STATUS.get(ended, Status.UNKNOWN)
    values = {key: float(v.varValue or 0) for key, v in variables.items()}
    found = status is Status.OPTIMAL or (status is Status.FEASIBLE and _holds(model, values))
    if not found:
        values = {}
        status = Status.UNKNOWN if status is Status.FEASIBLE else status
    objective = sum(c * values[key] for key, c in model.costs.items()) if found else float("inf")
    return Solution(
        status=status,
        values=values,
        objective=_round(objective, step),
        bound=min(_round(objective, step), _round_up(bound, step)),
        seconds=time.perf_counter() - began,
        solver=solver,
    )


def _holds(model: Model, values: Mapping[Hashable, float]) -> bool:
    """Whether rows and variables are kept: where time ends a program, its values may not be."""
    kept = all(
        v.low - SLACK <= values[key] <= (values[key] if v.high is None else v.high) + SLACK
        and not (v.integer and abs(values[key] - round(values[key])) > SLACK)
        for key, v in model.variables.items()
    )
    sums = ((row, sum(c * values[key] for key, c in row.terms.items())) for row in model.rows)
    return kept and all(
        (row.low is None or total >= row.low - SLACK * max(1, abs(row.low)))
        and (row.high is None or total <= row.high + SLACK * max(1, abs(row.high)))
        for row, total in sums
    )


_STATUS: Final = {1: Status.OPTIMAL, 2: Status.FEASIBLE, -1: Status.INFEASIBLE}
"""PuLP's sol_status where there is a solution or a proof."""


def _round(value: float, step: float) -> float:
    return round(value / step) * step if step and abs(value) < float("inf") else value


def _round_up(value: float, step: float) -> float:
    return -(-(value - 1e-6 * step) // step) * step if step and abs(value) < float("inf") else value


def _problem(model: Model) -> tuple[Any, dict[Hashable, Any]]:
    import pulp

    problem = pulp.LpProblem("model", pulp.LpMinimize)
    variables = {
        key: problem.add_variable(
            f"v{index}", v.low, v.high, pulp.LpInteger if v.integer else pulp.LpContinuous
        )
        for index, (key, v) in enumerate(model.variables.items())
    }
    problem += pulp.LpAffineExpression((variables[k], c) for k, c in model.costs.items())
    for row in model.rows:
        for constraint in _constraints(row, variables):
            problem += constraint
    return problem, variables


def _constraints(row: Row, variables: dict[Hashable, Any]) -> list[Any]:
    import pulp

    total = pulp.LpAffineExpression((variables[key], value) for key, value in row.terms.items())
    if row.low is not None and row.low == row.high:
        return [total == row.low]
    constraints = [] if row.low is None else [total >= row.low]
    return constraints if row.high is None else [*constraints, total <= row.high]


def _highs(problem: Any, time_limit_s: float, step: float, started: bool) -> float:
    import highspy
    import pulp

    class Started(pulp.HiGHS):  # type: ignore[misc]  # PuLP is not typed
        """PuLP's HiGHS, handed the variables' initial values."""

        def callSolver(self, lp: Any) -> None:
            if started:
                given = highspy.HighsSolution()
                given.col_value = [v.varValue or 0.0 for v in lp.variables()]
                lp.solverModel.setSolution(given)
            super().callSolver(lp)

    solver = Started(msg=False, timeLimit=time_limit_s, gapRel=0, gapAbs=step, threads=1)
    problem.solve(solver)
    information = problem.solverModel.getInfo()
    if problem.isMIP():
        return float(information.mip_dual_bound)
    return float(information.objective_function_value)


def _cbc(problem: Any, time_limit_s: float, step: float, started: bool) -> float:
    import pulp

    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")  # noqa: PTH118 - PuLP wants text
        solver = pulp.COIN_CMD(  # the class for the bundled program is deprecated, not its path
            path=pulp.PULP_CBC_CMD.pulp_cbc_path,
            msg=False,
            timeLimit=time_limit_s,
            gapRel=0,
            gapAbs=step,
            threads=1,
            warmStart=started,
            logPath=log,
        )
        solver.tmpDir = folder
        problem.solve(solver)
        text = Path(log).read_text(encoding="utf-8", errors="replace")
    if problem.sol_status == 1:
        # With an absolute gap the objective itself is only proved to within that gap.
        return float(pulp.value(problem.objective) or 0) - step
    stated = re.search(r"Lower bound:\s*(\S+)", text)
    return float(stated.group(1)) if stated else float("-inf")
