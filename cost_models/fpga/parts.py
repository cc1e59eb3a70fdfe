"""Resources of machines and of their synthesised parts, added up by counts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from simulator.arch import BufferParams
from workloads.canonical import Spec

__all__ = ["LANES", "URAM_BYTES", "VECTOR_UNIT", "FpgaResources", "buffers", "smallest"]

URAM_BYTES = 288 * 1024 // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaResources(Spec):
    """Resources of a machine or a part: RAMB18 halves, and LUTs that are memories included."""

    dsp: int = 0
    bram: int = 0
    uram: int = 0
    lut: int = 0
    ff: int = 0

    def __add__(self, other: "FpgaResources") -> "FpgaResources":
        """Return both together."""
        return self._each(lambda name, value: value + getattr(other, name))

    def times(self, count: int, per: int = 1) -> "FpgaResources":
        """Return what `count` take if `per` of them take this, every figure rounded up."""
        return self._each(lambda _, value: -(-value * count // per))

    def _each(self, of: Callable[[str, int], int]) -> "FpgaResources":
        return FpgaResources(**{f.name: of(f.name, getattr(self, f.name)) for f in fields(self)})


LANES = 4
"""Lanes of what is synthesised by lanes."""

VECTOR_UNIT = FpgaResources(lut=13270, ff=255, dsp=4)
"""A vector unit of so many lanes."""


def buffers(*held: BufferParams) -> FpgaResources:
    """Return what buffers take: UltraRAMs of 36 KiB, as many as hold them (UG573)."""
    return FpgaResources(uram=sum(-(-each.capacity_bytes // URAM_BYTES) for each in held))


def smallest(able: Iterable[FpgaResources], part: str) -> FpgaResources:
    """Return the part with the fewest LUTs. Raises ValueError, naming `part`, if there is none."""
    found = min(able, key=lambda resources: (resources.lut, resources.ff), default=None)
    if found is None:
        raise ValueError(f"No {part} was synthesised")
    return found
