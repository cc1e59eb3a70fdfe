"""Training: a whole step (forward, backward, update, selection) as a WorkloadGraph."""

from workloads.training.batch_norm import unfold_batch_norms
from workloads.training.method import SGD, Method
from workloads.training.step import training

__all__ = ["SGD", "Method", "training", "unfold_batch_norms"]
