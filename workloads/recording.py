"""Activations as a run of the model left them: masks per tensor on a graph."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from workloads.graph import TensorSpec, WorkloadGraph
from workloads.sparsity import Explicit

__all__ = ["recorded"]


def _checked(graph: WorkloadGraph, name: str, mask: NDArray[np.bool_]) -> TensorSpec:
    if name not in graph.tensors:
        raise ValueError(
            f"Workload {graph.name!r} has no tensor {name!r}: was it recorded on another model?"
        )
    spec = graph.tensors[name]
    if spec.parameter:
        raise ValueError(f"Tensor {name!r} is a weight: its zeros are those of its values")
    if mask.dtype != np.bool_:
        raise ValueError(f"Mask of {name!r} must be boolean, not {mask.dtype}")
    if mask.shape != spec.shape:
        raise ValueError(
            f"Mask of {name!r} has shape {mask.shape}, but its tensor has shape {spec.shape}"
        )
    return spec


def recorded(graph: WorkloadGraph, masks: Mapping[str, NDArray[np.bool_]]) -> WorkloadGraph:
    """Return `graph` with `masks` on its activations, each bool of its tensor's shape.

    Raises ValueError for a tensor the graph does not have or that is a weight, and for a mask
    that is not boolean or of another shape.
    """
    specs = {
        name: replace(_checked(graph, name, mask), sparsity=Explicit(mask))
        for name, mask in masks.items()
    }
    return replace(graph, tensors={**graph.tensors, **specs})
