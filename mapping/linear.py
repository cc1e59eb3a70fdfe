"""A linear model as plain data: variables keyed by domain objects, rows named by family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Model", "Row", "Variable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Bounds of a variable; `high` None is unbounded."""

    low: float = 0
    high: float | None = 1
    integer: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """low <= sum of coefficients times variables <= high; None is unbounded.

    `family` is the constraint family the row belongs to, `label` what it limits, for messages that
    name them.
    """

    terms: Mapping[Any, float]
    low: float | None = None
    high: float | None = None
    family: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Minimise the sum of costs under rows; the keys of `variables` are domain objects."""

    variables: Mapping[Any, Variable]
    rows: tuple[Row, ...]
    costs: Mapping[Any, float] = field(default_factory=dict)
