"""A linear model as plain data: variables keyed by domain objects, rows named by family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["At", "Beyond", "Chains", "Model", "Over", "Row", "Spread", "Variable"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Bounds of a variable; `high` None is unbounded."""

    low: float = 0
    high: float | None = 1
    integer: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """low <= sum of coefficients times variables <= high; None is unbounded.

    `family` is the constraint family the row belongs to, `label` what it limits, for messages.
    """

    family: str
    label: str
    terms: Mapping[Any, float]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Minimise the sum of costs under rows; the keys of `variables` are domain objects."""

    variables: Mapping[Any, Variable]
    rows: tuple[Row, ...]
    costs: Mapping[Any, float] = field(default_factory=dict)
