"""Points chosen by evolution: optuna's NSGA-II over the dimensions of the space.

The generations are replayed from the start against the store, so an interrupted search goes on
where it stopped: a point asked for again is found there.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np

from sparseloom.sweeps.metrics import METRICS
from sparseloom.sweeps.points import Space
from sparseloom.sweeps.spec import Constraint
from sparseloom.sweeps.store import Row

__all__ = ["generations"]

POPULATION: Final = 24
"""Points of one generation."""


def _study(space: Space) -> Any:
    try:
        import optuna
    except ImportError:
        raise RuntimeError(
            "Sampler nsga2 needs the search extra: pip install 'sparseloom[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(
        population_size=POPULATION,
        seed=space.spec.sampler.seed,
    )
    directions: Any = [
        "maximize" if METRICS[name].more_is_better else "minimize" for name in space.spec.objectives
    ]
    return optuna.create_study(directions=directions, sampler=sampler)


def _excess(constraint: Constraint, metrics: dict[str, float | int]) -> float:
    """Return by how much a point breaks a constraint, at most 0 if it does not."""
    value = float(metrics[constraint.metric])
    if constraint.at_most is not None:
        return value - constraint.at_most
    assert constraint.at_least is not None
    return constraint.at_least - value


def _asked(study: Any, space: Space) -> tuple[Any, int]:
    """Return a trial and the index of its point: a machine, then a value in each dimension."""
    trial = study.ask()
    block = trial.suggest_int("machine", 0, len(space.blocks) - 1) if len(space.blocks) > 1 else 0
    sizes = space.blocks[block].sizes
    digits = [trial.suggest_int(f"{block}.{i}", 0, size - 1) for i, size in enumerate(sizes)]
    first = sum(other.size for other in space.blocks[:block])
    return trial, first + int(np.ravel_multi_index(digits, sizes))


def generations(space: Space, rows: Callable[[], Iterable[Row]]) -> Iterator[list[int]]:
    """Yield the indices of each generation; `rows` returns what is stored when it has run.

    Failed points and points beyond a constraint are told as such. Raises RuntimeError when optuna
    is not installed.
    """
    import optuna

    study, spec = _study(space), space.spec
    left = min(spec.sampler.points, len(space))
    while left > 0:
        asked = [_asked(study, space) for _ in range(min(POPULATION, left))]
        left -= len(asked)
        yield list(dict.fromkeys(index for _, index in asked))
        found = {row.digest: row.metrics for row in rows()}
        for trial, index in asked:
            metrics = found.get(space.point(index).key())
            if metrics is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            for constraint in spec.constraints:
                trial.set_constraint(str(constraint), _excess(constraint, metrics))
            study.tell(trial, [metrics[name] for name in spec.objectives])
