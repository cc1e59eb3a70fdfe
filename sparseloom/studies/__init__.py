"""Studies: questions that take many runs, answered as data, sentences and figures."""

from sparseloom.studies.bandwidth import MECHANISMS, USEFUL, bandwidth, by_accounting
from sparseloom.studies.compression import (
    CAUSAL,
    COMPRESSIONS,
    Gain,
    by_prompt,
    kept_for,
    sparsity_gains,
)
from sparseloom.studies.conclusion import conclude
from sparseloom.studies.inference import InferenceStudy, Span, energy_per_token, infer, spans
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
    "CAUSAL",
    "COMPRESSIONS",
    "DENSE",
    "MECHANISMS",
    "METHODS",
    "NETWORKS",
    "PATTERNS",
    "PUBLISHED",
    "USEFUL",
    "Assumption",
    "Effect",
    "Gain",
    "InferenceStudy",
    "Network",
    "Span",
    "Speedup",
    "TrainingStudy",
    "Variant",
    "bandwidth",
    "by_accounting",
    "by_prompt",
    "conclude",
    "energy_per_token",
    "infer",
    "kept_for",
    "optimisations",
    "sensitivity",
    "spans",
    "sparsity_gains",
    "train",
]
