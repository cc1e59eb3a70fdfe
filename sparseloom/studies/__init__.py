"""Studies: questions that take many runs, answered as data, sentences and figures."""

from sparseloom.studies.conclusion import conclude
from sparseloom.studies.optimisations import optimisations
from sparseloom.studies.sensitivity import ASSUMPTIONS, Assumption, Effect, sensitivity
from sparseloom.studies.training import (
    BDWP,
    DENSE,
    METHODS,
    NETWORKS,
    PATTERNS,
    PUBLISHED,
    Network,
    Speedup,
    TrainingStudy,
    Variant,
    train,
)

__all__ = [
    "ASSUMPTIONS",
    "BDWP",
    "DENSE",
    "METHODS",
    "NETWORKS",
    "PATTERNS",
    "PUBLISHED",
    "Assumption",
    "Effect",
    "Network",
    "Speedup",
    "TrainingStudy",
    "Variant",
    "conclude",
    "optimisations",
    "sensitivity",
    "train",
]
