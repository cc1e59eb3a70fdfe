"""The dequantiser: weights of 3, 4, 5 or 8 bits, packed without gaps, to int8 times a scale.

    weight = saturated((code * scale + half) >> shift),   half = 2**shift / 2

A code is two's complement; every `scale_beats` beats share a scale (0 to 255) and a shift (0 to
15), that is a factor of scale / 2**shift; halves are rounded up, sums saturate at -128 and 127.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workloads.canonical import Spec

__all__ = ["CODE_BITS", "SCALE_BITS", "SHIFT_BITS", "DequantiserJob", "DequantiserParams"]

CODE_BITS: Final = (3, 4, 5, 8)
"""Widths of codes."""

SCALE_BITS: Final = 8
SHIFT_BITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DequantiserParams(Spec):
    """A dequantiser of `lanes` weights a slot; it takes words of 8 * `lanes` bits."""

    lanes: int

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError(f"Dequantiser lanes must be at least 1, not {self.lanes}")

    @property
    def latency(self) -> int:
        """Slots from a beat's last word to its weights offered: product, then rounding."""
        return 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DequantiserJob(Spec):
    """`beats` beats of weights with codes of `bits`; a scale and shift for each `scale_beats`.

    Codes follow each other without gaps over the words of a job; bits left in its last word are
    dropped.
    """

    params: DequantiserParams
    bits: int
    beats: int
    scale_beats: int

    def __post_init__(self) -> None:
        if self.bits not in CODE_BITS:
            allowed = ", ".join(map(str, CODE_BITS))
            raise ValueError(f"Codes must have one of {allowed} bits, not {self.bits}")
        for name in ("beats", "scale_beats"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"A dequantiser job needs {name} of at least 1, not {getattr(self, name)}"
                )

    @property
    def words(self) -> int:
        """Words taken."""
        return -(-self.beats * self.bits // 8)

    @property
    def scales(self) -> int:
        """Pairs of scale and shift taken."""
        return -(-self.beats // self.scale_beats)

    @property
    def slots(self) -> int:
        """Slots from the first beat to the next job's: one a beat."""
        return self.beats

    @property
    def cycles(self) -> int:
        """Cycles from the first word taken to the last weights handed over, without stalls."""
        return self.beats + self.params.latency

    @property
    def word_slots(self) -> NDArray[np.int64]:
        """The slot of each word: that of the first beat which reaches into it."""
        return np.arange(self.words, dtype=np.int64) * 8 // self.bits
