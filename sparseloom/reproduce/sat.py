"""N:M training on the SAT array (arXiv 2309.13015), beside its published average."""

from collections.abc import Callable, Sequence
from typing import Final

from sparseloom.reproduce.row import Row, Section
from sparseloom.studies.conclusion import TOLERANCE, conclude, error, verdict
from sparseloom.studies.sensitivity import sensitivity
from sparseloom.studies.tables import by_network, by_setting, by_variant
from sparseloom.studies.training import (
    BDWP,
    METHODS,
    NETWORKS,
    PATTERNS,
    PUBLISHED,
    Network,
    TrainingStudy,
    train,
)

__all__ = ["section"]

SOURCE: Final = "arXiv 2309.13015"
EQUAL_PRODUCTS: Final = (
    (PATTERNS[0], 1.50, "3 / (2 N/M + 1)"),
    (BDWP, 2.00, "3 / (2 N/M + 1)"),
    (METHODS[1], 1.33, "3 / (2 + N/M)"),
)
"""Speed-ups if FF, BP and WU had equal products and every weight were sparse: variant, bound and
where it comes from."""

ASSUMED: Final = (
    "The networks, the array's size, clock and precision are assumed: the publication's per-layer "
    "tables are not public."
)


def _bounds(study: TrainingStudy) -> tuple[Row, ...]:
    return tuple(
        Row(
            what=f"bound of {variant}, average",
            published=published,
            ours=study.average_bound(variant),
            unit="x",
            source=f"derived: {formula}, equal products",
            note="of each network's own products",
        )
        for variant, published, formula in EQUAL_PRODUCTS
    )


def section(
    on_step: Callable[[str], None],
    *,
    networks: Sequence[Network] = NETWORKS,
    batch: int = 64,
    tolerance: float = TOLERANCE,
) -> Section:
    """Return the average speed-up, bounds, and the tables behind them.

    If the average is off by more than `tolerance`, every assumption is varied alone to say which
    one carries the difference.
    """
    study = train(networks, batch=batch, on_network=on_step)
    off = abs(error(study)) > tolerance
    effects = sensitivity(study, on_effect=on_step) if off else ()
    average = Row(
        what=f"average training speed-up of {BDWP}",
        published=PUBLISHED,
        ours=study.average(),
        unit="x",
        source=SOURCE,
        note=verdict(study, effects, tolerance),
        tolerance=tolerance,
    )
    return Section(
        name="sat",
        title="N:M training: SAT (arXiv 2309.13015)",
        rows=(average, *_bounds(study)),
        tables=(
            by_network(study),
            by_variant(study, METHODS, "Speed-up by method"),
            by_variant(study, PATTERNS, "Speed-up by pattern"),
            *([by_setting(effects)] if effects else []),
        ),
        sentences=(
            *conclude(study, effects, tolerance),
            ASSUMED,
        ),
    )
