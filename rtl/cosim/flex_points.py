"""What a FlexDpe array does at a point: jobs, beats and stalls, drawn, as words, and expected."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtl.cosim.one_stream import setting_word
from rtl.cosim.play import Observation, Stimulus
from rtl.cosim.slot_points import (
    delay_cycles,
    packed_words,
    random_slot_stalls,
    slot_counters,
    slot_observation,
    slot_stimulus,
)
from rtl.flex_dpe.shapes import flex_job
from simulator.arch.flex_dpe import FlexDpe
from simulator.arch.flex_job import FlexJob
from simulator.units.flex_dpe import FlexBeats, beat_slots, pack_product, run_sequence
from simulator.units.flex_routes import route
from simulator.units.slot_streams import SlotStalls, no_stalls

__all__ = ["FlexPoint", "flex_expected", "flex_stimulus", "random_flex_point"]

MOST_JOBS = 12
"""Passes of a random product, about."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlexPoint:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[FlexJob, ...]
    beats: tuple[FlexBeats, ...]
    stalls: SlotStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.nonzeros} from {job.start}, {job.vectors} vectors{', drain' * job.drain}"
            for job in self.jobs
        )
        return f"{jobs}; {delay_cycles(self.stalls)} cycles of delay"


def _routes(job: FlexJob, position: NDArray[np.int64]) -> int:
    """Return the settings of all engines' networks as one word."""
    arch = job.arch
    source = np.full(arch.peak_macs_per_cycle, -1)
    source[(job.start + np.arange(job.nonzeros)) % source.size] = position
    bits = np.stack([route(rows) for rows in source.reshape(arch.dpes, arch.dpe_size)])
    return packed_words([(bits[None], 1)])[0]


def _job_word(job: FlexJob, beats: FlexBeats) -> int:
    layout = flex_job(job.arch)
    names = ("start", "nonzeros", "loads", "vectors", "drain")
    word = setting_word(layout, {name: int(getattr(job, name)) for name in names})
    return word | _routes(job, beats.position) << layout["routes"].offset


def _cluster_bits(arch: FlexDpe) -> int:
    return (arch.peak_macs_per_cycle - 1).bit_length()


def flex_stimulus(point: FlexPoint) -> Stimulus:
    """Return the point as port words; jobs are offered at once."""
    arch = point.jobs[0].arch
    value, cluster, side = (
        np.concatenate([getattr(each, name) for each in point.beats])
        for name in ("value", "cluster", "side")
    )
    return slot_stimulus(
        [_job_word(*pair) for pair in zip(point.jobs, point.beats, strict=True)],
        packed_words([(side, 8)]),
        packed_words([(value, 8), (cluster, _cluster_bits(arch))]),
        point.stalls,
        sum(job.slots for job in point.jobs),
    )


def flex_expected(point: FlexPoint) -> Observation:
    """Return what the software model says the array does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    results, counts = trace.results, trace.counts
    arch = point.jobs[0].arch
    fields = [
        (results.there, 1),
        (results.cluster, _cluster_bits(arch)),
        (results.sums, 2 * arch.operand_bits + arch.tree_depth),
    ]
    counters = {
        **slot_counters(trace.passage, counts),
        "mac_full": counts["mac", "int8", "full"],
        "mac_gated": counts["mac", "int8", "gated"],
    }
    return slot_observation(packed_words(fields), trace.passage, counters)


def _numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Draw any int8 numbers, many zeros, or the lowest one everywhere."""
    kind = int(rng.integers(4))
    if kind == 0:
        return np.full(shape, -128, np.int8)
    values = rng.integers(-128, 128, shape, np.int8)
    return np.where(rng.random(shape) < 0.6, values, np.int8(0)) if kind == 1 else values


def _random_product(
    arch: FlexDpe, rng: np.random.Generator
) -> tuple[tuple[FlexJob, ...], tuple[FlexBeats, ...]]:
    """Draw a matrix product with at least one non-zero, of a few passes."""
    k = int(rng.integers(1, 3 * arch.dpe_size, endpoint=True))
    most = max(1, MOST_JOBS * arch.peak_macs_per_cycle // k)
    outputs = int(rng.integers(1, min(most, 3 * arch.peak_macs_per_cycle), endpoint=True))
    mask = rng.random((outputs, k)) < rng.choice([0.1, 0.5, 0.9, 1.0])
    mask[rng.integers(outputs), rng.integers(k)] = True
    moving = _numbers(rng, (int(rng.integers(1, 6)), k))
    product = pack_product(arch, _numbers(rng, mask.shape), mask, moving)
    return product.jobs, product.beats


def _random_pass(arch: FlexDpe, rng: np.random.Generator) -> tuple[FlexJob, FlexBeats]:
    """Draw a pass that no product makes: any start, any clusters, a drain or none."""
    size = arch.peak_macs_per_cycle
    job = FlexJob(
        arch=arch,
        start=int(rng.integers(size)),
        nonzeros=int(rng.integers(1, size, endpoint=True)),
        vectors=int(rng.integers(1, 6)),
        drain=bool(rng.integers(2)),
    )
    load = (job.loads, arch.loads_per_cycle)
    beats = FlexBeats(
        value=_numbers(rng, load),
        cluster=rng.integers(min(int(rng.integers(1, 5)), size), size=load),
        side=_numbers(rng, (job.vectors, arch.dpe_size)),
        position=rng.integers(arch.dpe_size, size=job.nonzeros),
    )
    return job, beats


def random_flex_point(arch: FlexDpe, rng: np.random.Generator) -> FlexPoint:
    """Draw one or two products, or a few passes of any kind, their operands and their stalls."""
    if rng.random() < 0.6:
        drawn = [_random_product(arch, rng) for _ in range(int(rng.integers(1, 3)))]
        jobs, beats = (sum(parts, ()) for parts in zip(*drawn, strict=True))
    else:
        passes = [_random_pass(arch, rng) for _ in range(int(rng.integers(1, 8)))]
        jobs, beats = zip(*passes, strict=True)
    return FlexPoint(
        jobs=jobs, beats=beats, stalls=random_slot_stalls(rng, no_stalls(jobs, beat_slots))
    )
