"""What an MPE does at a point: jobs, beats and stalls, drawn at random, as words, and expected."""

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
from rtl.dsp_chain.shapes import chain_job
from simulator.arch.dsp_cells import CANDIDATES, KEPT, TOKENS, ChainJob, ChainParams, MpeParams
from simulator.units.dsp_chain import (
    ChainBeats,
    ChainResults,
    ChainTrace,
    beat_slots,
    pack_product,
    plan_job,
    run_sequence,
)
from simulator.units.dsp_rows import RowPlan, place_rows
from simulator.units.slot_streams import SlotStalls, no_stalls

__all__ = ["ChainPoint", "chain_expected", "chain_stimulus", "random_chain_point"]

MOST_SLOTS = 80
"""Slots of a random job, about."""

EXTREMES = (-128, -127, -1, 0, 1, 127)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChainPoint:
    """Jobs run back to back, the operand beats of each, and the stalls of all."""

    jobs: tuple[ChainJob, ...]
    beats: tuple[ChainBeats, ...]
    stalls: SlotStalls

    def __str__(self) -> str:
        """Return one line for a report."""
        jobs = "; ".join(
            f"{job.mode} {job.tokens} tokens {job.tiles} tiles {job.groups} groups"
            for job in self.jobs
        )
        return f"{jobs}; {delay_cycles(self.stalls)} cycles of delay"


def _side(job: ChainJob, beats: ChainBeats) -> tuple[int, ...]:
    return packed_words([(beats.act, 8)])


def _top(job: ChainJob, beats: ChainBeats) -> tuple[int, ...]:
    pairs = packed_words([(beats.value, 8), (beats.index, 4)])
    cuts = packed_words([(beats.cut, 1)])
    width = 12 * int(np.prod(beats.value.shape[1:]))
    return tuple(low | high << width for low, high in zip(pairs, cuts, strict=True))


def _out(params: MpeParams, results: ChainResults) -> tuple[int, ...]:
    sums, valid = packed_words([(results.sums, 32)]), packed_words([(results.valid, 1)])
    width = 32 * TOKENS * params.lanes
    return tuple(low | high << width for low, high in zip(sums, valid, strict=True))


def _job_word(job: ChainJob) -> int:
    return setting_word(chain_job(), {n: getattr(job, n) for n in ("tokens", "tiles", "groups")})


def chain_stimulus(point: ChainPoint) -> Stimulus:
    """Return the point as port words; jobs are offered at once."""
    pairs = list(zip(point.jobs, point.beats, strict=True))
    return slot_stimulus(
        [_job_word(job) for job in point.jobs],
        [word for pair in pairs for word in _side(*pair)],
        [word for pair in pairs for word in _top(*pair)],
        point.stalls,
        sum(job.cycles for job in point.jobs),
    )


def _counters(trace: ChainTrace) -> dict[str, int]:
    counts = trace.counts
    return {
        **slot_counters(trace.passage, counts),
        "mac_full": counts["dsp", "mac", "full"],
        "mac_gated": counts["dsp", "mac", "gated"],
    }


def chain_expected(point: ChainPoint) -> Observation:
    """Return what the software model says the MPE does at `point`."""
    trace = run_sequence(point.jobs, point.beats, point.stalls)
    outputs = _out(point.jobs[0].params, trace.results)
    return slot_observation(outputs, trace.passage, _counters(trace))


def _numbers(
    rng: np.random.Generator, shape: tuple[int, ...], lowest: int = -128
) -> NDArray[np.int8]:
    """Draw any int8 numbers, extreme ones, or the lowest one everywhere."""
    kind = int(rng.integers(4))
    if kind == 0:
        return np.full(shape, lowest, np.int8)
    if kind == 1:
        return rng.choice(EXTREMES, shape).clip(lowest).astype(np.int8)
    return rng.integers(lowest, 127, shape, np.int8, endpoint=True)


def _random_weight(rng: np.random.Generator, plan: RowPlan, k: int) -> NDArray[np.int8]:
    """Draw a weight matrix that keeps at most N of 16 in every row, mostly exactly N."""
    lowest = -128 if plan.params.chain.full_range else -127
    weight = _numbers(rng, (k, plan.kept.size), lowest)
    rank = rng.random((-(-k // CANDIDATES), CANDIDATES, plan.kept.size)).argsort(axis=1)
    kept = (rank.argsort(axis=1) < plan.kept).reshape(-1, plan.kept.size)[:k]
    return np.where(kept, weight, np.int8(0))


def _random_product(params: MpeParams, rng: np.random.Generator) -> tuple[ChainJob, ChainBeats]:
    """Draw a matrix product by rows of mixed N."""
    kinds = [n for n in KEPT if n <= params.chain.stages]
    count = int(rng.integers(1, 2 * params.lanes, endpoint=True))
    kept = rng.choice(kinds, count, p=rng.dirichlet(np.ones(len(kinds))))
    plan = place_rows(params, [*kept.tolist(), kinds[-1]])
    k = int(rng.integers(1, 3 * params.reduction, endpoint=True))
    most = max(MOST_SLOTS // (plan.tiles * -(-k // params.reduction)), 1)
    tokens = int(rng.integers(1, min(2 * most, TOKENS * params.depth), endpoint=True))
    job = plan_job(plan, tokens=1 if rng.random() < 0.3 else tokens, k=k)
    act = _numbers(rng, (job.tokens, k))
    return job, pack_product(job, plan, act, _random_weight(rng, plan, k))


def _random_cuts(params: MpeParams, rng: np.random.Generator) -> tuple[ChainJob, ChainBeats]:
    """Draw beats that no plan makes: cuts, indices and activations anyhow."""
    chain: ChainParams = params.chain
    job = ChainJob(
        params=params,
        tokens=int(rng.integers(1, min(8, TOKENS * params.depth), endpoint=True)),
        tiles=int(rng.integers(1, 3)),
        groups=int(rng.integers(1, 4)),
    )
    loads = job.sets * chain.load_slots
    pairs = (loads, params.mpus, params.vpus, chain.load_groups * chain.group)
    rate = rng.choice([0.0, 0.2, 0.7, 1.0])
    beats = ChainBeats(
        act=_numbers(rng, (job.sets * job.passes, params.mpus, CANDIDATES, TOKENS)),
        value=_numbers(rng, pairs, -128 if chain.full_range else -127),
        index=rng.integers(0, CANDIDATES, pairs, np.uint8),
        cut=rng.random((loads, params.vpus, chain.load_groups)) < rate,
    )
    return job, beats


def random_chain_point(params: MpeParams, rng: np.random.Generator) -> ChainPoint:
    """Draw one to three jobs, most of them matrix products, their operands and their stalls."""
    drawn = [
        (_random_product if rng.random() < 0.7 else _random_cuts)(params, rng)
        for _ in range(int(rng.integers(1, 4)))
    ]
    jobs = tuple(job for job, _ in drawn)
    return ChainPoint(
        jobs=jobs,
        beats=tuple(beats for _, beats in drawn),
        stalls=random_slot_stalls(rng, no_stalls(jobs, beat_slots)),
    )
