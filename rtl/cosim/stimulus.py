"""What the array does at one point: jobs, beats and stalls, drawn at random, and as port words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from amaranth.hdl import Const
from amaranth.lib import data
from numpy.typing import NDArray

from rtl import shapes
from rtl.cosim.play import QUIET_CYCLES, Stimulus, feed
from simulator.arch import ArrayJob, Dataflow, NMArray, Precision
from simulator.arch.nm_job import fold_rows, overhead_slots
from simulator.units.nm_array import Stalls
from simulator.units.nm_beats import Beats, Lanes, gemm_job, pack

__all__ = ["HALF_CORNERS", "Point", "random_point", "stimulus"]

BUDGET_SLOTS = 150
"""Slots of a random job on a small array."""

HALF_INFINITY = 0x7C00
"""Bits of positive infinity in fp16; all finite numbers lie below."""

HALF_CORNERS = (
    *(0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF),
    *(0x7C00, 0xFC00, 0x7E00, 0xFD01),
)
"""Bits of zeros, subnormals, one, the largest numbers, infinities, quiet and signalling NaN."""

SLACK_CYCLES = 64
"""Cycles beyond the worst case after which a silent array counts as hung."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[ArrayJob, ...]
    beats: tuple[Beats, ...]
    stalls: Stalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.dataflow} {job.kept}:{job.group} length {job.length} folds {job.folds}"
            for job in self.jobs
        )
        held = sum(int(d.sum()) for d in (self.stalls.side, self.stalls.top, self.stalls.out))
        return f"{jobs}; {held} cycles of delay"


def _words(bits: NDArray[np.uint8]) -> tuple[int, ...]:
    packed = np.packbits(bits.reshape(len(bits), -1), axis=1, bitorder="little")
    return tuple(int.from_bytes(row.tobytes(), "little") for row in packed)


def _put(bits: NDArray[np.uint8], offset: int, width: int, value: NDArray[np.int64]) -> None:
    """Write `width` bits of value[beats, lanes] at `offset` of every lane."""
    if width:
        field = (value[..., None] >> np.arange(width)) & 1
        bits[..., offset : offset + width] = field


def _bits(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return operands as integers whose low bits are those on the port."""
    raw = values.view(np.uint16) if values.dtype == np.float16 else values
    return raw.astype(np.int64)


def _lane_words(
    lane: data.StructLayout, lanes: Lanes, items: data.ArrayLayout, offset: int
) -> tuple[int, ...]:
    """Return one word a beat; `items` lie at `offset` of each lane."""
    beats, count, used = lanes.value.shape
    bits = np.zeros((beats, count, lane.size), np.uint8)
    bits[..., lane["valid"].offset] = lanes.valid
    stride = items[1].offset if items.length > 1 else 0
    element = items.elem_shape
    pair = isinstance(element, data.StructLayout)
    width = element["value"].width if pair else items[0].width
    for item in range(used):
        start = offset + item * stride
        _put(bits, start, width, _bits(lanes.value)[..., item])
        if pair and lanes.index is not None:
            field = element["index"]
            index = lanes.index[..., item].astype(np.int64)
            _put(bits, start + field.offset, field.width, index)
    return _words(bits)


def _side_words(job: ArrayJob, lanes: Lanes) -> tuple[int, ...]:
    lane = shapes.side_lane(job.arch)
    kind = "kept" if job.dataflow is Dataflow.IS else "group"
    items = shapes.kept_pairs(job.arch) if kind == "kept" else shapes.candidates(job.arch)
    return _lane_words(lane, lanes, items, lane["data"].offset)


def _top_words(job: ArrayJob, lanes: Lanes) -> tuple[int, ...]:
    lane = shapes.top_lane(job.arch)
    return _lane_words(lane, lanes, shapes.kept_pairs(job.arch), lane["kept"].offset)


def _job_word(job: ArrayJob) -> int:
    fields: dict[int | str, Any] = {
        "mode": shapes.Mode.of(job.dataflow),
        "kept": job.kept,
        "group": job.group,
        "length": job.length,
        "folds": job.folds,
    }
    return int(Const.cast(shapes.job(job.arch).const(fields)).value)


def stimulus(point: Point) -> Stimulus:
    """Return the point as port words."""
    pairs = tuple(zip(point.jobs, point.beats, strict=True))
    stalls = point.stalls
    delays = int(stalls.side.sum() + stalls.top.sum() + stalls.out.sum())
    slots = sum(job.slots for job in point.jobs) + point.jobs[-1].drain_slots
    return Stimulus(
        feeds={
            "job": feed([_job_word(job) for job in point.jobs]),
            "side": feed(
                [word for job, beat in pairs for word in _side_words(job, beat.side)],
                stalls.side.tolist(),
            ),
            "top": feed(
                [word for job, beat in pairs for word in _top_words(job, beat.top)],
                stalls.top.tolist(),
            ),
        },
        out_delays=tuple(stalls.out.tolist()),
        limit_cycles=slots + delays + SLACK_CYCLES,
        # The missing vectors of a ragged last block take their slots although no result follows.
        quiet_cycles=QUIET_CYCLES + point.jobs[-1].arch.interleave - 1,
    )


def _halves(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Draw fp16 numbers: moderate ones, of any magnitude, or moderate with some corners.

    Sums of any magnitude round at every addition and cancel; infinities and NaNs, which only the
    corners hold, must spread to exactly the sums that meet them.
    """
    kind = rng.choice(["moderate", "any", "corners"], p=[0.4, 0.3, 0.3])
    moderate = rng.standard_normal(shape).astype(np.float16)
    if kind == "any":
        bits = rng.integers(0, HALF_INFINITY, shape, dtype=np.uint16)
        return np.copysign(bits.view(np.float16), moderate)
    if kind == "corners":
        corners = np.array(HALF_CORNERS, np.uint16).view(np.float16)
        share = rng.choice([0.01, 0.2])
        return np.where(rng.random(shape) < share, rng.choice(corners, shape), moderate)
    return moderate


def _numbers(rng: np.random.Generator, arch: NMArray, shape: tuple[int, ...]) -> NDArray[Any]:
    match arch.precision:
        case Precision.INT8:
            return rng.integers(-128, 128, shape, dtype=np.int8)
        case Precision.FP16:
            return _halves(rng, shape)
        case _:
            assert_never(arch.precision)


def _operands(
    rng: np.random.Generator, job: ArrayJob, m: int, k: int, n: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw operands whose weight obeys N:M, at a density from none to all of the kept."""
    act, weight = (_numbers(rng, job.arch, shape) for shape in ((m, k), (k, n)))
    rank = rng.random((-(-k // job.group), job.group, n)).argsort(axis=1)
    keep = rank.reshape(-1, n)[:k] < job.kept
    density = rng.choice([0.0, 0.3, 0.8, 1.0], p=[0.1, 0.2, 0.3, 0.4])
    there = keep & (rng.random((k, n)) < density)
    return act, np.where(there, weight, weight.dtype.type(0))


def _littered(rng: np.random.Generator, arch: NMArray, lanes: Lanes) -> Lanes:
    """Sometimes drop lanes at random, and fill invalid ones with noise nobody may look at."""
    dropped = rng.random(lanes.valid.shape) < rng.choice([0.0, 0.2], p=[0.8, 0.2])
    valid = lanes.valid & ~dropped
    value = np.where(valid[..., None], lanes.value, _numbers(rng, arch, lanes.value.shape))
    return Lanes(valid=valid, value=value, index=lanes.index)


def _size(rng: np.random.Generator, most: int, *likely: int) -> int:
    """Draw 1, one of the `likely` sizes, or anything up to `most`."""
    choices = (1, *likely, int(rng.integers(1, most, endpoint=True)), most)
    return choices[int(rng.integers(len(choices)))]


def _random_job(
    arch: NMArray, rng: np.random.Generator, budget_slots: int
) -> tuple[ArrayJob, Beats]:
    dataflow = list(Dataflow)[int(rng.integers(len(Dataflow)))]
    group = _size(rng, arch.max_m, arch.max_m)
    kept = _size(rng, group)
    tall = arch.rows * group if dataflow is not Dataflow.OS else group
    vectors = max(4, 2 * arch.interleave)
    wide = {
        Dataflow.OS: fold_rows(arch),
        Dataflow.WS: vectors,
        Dataflow.IS: arch.cols,
    }[dataflow]
    while True:
        k = _size(rng, 10 * group if dataflow is Dataflow.OS else 3 * tall, tall)
        m = _size(rng, 3 * wide, wide)
        n = _size(rng, 3 * (vectors if dataflow is Dataflow.IS else arch.cols), arch.cols)
        job = gemm_job(arch, dataflow, m=m, k=k, n=n, kept=kept, group=group)
        if job.slots <= budget_slots:
            act, weight = _operands(rng, job, m, k, n)
            beats = pack(job, act, weight)
            return job, Beats(
                side=_littered(rng, arch, beats.side), top=_littered(rng, arch, beats.top)
            )


def _random_stalls(jobs: Sequence[ArrayJob], rng: np.random.Generator) -> Stalls:
    """Draw no stalls, a steady back-pressure, or random stalls of all three streams."""
    kind = int(rng.integers(5))
    quiet = Stalls.none(jobs)
    if kind == 0:
        return quiet
    if kind == 1:
        every = int(rng.integers(1, 4))
        return Stalls(side=quiet.side, top=quiet.top, out=quiet.out + every)
    rate, longest = float(rng.choice([0.05, 0.3, 0.9])), int(rng.integers(1, 7))
    return Stalls.random(jobs, rng, rate=rate, longest=longest)


def random_point(arch: NMArray, rng: np.random.Generator) -> Point:
    """Draw one or two jobs of about BUDGET_SLOTS slots each, their operands and their stalls.

    Sizes favour 1 and whole tiles; kept values are often all zero or all non-zero.
    """
    # One full load, one block and one crossing of a large array must fit whatever the budget.
    block = (arch.issue_slots - 1) * arch.max_m
    crossing = max(overhead_slots(arch, dataflow) for dataflow in Dataflow) + 2
    budget_slots = BUDGET_SLOTS + arch.rows * arch.max_m + block + crossing
    drawn = [_random_job(arch, rng, budget_slots) for _ in range(int(rng.integers(1, 3)))]
    jobs = tuple(job for job, _ in drawn)
    return Point(
        jobs=jobs, beats=tuple(beats for _, beats in drawn), stalls=_random_stalls(jobs, rng)
    )
