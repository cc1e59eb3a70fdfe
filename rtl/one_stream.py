"""Bench for units with a job, one operand stream and a result stream.

They speak the array's testbench protocol (`rtl.cosim.play`) with a second operand stream that
has no beats.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from amaranth.hdl import Const, Elaboratable
from amaranth.lib import data, stream
from numpy.typing import NDArray

from rtl.cosim.play import Observation, play
from rtl.cosim.pysim import observe
from rtl.cosim.stimulus import Stimulus
from rtl.unit import Unit

__all__ = ["lane_words", "observed", "one_stream", "word"]

SLACK_CYCLES = 80
"""Cycles beyond jobs, beats and delays after which a silent unit counts as hung."""


class _OneStream(Elaboratable):
    """A unit as the array's testbench sees it: with a second operand stream, never ready."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.top = stream.Signature(1).create(path=("top",))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unit, name)

    def elaborate(self, platform: object) -> Unit:
        return self.unit


def word(layout: data.Layout, value: Any) -> int:
    """Return a structured constant as the word of a port."""
    return int(Const.cast(layout.const(value)).value)


def lane_words(fields: Sequence[tuple[NDArray[Any], int]]) -> tuple[int, ...]:
    """Return one word a beat from the fields of a lane, lowest first, lane 0 lowest.

    A field is its unsigned values [beats, lanes] and its width in bits.
    """
    stride = sum(width for _, width in fields)
    words = [0] * len(fields[0][0])
    offset = 0
    for values, width in fields:
        for beat, row in enumerate(values.tolist()):
            words[beat] |= sum(value << (lane * stride + offset) for lane, value in enumerate(row))
        offset += width
    return tuple(words)


def one_stream(
    jobs: Sequence[int], side: Sequence[int], side_delays: NDArray[Any], out_delays: NDArray[Any]
) -> Stimulus:
    """Return a stimulus from port words and delays in cycles; jobs are offered at once."""
    waits = int(side_delays.sum() + out_delays.sum())
    return Stimulus(
        jobs=tuple(jobs),
        side=tuple(side),
        top=(),
        job_delays=(0,) * len(jobs),
        side_delays=tuple(side_delays.tolist()),
        top_delays=(),
        out_delays=tuple(out_delays.tolist()),
        limit_cycles=SLACK_CYCLES * len(jobs) + len(side) + len(out_delays) + waits,
    )


def observed(unit: Unit, stimuli: Iterable[Stimulus]) -> Iterator[Observation]:
    """Run every stimulus on one elaborated unit, resetting it before each."""
    dut: Any = _OneStream(unit)
    return observe(dut, map(play, stimuli))
