"""What each of the array's dataflow optimisations is worth to every network of a study."""

from collections.abc import Callable

from sparseloom.ablation import OPTIMISATIONS, Optimisation
from sparseloom.studies.together import cycles_together
from sparseloom.studies.training import BDWP, Network, TrainingStudy

__all__ = ["optimisations"]


def optimisations(
    study: TrainingStudy, *, on_optimisation: Callable[[str], None] | None = None
) -> dict[Network, tuple[Optimisation, ...]]:
    """Return BDWP 2:8 steps with interleaving, pre-generation or scheduling left out alone.

    As `sparseloom.ablation.ablate`, for all networks together.
    """
    steps = {network: study.graphs[network, BDWP] for network in study.networks}
    found: dict[Network, list[Optimisation]] = {network: [] for network in steps}
    for name, without in OPTIMISATIONS.items():
        runs = [cycles_together(steps, machine) for machine in without(study.arch)]
        for network in steps:
            least = min(run[network] for run in runs)
            worth = least / study.results[network, BDWP].cycles
            found[network].append(Optimisation(name=name, cycles_without=least, worth=worth))
        if on_optimisation:
            on_optimisation(name)
    return {network: tuple(worths) for network, worths in found.items()}
