"""The training step as far as it is written, and the gradients gathered for what is to come."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from workloads.graph import Op, OpKind, Phase, TensorSpec
from workloads.training.gradients import fresh
from workloads.training.method import WeightPlan
from workloads.training.reach import Reach

__all__ = ["VALUE_BITS", "Tape"]

VALUE_BITS = 16
"""Width of activations, gradients and weights as products read them."""


@dataclass(slots=True, kw_only=True)
class Tape:
    """Operators, tensors and values; tensors get longer names where one is taken."""

    reach: Reach
    plans: Mapping[str, WeightPlan]
    dense: Mapping[str, NDArray[np.float32]]  # weights before any pruning
    tensors: dict[str, TensorSpec]
    values: dict[str, NDArray[np.float32]]
    ops: list[Op] = field(default_factory=list)
    transposed: dict[str, str] = field(default_factory=dict)  # weight to what BP reads
    _parts: dict[str, list[str]] = field(default_factory=dict)
    _claims: Counter[str] = field(default_factory=Counter)  # gathered, not yet asked for
    _read: set[str] = field(default_factory=set)
    _maker: dict[str, int] = field(default_factory=dict)

    def append(self, op: Op) -> str:
        """Add an operator and return its output."""
        self._maker[op.output] = len(self.ops)
        self._read.update(op.inputs)
        self.ops.append(op)
        return op.output

    def add(self, spec: TensorSpec) -> str:
        """Add a tensor and return the name it got."""
        name = fresh(spec.name, self.tensors)
        self.tensors[name] = replace(spec, name=name)
        return name

    def like(self, tensor: str, suffix: str) -> str:
        """Add a dense tensor of the shape of `tensor` that is no parameter."""
        spec = self.tensors[tensor]
        return self.add(
            TensorSpec(name=tensor + suffix, dims=spec.dims, shape=spec.shape, bits=VALUE_BITS)
        )

    def part(self, tensor: str) -> str:
        """Add one contribution to the gradient of `tensor`, the whole if it has one reader."""
        shared = self.reach.readers[tensor] > 1
        count = len(self._parts.get(tensor, ()))
        return self.like(tensor, f".grad_{count}" if shared else ".grad")

    def contribute(self, tensor: str, gradient: str) -> None:
        """Count `gradient` towards that of `tensor`."""
        self._parts.setdefault(tensor, []).append(gradient)
        self._claims[gradient] += 1

    def complete(self, tensor: str) -> bool:
        """Whether every reader of `tensor` has contributed."""
        return len(self._parts[tensor]) == self.reach.readers[tensor]

    def total(self, tensor: str, name: str, phase: Phase) -> str:
        """Return the whole gradient of `tensor`, parts added up by an operator called `name`."""
        parts = tuple(self._parts.pop(tensor))
        self._claims.subtract(parts)
        if len(parts) == 1:
            return parts[0]
        return self.append(
            Op(
                name=name,
                kind=OpKind.ELEMENTWISE,
                inputs=parts,
                output=self.like(tensor, ".grad"),
                passes=len(parts) - 1,  # one addition an element for each part but the first
                source="Add",
                phase=phase,
            )
        )

    def fuse(self, gradient: str, saved: str, entries: tuple[str, ...]) -> bool:
        """Append element-wise work to the operator behind `gradient`; False if that cannot be.

        It cannot when somebody else reads or still waits for the gradient as it is, and when the
        operator computes nothing.
        """
        index = self._maker[gradient]
        maker = self.ops[index]
        shared = self._claims[gradient] > 0 or gradient in self._read
        if shared or maker.kind in (OpKind.RESHAPE, OpKind.MOVE):
            return False
        extra = () if maker.gemm is None and saved in maker.inputs else (saved,)
        self.ops[index] = replace(
            maker, inputs=(*maker.inputs, *extra), post=(*maker.post, *entries)
        )
        return True
