"""The MPE in numbers: the most extreme sums, cycles without stalls, and reset in mid-job."""

from dataclasses import replace

import numpy as np
import pytest

from rtl.cosim.chain_points import ChainPoint, chain_expected, chain_stimulus
from rtl.cosim.points import draw_points
from rtl.cosim.pysim import observe
from rtl.dsp_chain.mpe import Mpe
from simulator.arch.dsp_cells import ChainParams, DspSlice, MpeParams
from simulator.units.dsp_chain import beat_slots, pack_product, plan_job, run, unpack_product
from simulator.units.dsp_rows import place_rows
from simulator.units.slot_streams import no_stalls

pytestmark = pytest.mark.rtl


def unstalled(params, *products):
    """Return a point of products (kept, act, weight), and each job's plan."""
    jobs, beats, plans = [], [], []
    for kept, act, weight in products:
        plan = place_rows(params, kept)
        jobs.append(plan_job(plan, tokens=len(act), k=act.shape[1]))
        beats.append(pack_product(jobs[-1], plan, act, weight))
        plans.append(plan)
    stalls = no_stalls(jobs, beat_slots)
    return ChainPoint(jobs=tuple(jobs), beats=tuple(beats), stalls=stalls), plans


def full(value, *shape):
    return np.full(shape, value, np.int8)


@pytest.mark.parametrize(
    "chain",
    [
        ChainParams(load_groups=1),
        ChainParams(full_range=False),
        ChainParams(group=1, load_groups=16, dsp=DspSlice.DSP58),
        ChainParams(stages=32, group=4, load_groups=4),
    ],
    ids=lambda c: f"{c.stages}by{c.group}-{c.dsp}-{c.max_products}",
)
def test_longest_rows_of_the_most_extreme_products_are_exact(chain):
    """All -128 (or the lowest weight), and of either sign in the halves: the plain int product."""
    params = MpeParams(chain=chain, vpus=1, depth=1)
    lowest = -128 if chain.full_range else -127
    kept, weight = [16, 8, 2], full(lowest, 16, 3)
    weight[8:, 1], weight[2:, 2] = 0, 0
    acts = [full(low, 2, 16) for low in (-128, 127)]
    acts.append(np.stack([full(-128, 16), full(127, 16)]))
    acts.append(acts[-1][::-1].copy())
    point, plans = unstalled(params, *((kept, act, weight) for act in acts))
    [rtl] = observe(Mpe(params), [chain_stimulus(point)])
    assert rtl == chain_expected(point)
    for job, beats, plan, act in zip(point.jobs, point.beats, plans, acts, strict=True):
        found = unpack_product(job, plan, run(job, beats).results)
        np.testing.assert_array_equal(found, act.astype(int) @ weight.astype(int))


def test_jobs_without_stalls_keep_the_chain_busy():
    """MM of 6 tokens by 2 groups, then MV: a pass a slot, loads hidden but for a job's first."""
    params = MpeParams(chain=ChainParams(stages=4, load_groups=1), vpus=1, depth=4)
    weight = np.zeros((32, 2), np.int8)
    point, _ = unstalled(
        params, ([2, 2], full(1, 6, 32), weight), ([4], full(1, 1, 32), weight[:, :1])
    )
    [rtl] = observe(Mpe(params), [chain_stimulus(point)])
    assert params.latency == 4 + 4 + 2
    assert rtl.accept["job"] == (-1, 7)
    assert rtl.accept["top"] == (0, 1, 2, 3, 8, 9, 10, 11)
    assert rtl.accept["side"] == (2, 3, 4, 5, 6, 7, 10, 12)
    assert rtl.emit == (15, 16, 17, 22)
    assert rtl.counters["cycles"] == 8 + 5


def test_mpe_after_a_reset_in_mid_job_starts_afresh():
    """A job cut short by a reset leaves nothing behind."""
    params = MpeParams(chain=ChainParams(stages=8, load_groups=2), vpus=1, depth=4)
    [whole] = draw_points(params, 1, 3)
    long_job, _ = unstalled(params, ([8] * 6, full(3, 8, 64), full(0, 64, 6)))
    cut_short = replace(chain_stimulus(long_job), limit_cycles=40)
    broken, first, second = observe(Mpe(params), [cut_short, *[chain_stimulus(whole)] * 2])
    assert len(broken.accept["side"]) > 30
    assert len(broken.emit) > 0
    assert first == second == chain_expected(whole)
