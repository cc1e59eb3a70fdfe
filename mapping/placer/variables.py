"""What the variables of the placer's programs stand for."""

from dataclasses import dataclass

__all__ = ["At", "Beyond", "Chains", "Over", "Spread"]


@dataclass(frozen=True, slots=True)
class At:
    """1 if the unit is in the slot."""

    unit: str
    slot: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """1 if the unit is right of (above) the line."""

    unit: str
    line: int


@dataclass(frozen=True, slots=True)
class Spread:
    """1 if the net crosses the line."""

    net: int
    line: int


@dataclass(frozen=True, slots=True)
class Chains:
    """Number of chains of a length in one column of an SLR."""

    slr: int
    column: int
    length: int


@dataclass(frozen=True, slots=True)
class Over:
    """By how much the limit of that label is exceeded, where a family is relaxed."""

    label: str
