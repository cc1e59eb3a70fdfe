"""What a closed-form machine is asked, one product and its zeros, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from simulator.counts import Counts
from workloads.graph import Gemm
from workloads.sparsity import Dense, Sparsity

__all__ = ["Operand", "Packed", "Product", "Work", "edges", "ignored", "least_packed"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operand:
    """One operand of a product as the array reads it: `positions` of which `nonzeros` are not 0.

    mask, bool[g, vectors, k], says where, if the structure has no closed form; without a mask
    non-zeros are spread evenly. `stored` positions lie in memory (a convolution's image holds
    fewer than its windows).
    """

    positions: int
    nonzeros: int
    stored: int
    sparsity: Sparsity = field(default_factory=Dense)
    mask: NDArray[np.bool_] | None = None

    @property
    def density(self) -> Fraction:
        """Exact share of non-zeros."""
        return Fraction(self.nonzeros, self.positions)

    @property
    def in_memory(self) -> Fraction:
        """Positions in memory for each that the array reads."""
        return Fraction(self.stored, self.positions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """A batch of products, `gemm.groups` times activations (m, k) by weights (k, n)."""

    gemm: Gemm
    act: Operand
    weight: Operand

    @property
    def outputs(self) -> int:
        """Results of all groups."""
        return self.gemm.groups * self.gemm.m * self.gemm.n

    @property
    def weight_pairs(self) -> int:
        """Products whose weight is not zero."""
        return self.gemm.m * self.weight.nonzeros

    @property
    def pairs(self) -> int:
        """Products of two non-zeros: exact between masks, else their expected number, rounded."""
        if self.act.mask is not None and self.weight.mask is not None:
            acts, weights = (
                m.sum(axis=1, dtype=np.int64) for m in (self.act.mask, self.weight.mask)
            )
            return int((acts * weights).sum())
        per_position = self.gemm.groups * self.gemm.k
        return round(Fraction(self.act.nonzeros * self.weight.nonzeros, per_position))


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Bits of a tensor as it travels: values, and metadata beside them."""

    value_bits: int
    metadata_bits: int = 0

    @property
    def bits(self) -> int:
        """All bits."""
        return self.value_bits + self.metadata_bits

    def times(self, share: Fraction | int) -> "Packed":
        """Return `share` times as many bits, fractions rounded up."""
        return Packed(
            value_bits=-int(-self.value_bits * share // 1),
            metadata_bits=-int(-self.metadata_bits * share // 1),
        )

    def events(self, component: str, action: str) -> dict[tuple[str, str, str], int]:
        """Return these bits as counted events."""
        events = {(component, action, "full"): self.value_bits}
        if self.metadata_bits:
            events[component, action, "metadata"] = self.metadata_bits
        return events


def least_packed(positions: int, values: int, bits: int) -> Packed:
    """Return `values` with one bit a position, or all positions plain if that is no larger."""
    if bits * positions <= bits * values + positions:
        return Packed(value_bits=bits * positions)
    return Packed(value_bits=bits * values, metadata_bits=positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A product on a machine: array `cycles`, of which multipliers work in `busy`.

    `act` and `weight` are the operands as they lie in memory; `counts` the events of the array
    and its buffers, memory traffic apart. `macs` are effectual products. `ignored` are
    sentences about zeros that buy no time.
    """

    cycles: int
    busy: int
    macs: int
    act: Packed
    weight: Packed
    counts: Counts
    detail: Mapping[str, str]
    ignored: tuple[str, ...] = ()


def ignored(operand: Operand, kind: str, why: str) -> tuple[str, ...]:
    """Return the sentence that the zeros of `operand`, if its structure has any, buy no time."""
    if isinstance(operand.sparsity, Dense):
        return ()
    return (f"{operand.sparsity} {kind} run at dense time, since the machine {why}",)


def edges(extent: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return (size, count) of the whole tiles over `extent` and of the ragged one.

    >>> edges(10, 4)
    ((4, 2), (2, 1))
    """
    full, rest = divmod(extent, size)
    return tuple((s, c) for s, c in ((size, full), (rest, 1)) if s and c)
