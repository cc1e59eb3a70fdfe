"""Training: a whole step (forward, backward, update, selection) as a WorkloadGraph."""

from workloads.training.method import SGD, Method
from workloads.training.step import training

__all__ = ["SGD", "Method", "training"]
