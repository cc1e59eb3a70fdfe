"""Studies: questions that take many runs, answered as data, sentences and figures."""

from sparseloom.studies.conclusion import conclude
from sparseloom.studies.inference import (
    COMPRESSIONS,
    MECHANISMS,
    Gain,
    InferenceStudy,
    Span,
    energy_per_token,
    infer,
    spans,
    sparsity_gains,
    useful_bandwidth,
)
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
    "COMPRESSIONS",
    "DENSE",
    "MECHANISMS",
    "METHODS",
    "NETWORKS",
    "PATTERNS",
    "PUBLISHED",
    "Assumption",
    "Effect",
    "Gain",
    "InferenceStudy",
    "Network",
    "Span",
    "Speedup",
    "TrainingStudy",
    "Variant",
    "conclude",
    "energy_per_token",
    "infer",
    "optimisations",
    "sensitivity",
    "spans",
    "sparsity_gains",
    "train",
    "useful_bandwidth",
]
