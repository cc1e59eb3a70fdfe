"""What a training study says in words; every figure is the data's."""

from collections.abc import Sequence
from typing import Final

from sparseloom.studies.sensitivity import Effect
from sparseloom.studies.training import BDWP, PUBLISHED, TrainingStudy

__all__ = ["TOLERANCE", "conclude", "error", "verdict"]

TOLERANCE: Final = 0.05
"""Relative error of the average above which some assumption has to carry the difference."""

SMALL: Final = 0.01
"""Relative change of the average below which an assumption does not matter."""


def error(study: TrainingStudy) -> float:
    """Return the relative error of the average speed-up of BDWP 2:8."""
    return study.average() / PUBLISHED - 1


def verdict(study: TrainingStudy, effects: Sequence[Effect], tolerance: float = TOLERANCE) -> str:
    """Say whether the average matches the published one and, if not, what carries the difference.

    That is the setting under which the average comes closest to the published one.
    """
    off = abs(error(study))
    if off <= tolerance:
        return f"within {tolerance:.0%}: no assumption has to carry the difference"
    if not effects:
        return f"off by more than {tolerance:.0%}"
    closest = min(effects, key=lambda effect: abs(effect.average / PUBLISHED - 1))
    return (
        f"off by more than {tolerance:.0%}; of the assumptions varied alone, {closest.name} "
        f"({closest.setting}) brings it closest, to {closest.average:.2f}x"
    )


def conclude(
    study: TrainingStudy, effects: Sequence[Effect], tolerance: float = TOLERANCE
) -> tuple[str, ...]:
    """Return the sentences that sum the study up."""
    sentences = [_result(study, verdict(study, effects, tolerance)), _bound(study)]
    large = dict.fromkeys(e.name for e in effects if abs(e.change) >= SMALL)
    small = [name for name in dict.fromkeys(e.name for e in effects) if name not in large]
    if large:
        moved = [e for e in effects if e.name in large][:4]
        listed = ", ".join(f"{e.name} ({e.setting}) {e.change:+.1%}" for e in moved)
        sentences.append(f"What moves the average most: {listed}.")
    if small:
        sentences.append(f"Less than {SMALL:.0%}, whatever the setting tried: {', '.join(small)}.")
    return tuple(sentences)


def _result(study: TrainingStudy, judged: str) -> str:
    networks = ", ".join(network.title for network in study.averaged)
    return (
        f"On average over {networks} {BDWP} makes a training step "
        f"{study.average():.2f}x as fast as dense training on the same array; {PUBLISHED:.2f}x is "
        f"published, an error of {error(study):+.1%}, {judged}."
    )


def _bound(study: TrainingStudy) -> str:
    return (
        f"Their products alone would allow {study.average_bound():.2f}x: weight gradients, first "
        "layers (which have no BP) and products of two activations stay dense."
    )
