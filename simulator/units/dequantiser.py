"""Functional and handshake model of the dequantiser: the RTL's bits, cycles and counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.dequantiser import SHIFT_BITS, DequantiserJob
from simulator.units.slot_streams import BeatSlots, SlotPassage, SlotStalls, pass_jobs

__all__ = [
    "DequantiserBeats",
    "DequantiserTrace",
    "beat_slots",
    "dequantise",
    "pack_codes",
    "respond",
    "run",
    "run_sequence",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DequantiserBeats:
    """Operand beats of one job.

    `words` uint8[words, lanes], a word's lowest byte first; `scale` and `shift` uint8[scales].
    """

    words: NDArray[np.uint8]
    scale: NDArray[np.uint8]
    shift: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DequantiserTrace:
    """What the dequantiser does: `weights` int8[beats, lanes] over all jobs, cycles and counts."""

    weights: NDArray[np.int8]
    passage: SlotPassage
    counts: dict[tuple[str, str, str], int]


def dequantise(
    codes: NDArray[np.int8], scale: NDArray[np.uint8], shift: NDArray[np.uint8]
) -> NDArray[np.int8]:
    """Return int8 weights of two's complement codes; scale and shift broadcast against them."""
    down = shift.astype(np.int64)
    scaled = codes.astype(np.int64) * scale + ((np.int64(1) << down) >> 1)
    weights: NDArray[np.int8] = np.clip(scaled >> down, -128, 127).astype(np.int8)
    return weights


def pack_codes(job: DequantiserJob, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return the words of int8[beats, lanes] codes, lane 0 of beat 0 in the lowest bits.

    Raises ValueError for another shape or a code that does not fit its bits.
    """
    if codes.shape != (job.beats, job.params.lanes):
        raise ValueError(
            f"Codes must be [{job.beats}, {job.params.lanes}], not {list(codes.shape)}"
        )
    half = 1 << (job.bits - 1)
    if codes.min() < -half or codes.max() >= half:
        raise ValueError(
            f"Codes of {job.bits} bits must be {-half} to {half - 1}, not {codes.min()} to "
            f"{codes.max()}"
        )
    bits = (codes.ravel()[:, None] >> np.arange(job.bits)) & 1
    padded = np.zeros(job.words * job.params.lanes * 8, np.uint8)
    padded[: bits.size] = bits.ravel()
    return np.packbits(padded, bitorder="little").reshape(job.words, job.params.lanes)


def _unpacked(job: DequantiserJob, words: NDArray[np.uint8]) -> NDArray[np.int8]:
    count = job.beats * job.params.lanes
    bits = np.unpackbits(words.ravel(), bitorder="little")[: count * job.bits].reshape(count, -1)
    place = 1 << np.arange(job.bits)
    place[-1] = -place[-1]
    return (bits @ place).astype(np.int8).reshape(job.beats, -1)


def respond(job: DequantiserJob, beats: DequantiserBeats) -> NDArray[np.int8]:
    """Return the weights int8[beats, lanes]; raises ValueError for beats of another shape."""
    shapes = {
        "words": (job.words, job.params.lanes),
        "scale": (job.scales,),
        "shift": (job.scales,),
    }
    for name, shape in shapes.items():
        found = getattr(beats, name)
        if found.dtype != np.uint8 or found.shape != shape:
            raise ValueError(
                f"Beats need {name} uint8{list(shape)}, not {found.dtype}{list(found.shape)}"
            )
    if beats.shift.max() >> SHIFT_BITS:
        raise ValueError(f"Shifts must be below {1 << SHIFT_BITS}, not {beats.shift.max()}")
    which = np.arange(job.beats) // job.scale_beats
    return dequantise(
        _unpacked(job, beats.words), beats.scale[which, None], beats.shift[which, None]
    )


def beat_slots(job: DequantiserJob) -> BeatSlots:
    """Return the slots of a job's words, scales and weights."""
    return BeatSlots(
        side=job.word_slots,
        top=np.arange(job.scales, dtype=np.int64) * job.scale_beats,
        out=np.arange(job.beats, dtype=np.int64) + job.params.latency,
    )


def run_sequence(
    jobs: Sequence[DequantiserJob],
    beats: Sequence[DequantiserBeats],
    stalls: SlotStalls | None = None,
) -> DequantiserTrace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Without `stalls` nothing holds it. Raises ValueError for no jobs, jobs of different
    dequantisers, or beats or delays that do not match.
    """
    if not jobs or len(jobs) != len(beats) or any(job.params != jobs[0].params for job in jobs):
        raise ValueError(
            f"Need one set of beats for each of one dequantiser's jobs, not {len(beats)}"
        )
    weights = np.concatenate([respond(*pair) for pair in zip(jobs, beats, strict=True)])
    return DequantiserTrace(
        weights=weights,
        passage=pass_jobs(jobs, beat_slots, stalls),
        counts={
            ("dequantiser", "multiply", "full"): weights.size,
            ("side", "beat", "full"): sum(job.words for job in jobs),
            ("top", "beat", "full"): sum(job.scales for job in jobs),
            ("out", "beat", "full"): len(weights),
        },
    )


def run(
    job: DequantiserJob, beats: DequantiserBeats, stalls: SlotStalls | None = None
) -> DequantiserTrace:
    """Return the trace of a single job; without `stalls` nothing holds it."""
    return run_sequence((job,), (beats,), stalls)
