"""Functional and handshake model of the special-function unit: the RTL's bits, cycles and counts.

All shifts to the right round to nearest, halves up, where `_rounded` says so, and truncate
elsewhere; results saturate at int16.

Softmax works with powers of two. A first reading keeps a running integer maximum and the sum of
2**(t - maximum), t = x * log2(e), beat by beat: when the maximum grows, the sum so far is shifted.
Norms scale n * x - sum(x) by 1 / sqrt(n * sum(x**2) - sum(x)**2 + n**2 * epsilon), which is
(x - mean) / sqrt(variance + epsilon) without a division; RMSNorm has 0 for sum(x).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.arch.special import (
    EXP2,
    EXPONENT_BITS,
    FORM_BITS,
    FRACTION_BITS,
    LOG2E,
    LOWEST_PEAK,
    POWER_BITS,
    PRECISE_BITS,
    RECIPROCAL,
    RSQRT,
    SIGMOID,
    SpecialJob,
    SpecialOp,
    Table,
)
from simulator.units.slot_streams import BeatSlots, SlotPassage, SlotStalls, pass_jobs

__all__ = [
    "SpecialBeats",
    "SpecialTrace",
    "beat_slots",
    "layernorm",
    "pack_rows",
    "respond",
    "rmsnorm",
    "run",
    "run_sequence",
    "silu",
    "softmax",
]

Ints = NDArray[np.int64]
Shorts = NDArray[np.int16]

SUM_BITS = POWER_BITS + 16
"""Width of softmax's sum, which is normalised to its highest bit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpecialBeats:
    """Operand beats of one job.

    `x` int16[side beats, lanes]: the rows' beats, each row's twice if the operation has two
    phases. `other` int16[top beats, lanes, 2]: the second operand, or gamma and beta, of every
    result beat.
    """

    x: Shorts
    other: Shorts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpecialTrace:
    """What the unit does: `results` int16[beats, lanes] over all jobs, cycles and counts."""

    results: Shorts
    passage: SlotPassage
    counts: dict[tuple[str, str, str], int]


def _rounded(value: Ints, bits: Ints | int) -> Ints:
    """Return value / 2**bits rounded to nearest, halves up."""
    down = np.asarray(bits, np.int64)
    result: Ints = (value + ((np.int64(1) << down) >> 1)) >> down
    return result


def _saturated(value: Ints) -> Shorts:
    return np.clip(value, -(1 << 15), (1 << 15) - 1).astype(np.int16)


def _looked_up(table: Table, at: Ints) -> Ints:
    """Return the table's piecewise linear function."""
    knots = np.array(table.knots, np.int64)
    index, low = at >> table.low_bits, at & ((1 << table.low_bits) - 1)
    found: Ints = knots[index] + _rounded((knots[index + 1] - knots[index]) * low, table.low_bits)
    return found


def _top_bit(value: Ints) -> Ints:
    """Return the place of the highest set bit of positive numbers below 2**62."""
    # frexp rounds above 2**53, which at worst finds one place more than there is.
    guess = np.frexp(value.astype(np.float64))[1].astype(np.int64) - 1
    return guess - ((np.int64(1) << guess) > value)


def silu(x: Shorts) -> Shorts:
    """Return x * sigmoid(x); sigmoid(-x) is 1 - sigmoid(x), and sigmoid is 1 from 16 on."""
    size = np.abs(x.astype(np.int64))
    limit = (len(SIGMOID.knots) - 1) << SIGMOID.low_bits
    gate = np.where(size < limit, _looked_up(SIGMOID, np.minimum(size, limit - 1)), 1 << 16)
    product = x.astype(np.int64) * np.where(x < 0, (1 << 16) - gate, gate)
    return _saturated(_rounded(product, 16))


def _powers(t: Ints, peak: Ints) -> Ints:
    """Return 2**(t - peak) with POWER_BITS fraction bits, 1 for t above the peak."""
    power = _looked_up(EXP2, t & ((1 << EXPONENT_BITS) - 1))
    return _rounded(power, np.clip(peak - (t >> EXPONENT_BITS), 0, POWER_BITS + 2))


def softmax(x: Shorts, lanes: int, first: int = 0) -> Shorts:
    """Return the softmax of each row of int16[rows, length], with 15 fraction bits.

    The sum is taken beat by beat of `lanes` elements, as the hardware does. With `first` a row
    looks at so many elements, every other at one more than the row before; the rest becomes 0.
    """
    seen = np.arange(x.shape[1]) < (first or x.shape[1]) + np.arange(len(x))[:, None]
    t = _rounded(x.astype(np.int64) * LOG2E, FRACTION_BITS + 14 - EXPONENT_BITS)
    peak = np.full((len(x), 1), LOWEST_PEAK, np.int64)
    total = np.zeros((len(x), 1), np.int64)
    for start in range(0, x.shape[1], lanes):
        beat, valid = t[:, start : start + lanes], seen[:, start : start + lanes]
        ceiling = np.where(valid, -(-beat >> EXPONENT_BITS), LOWEST_PEAK)
        higher = np.maximum(peak, ceiling.max(axis=1, keepdims=True))
        total >>= np.minimum(higher - peak, 63)
        total += np.where(valid, _powers(beat, higher), 0).sum(axis=1, keepdims=True)
        peak = higher
    place = _top_bit(total)
    fraction = ((total << (SUM_BITS - 1 - place)) >> (SUM_BITS - 16)) & ((1 << 15) - 1)
    shares = _rounded(_powers(t, peak) * _looked_up(RECIPROCAL, fraction), place + 1)
    return np.where(seen, _saturated(shares), np.int16(0))


def _norm(x: Shorts, sums: Ints, gamma: Shorts, beta: Ints, floor: int) -> Shorts:
    wide, length = x.astype(np.int64), x.shape[1]
    form = length * (wide**2).sum(axis=1, keepdims=True) - sums**2 + floor
    form = np.maximum(form, 1)
    half = _top_bit(form) >> 1
    mantissa = (form << (FORM_BITS - 2 - 2 * half)) >> (FORM_BITS - 16)
    scaled = (length * wide - sums) * _looked_up(RSQRT, mantissa)
    precise = _rounded(scaled, half + 16 - PRECISE_BITS)
    return _saturated(_rounded(precise * gamma, PRECISE_BITS) + beta)


def layernorm(x: Shorts, gamma: Shorts, beta: Shorts, floor: int = 0) -> Shorts:
    """Return (x - mean) / deviation * gamma + beta over each row of int16[rows, length].

    gamma and beta broadcast against x; `floor` is length**2 * epsilon * 2**16.
    """
    sums = x.astype(np.int64).sum(axis=1, keepdims=True)
    return _norm(x, sums, gamma, beta.astype(np.int64), floor)


def rmsnorm(x: Shorts, gamma: Shorts, floor: int = 0) -> Shorts:
    """Return x / root mean square * gamma over each row of int16[rows, length]."""
    nothing = np.zeros(1, np.int64)
    return _norm(x, nothing, gamma, nothing, floor)


def _calculated(job: SpecialJob, x: Shorts, first: Shorts, second: Shorts) -> Shorts:
    """Return the operation on rows int16[rows, length]."""
    match job.op:
        case SpecialOp.ADD:
            return _saturated(x.astype(np.int64) + first)
        case SpecialOp.MUL:
            return _saturated(_rounded(x.astype(np.int64) * first, FRACTION_BITS))
        case SpecialOp.SILU:
            return silu(x)
        case SpecialOp.SOFTMAX:
            return softmax(x, job.params.lanes, job.first)
        case SpecialOp.LAYERNORM:
            return layernorm(x, first, second, job.floor)
        case SpecialOp.RMSNORM:
            return rmsnorm(x, first, job.floor)


def _rows(job: SpecialJob, beats: Shorts) -> Shorts:
    """Return int16[rows, length, ...] of beats [rows * beats, lanes, ...], the tails cut off."""
    rows = beats.reshape(job.rows, job.beats * job.params.lanes, *beats.shape[2:])
    return rows[:, : job.length]


def _in_beats(job: SpecialJob, rows: Shorts) -> Shorts:
    """Return beats of int16[rows, length, ...], the tails filled up with zeros."""
    missing = job.beats * job.params.lanes - job.length
    padded = np.pad(rows, [(0, 0), (0, missing), *[(0, 0)] * (rows.ndim - 2)])
    return padded.reshape(job.rows * job.beats, job.params.lanes, *rows.shape[2:])


def _shapes(job: SpecialJob) -> tuple[tuple[int, ...], tuple[int, ...]]:
    results, lanes = job.rows * job.beats, job.params.lanes
    return (
        (results * (1 + job.op.two_phase), lanes),
        (results * job.op.second_operand, lanes, 2),
    )


def respond(job: SpecialJob, beats: SpecialBeats) -> Shorts:
    """Return the result beats int16[rows * beats, lanes]; lanes beyond a row's end are 0.

    Statistics are those of the first reading. Raises ValueError for beats of another shape.
    """
    for name, shape in zip(("x", "other"), _shapes(job), strict=True):
        found = getattr(beats, name)
        if found.dtype != np.int16 or found.shape != shape:
            raise ValueError(
                f"Beats need {name} int16{list(shape)}, not {found.dtype}{list(found.shape)}"
            )
    readings = beats.x.reshape(job.rows, -1, job.beats * job.params.lanes)[..., : job.length]
    x = readings[:, 0]
    if (x != readings[:, -1]).any():
        raise ValueError("Both readings of a row must bring the same elements")
    if job.op.second_operand:
        other = _rows(job, beats.other)
        return _in_beats(job, _calculated(job, x, other[..., 0], other[..., 1]))
    return _in_beats(job, _calculated(job, x, x, x))


def pack_rows(
    job: SpecialJob, x: Shorts, first: Shorts | None = None, second: Shorts | None = None
) -> SpecialBeats:
    """Return the beats of int16[rows, length]; other operands broadcast, 0 where missing."""
    single = _in_beats(job, x).reshape(job.rows, 1, job.beats, job.params.lanes)
    read = np.repeat(single, 1 + job.op.two_phase, axis=1).reshape(-1, job.params.lanes)
    if not job.op.second_operand:
        return SpecialBeats(x=read, other=np.zeros((0, job.params.lanes, 2), np.int16))
    others = [np.broadcast_to(np.int16(0) if o is None else o, x.shape) for o in (first, second)]
    return SpecialBeats(x=read, other=_in_beats(job, np.stack(others, axis=-1)))


def beat_slots(job: SpecialJob) -> BeatSlots:
    """Return the slots of a job's beats: a row's results leave with its last reading."""
    starts = job.row_slots * np.arange(job.rows, dtype=np.int64)[:, None, None]
    readings = (job.beats + job.params.turn) * np.arange(1 + job.op.two_phase)[:, None]
    side = starts + readings + np.arange(job.beats)
    results = side[:, -1].ravel()
    return BeatSlots(
        side=side.ravel(),
        top=results[: results.size * job.op.second_operand],
        out=results + job.params.latency,
    )


def run_sequence(
    jobs: Sequence[SpecialJob], beats: Sequence[SpecialBeats], stalls: SlotStalls | None = None
) -> SpecialTrace:
    """Return the trace of `jobs` run back to back; `beats` has one entry a job.

    Without `stalls` nothing holds the unit. Raises ValueError for no jobs, jobs of different
    units, or beats or delays that do not match.
    """
    if not jobs or len(jobs) != len(beats) or any(job.params != jobs[0].params for job in jobs):
        raise ValueError(
            f"Need one set of beats for each of one special-function unit's jobs, not {len(beats)}"
        )
    results = np.concatenate([respond(*pair) for pair in zip(jobs, beats, strict=True)])
    return SpecialTrace(
        results=results,
        passage=pass_jobs(jobs, beat_slots, stalls),
        counts={
            ("special", "element", "full"): sum(job.elements for job in jobs),
            ("side", "beat", "full"): sum(len(each.x) for each in beats),
            ("top", "beat", "full"): sum(len(each.other) for each in beats),
            ("out", "beat", "full"): len(results),
        },
    )


def run(job: SpecialJob, beats: SpecialBeats, stalls: SlotStalls | None = None) -> SpecialTrace:
    """Return the trace of a single job; without `stalls` nothing holds the unit."""
    return run_sequence((job,), (beats,), stalls)
