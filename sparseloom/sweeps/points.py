"""The points of a sweep, by index: a mixed-radix number over all its dimensions."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simulator.arch.load import load_arch, read_arch_file
from simulator.simulate import VERSION
from sparseloom.sweeps.spec import Machines, SamplerKind, Scalar, SweepSpec, Workload
from workloads.canonical import Spec, digest
from workloads.sparsity import parse

__all__ = ["Point", "Space", "nested", "sampled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Spec):
    """One run: a workload, its sparsity, and a machine with some parameters replaced."""

    workload: Workload
    sparsity: str
    base: str
    parameters: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    mapper: str = "exhaustive"
    minimise: str = "cycles"

    def key(self) -> str:
        """Return what the point is stored under: a digest of everything its result depends on.

        A file counts by its content, a machine by all its parameters, and the version of the
        simulator is part of it.
        """
        machine = [_base_digest(self.base), sorted(self.parameters.items())]
        return digest([VERSION, self.workload, _content(self.workload.source), self.sparsity,
                       machine, self.mapper, self.minimise])  # fmt: skip


def nested(parameters: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return dotted keys as nested mappings.

    >>> nested({"rows": 4, "dram.latency_cycles": 9})
    {'rows': 4, 'dram': {'latency_cycles': 9}}
    """
    out: dict[str, Any] = {}
    for key, value in parameters.items():
        *path, last = key.split(".")
        inner = out
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return out


@lru_cache(maxsize=64)
def _base_digest(base: str) -> str:
    file = read_arch_file(base)
    return digest([file.machine, file.values])


@lru_cache(maxsize=64)
def _content(source: str) -> str | None:
    path = Path(source)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Block:
    """The points of one machine: sizes of its dimensions, the last one fastest."""

    machines: Machines
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.sizes)


@dataclass(frozen=True, slots=True)
class Space:
    """All points of a sweep, in order of machine, parameters, sparsity, workload."""

    spec: SweepSpec
    blocks: tuple[_Block, ...]

    @classmethod
    def of(cls, spec: SweepSpec) -> "Space":
        """Return the space of `spec`. Raises ValueError for a machine or sparsity that is none."""
        tail = (len(spec.sparsities), len(spec.workloads))
        for machines in spec.archs:
            load_arch(machines.base)
        for sparsity in spec.sparsities:
            parse(sparsity)
        return cls(
            spec,
            tuple(
                _Block(m, (*(len(values) for values in m.parameters.values()), *tail))
                for m in spec.archs
            ),
        )

    def __len__(self) -> int:
        return sum(block.size for block in self.blocks)

    def point(self, index: int) -> Point:
        """Return point `index`."""
        for block in self.blocks:
            if index < block.size:
                return self._point(block, np.unravel_index(index, block.sizes))
            index -= block.size
        raise IndexError(index)

    def _point(self, block: _Block, digits: tuple[Any, ...]) -> Point:
        values = block.machines.parameters.items()
        *chosen, sparsity, workload = (int(digit) for digit in digits)
        return Point(
            workload=self.spec.workloads[workload],
            sparsity=self.spec.sparsities[sparsity],
            base=block.machines.base,
            parameters={
                name: options[at] for (name, options), at in zip(values, chosen, strict=True)
            },
            mapper=self.spec.mapper,
            minimise=self.spec.minimise,
        )


def sampled(space: Space) -> Iterator[int]:
    """Return the indices to try, in order, of a sampler that needs no results; each once."""
    sampler = space.spec.sampler
    rng = np.random.default_rng(sampler.seed)
    match sampler.kind:
        case SamplerKind.RANDOM:
            count = min(sampler.points, len(space))
            return iter(rng.choice(len(space), count, replace=False).tolist())
        case SamplerKind.LATIN_HYPERCUBE:
            return _hypercube(space, rng)
        case _:
            return iter(range(len(space)))


def _hypercube(space: Space, rng: np.random.Generator) -> Iterator[int]:
    """Spread the points evenly over the values of every dimension of every machine."""
    from scipy.stats import qmc

    first = 0
    shares = _shares(space)
    for block, count in zip(space.blocks, shares, strict=True):
        if count:
            cube = qmc.LatinHypercube(d=len(block.sizes), rng=rng).random(count)
            digits = (cube * np.array(block.sizes)).astype(np.int64)
            flat = np.ravel_multi_index(tuple(digits.T), block.sizes)
            yield from (first + index for index in dict.fromkeys(flat.tolist()))
        first += block.size


def _shares(space: Space) -> list[int]:
    """Return each machine's share of the points, by the size of its block."""
    wanted = min(space.spec.sampler.points, len(space))
    ends = np.rint(np.cumsum([block.size for block in space.blocks]) * wanted / len(space))
    return [int(share) for share in np.diff(ends, prepend=0)]
