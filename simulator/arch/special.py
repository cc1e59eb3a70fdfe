"""The special-function unit: softmax, norms, SiLU and element-wise sums and products.

Numbers are int16 with 8 fraction bits (-128 to 127.996), but softmax's results, which have 15.
Softmax and norms read a row twice: the first time for its statistics. Everything is integer
arithmetic with tables; `simulator.units.special` states it exactly.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from workloads.canonical import Spec

__all__ = [
    "ELEMENT_BITS",
    "EXP2",
    "EXPONENT_BITS",
    "FORM_BITS",
    "FRACTION_BITS",
    "LOG2E",
    "LOWEST_PEAK",
    "MAX_LENGTH",
    "POWER_BITS",
    "PRECISE_BITS",
    "RECIPROCAL",
    "RSQRT",
    "SIGMOID",
    "SpecialJob",
    "SpecialOp",
    "SpecialParams",
    "Table",
    "special_cycles",
]

FRACTION_BITS: Final = 8
"""Fraction bits of operands and, but for softmax, of results."""

ELEMENT_BITS: Final = 16

MAX_LENGTH: Final = 1 << 15
"""Longest row; sums of squares then fit 45 bits, and their product with the length 60."""

EXPONENT_BITS: Final = 12
"""Fraction bits of softmax's t = x * log2(e)."""

POWER_BITS: Final = 18
"""Fraction bits of softmax's powers of two and of their sum."""

LOWEST_PEAK: Final = -256
"""Below every integer maximum of softmax: t is -184.7 at least."""

FORM_BITS: Final = 62
"""Width of a norm's length**2 * (variance + epsilon)."""

PRECISE_BITS: Final = 10
"""Fraction bits of a norm's result before gamma."""

LOG2E: Final = round(math.log2(math.e) * (1 << 14))
"""log2(e) with 14 fraction bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Spec):
    """Knots of a piecewise linear function: knot i at x = i * 2**low_bits.

    Between knots: knot + ((next - knot) * low + half) >> low_bits.
    """

    knots: tuple[int, ...]
    low_bits: int


def _rsqrt(index: int) -> int:
    """Return 2**16 / sqrt(index / 32), held at 1 below 1, where nobody looks."""
    return round((1 << 16) / math.sqrt(max(index, 32) / 32))


EXP2: Final = Table(
    knots=tuple(round((1 << POWER_BITS) * 2 ** (i / 64)) for i in range(65)),
    low_bits=EXPONENT_BITS - 6,
)
"""2**f of a fraction f of EXPONENT_BITS, with POWER_BITS fraction bits."""

RECIPROCAL: Final = Table(
    knots=tuple(round((1 << 16) / (1 + i / 64)) for i in range(65)), low_bits=9
)
"""1 / (1 + f) of a fraction f with 15 bits, with 16 fraction bits."""

RSQRT: Final = Table(knots=tuple(_rsqrt(i) for i in range(129)), low_bits=9)
"""1 / sqrt(v), 1 <= v < 4 with 14 fraction bits, with 16 fraction bits."""

SIGMOID: Final = Table(
    knots=tuple(round((1 << 16) / (1 + math.exp(-i / 8))) for i in range(129)), low_bits=5
)
"""Sigmoid of 0 <= x < 16 with 8 fraction bits, with 16 fraction bits."""


class SpecialOp(IntEnum):
    """What the unit does; the number is its code on the job port."""

    ADD = 0
    MUL = 1
    SILU = 2
    SOFTMAX = 3
    LAYERNORM = 4
    RMSNORM = 5

    @property
    def two_phase(self) -> bool:
        """Whether a row is read twice."""
        return self in (SpecialOp.SOFTMAX, SpecialOp.LAYERNORM, SpecialOp.RMSNORM)

    @property
    def is_norm(self) -> bool:
        """Whether a row is scaled by its standard deviation or root mean square."""
        return self in (SpecialOp.LAYERNORM, SpecialOp.RMSNORM)

    @property
    def second_operand(self) -> bool:
        """Whether every result beat takes a beat of the other stream too."""
        return self not in (SpecialOp.SILU, SpecialOp.SOFTMAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialParams(Spec):
    """A unit of `lanes` elements a slot."""

    lanes: int = 16

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError(f"Special-function lanes must be at least 1, not {self.lanes}")

    @property
    def latency(self) -> int:
        """Slots from an element to its result offered, whatever the operation."""
        return 6

    @property
    def turn(self) -> int:
        """Slots between a row's two readings, until its statistics are there."""
        return 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialJob(Spec):
    """`rows` rows of `length` elements; norms add `epsilon` / 2**16 to the variance.

    Softmax may look at fewer of them: at `first` of the first row, one more of every other.
    """

    params: SpecialParams
    op: SpecialOp
    length: int
    rows: int
    epsilon: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_LENGTH:
            raise ValueError(
                f"A special-function row must have 1 to {MAX_LENGTH} elements, not {self.length}"
            )
        if self.rows < 1:
            raise ValueError(f"A special-function job needs at least 1 row, not {self.rows}")
        if not 0 <= self.epsilon < 1 << 16:
            raise ValueError(f"Epsilon must be 0 to {(1 << 16) - 1} of 2**16, not {self.epsilon}")
        most = self.length - self.rows + 1
        if self.first and not (self.op is SpecialOp.SOFTMAX and 0 < self.first <= most):
            raise ValueError(
                f"Rows that grow are softmax's, the first of at most {most} elements, not "
                f"{self.op.name.lower()}'s with {self.first}"
            )

    @property
    def beats(self) -> int:
        """Beats of a row."""
        return -(-self.length // self.params.lanes)

    @property
    def elements(self) -> int:
        """Elements of all rows that are looked at."""
        if not self.first:
            return self.rows * self.length
        return self.rows * self.first + self.rows * (self.rows - 1) // 2

    @property
    def floor(self) -> int:
        """Epsilon as it is added to length**2 times the variance."""
        return self.epsilon * self.length**2

    @property
    def row_slots(self) -> int:
        """Slots of a row: its beats, or twice its beats and the turn between."""
        return 2 * self.beats + self.params.turn if self.op.two_phase else self.beats

    @property
    def slots(self) -> int:
        """Slots from the first element to the next job's."""
        return self.rows * self.row_slots

    @property
    def cycles(self) -> int:
        """Cycles from the first element taken to the last result handed over, without stalls."""
        return self.slots + self.params.latency


def special_cycles(params: SpecialParams, op: SpecialOp, length: int, rows: int) -> int:
    """Return the cycles of `rows` rows without stalls, the last result handed over included."""
    return SpecialJob(params=params, op=op, length=length, rows=rows).cycles
