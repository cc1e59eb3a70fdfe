"""SORE: the streaming top-N-of-M selector (SAT, arXiv 2309.13015), and its job.

SORE runs beside the array on values that have just been made: it keeps the N of every M
consecutive values that have the largest magnitude, ties keeping the lower index, and hands them
over as the (value, index) pairs the array reads. It takes one value a lane and cycle, and hands
a group over while it takes the next one.
"""

from dataclasses import dataclass
from enum import StrEnum

from workloads.canonical import Spec

__all__ = ["SoreFormat", "SoreJob", "SoreParams", "sore_cycles"]

MAX_GROUP = 64
"""Largest group length the selector is built for; the array's PEs have the same limit."""


class SoreFormat(StrEnum):
    """What the selected values are."""

    FP16 = "fp16"
    INT8 = "int8"

    @property
    def value_bits(self) -> int:
        """Width of a value."""
        return 16 if self is SoreFormat.FP16 else 8

    @property
    def magnitude_bits(self) -> int:
        """Width of a magnitude: fp16 without its sign; int8 needs all 8 bits for -128."""
        return 15 if self is SoreFormat.FP16 else 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SoreParams(Spec):
    """Parameters of the selector: `lanes` values a cycle, N up to `max_n` of M up to `max_m`.

    N and M are run-time settings of each job. Magnitudes of fp16 are ordered as their 15 lower
    bits: both zeros are equal, and a NaN outranks infinity, so that it is never dropped in favour
    of a number.
    """

    lanes: int
    max_n: int
    max_m: int
    value: SoreFormat = SoreFormat.FP16

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError(f"SORE lanes must be at least 1, not {self.lanes}")
        if not 1 <= self.max_m <= MAX_GROUP:
            raise ValueError(f"SORE max_m must be 1 to {MAX_GROUP}, not {self.max_m}")
        if not 1 <= self.max_n <= self.max_m:
            raise ValueError(f"SORE max_n must be 1 to max_m = {self.max_m}, not {self.max_n}")

    @property
    def index_bits(self) -> int:
        """Width of an index inside a group; 0 when groups hold one position."""
        return (self.max_m - 1).bit_length()

    def selects(self, n: int, m: int) -> bool:
        """Whether the selector can keep n of every m values."""
        return 1 <= n <= min(m, self.max_n) and m <= self.max_m


@dataclass(frozen=True, slots=True, kw_only=True)
class SoreJob(Spec):
    """`passes` columns of `length` values a lane, in groups of `group` of which `kept` stay.

    A column ends with a ragged group when `group` does not divide `length`; of its q values
    min(N, q) stay, and the rest of its N pairs are value 0, index 0.
    """

    params: SoreParams
    kept: int
    group: int
    length: int
    passes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.group <= self.params.max_m:
            raise ValueError(
                f"Group length M must be 1 to {self.params.max_m} on this SORE, not {self.group}"
            )
        most = min(self.group, self.params.max_n)
        if not 1 <= self.kept <= most:
            raise ValueError(
                f"Kept values N must be 1 to {most} for M = {self.group} on this SORE, "
                f"not {self.kept}"
            )
        if self.length < 1 or self.passes < 1:
            raise ValueError(
                f"A job needs length and passes of at least 1, not {self.length} and {self.passes}"
            )

    @property
    def groups_per_pass(self) -> int:
        """Groups of one column, a ragged one included."""
        return -(-self.length // self.group)

    @property
    def ragged(self) -> int:
        """Values in a column's last group if fewer than `group`, else 0."""
        return self.length % self.group

    @property
    def groups(self) -> int:
        """Groups of each lane."""
        return self.passes * self.groups_per_pass

    @property
    def in_beats(self) -> int:
        """Beats taken."""
        return self.passes * self.length

    @property
    def out_beats(self) -> int:
        """Beats handed over: N a group."""
        return self.groups * self.kept

    @property
    def cycles(self) -> int:
        """Cycles from the first beat taken to the last one handed over, without stalls.

        A group takes as long as its values arrive, or as the group before it takes to leave if
        that is longer: only where a ragged group is shorter than N. The last group leaves in N
        more cycles.
        """
        wait = max(self.kept - self.ragged, 0) if self.ragged else 0
        # Nothing leaves before the very first group.
        waits = self.passes - (self.groups_per_pass == 1)
        return self.in_beats + waits * wait + self.kept


def sore_cycles(params: SoreParams, groups: int, m: int, n: int) -> int:
    """Return the cycles SORE needs for `groups` whole groups of `m` values of a tensor.

    The lanes share the groups; the count runs from the first beat taken to the last one handed
    over, without stalls: ceil(groups / lanes) * m + n. Raises ValueError for no groups, or m and
    n beyond the selector's limits. A tensor with ragged groups is a `SoreJob`.
    """
    if groups < 1:
        raise ValueError(f"A tensor has at least 1 group, not {groups}")
    rounds = -(-groups // params.lanes)
    return SoreJob(params=params, kept=n, group=m, length=rounds * m).cycles
