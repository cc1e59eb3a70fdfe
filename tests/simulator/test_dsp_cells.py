"""Parameters and closed forms of DSP chains: limits, sentences, slots against the row plan."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simulator.arch.dsp_cells import (
    KEPT,
    ChainJob,
    ChainMode,
    ChainParams,
    DspSlice,
    MpeParams,
    chain_job,
    chain_slots,
)
from simulator.units.dsp_rows import place_rows

CHAIN = ChainParams()
MPE = MpeParams(chain=CHAIN, vpus=3, mpus=2, depth=4)


def test_slices_have_the_widths_of_the_silicon():
    """27x18 with 48 bits, 27x24 with 58: the packed halves lie 18 bits apart on both."""
    old, new = DspSlice.DSP48E2, DspSlice.DSP58
    assert (old.wide_bits, old.narrow_bits, old.sum_bits) == (27, 18, 48)
    assert (new.wide_bits, new.narrow_bits, new.sum_bits) == (27, 24, 58)
    assert old.packed_shift == new.packed_shift == 18
    lowest, most = (-128 << 18) - 128, (1 << 26) - 1
    assert -most - 1 <= lowest < lowest * 2 + (1 << 26) < most


def test_packed_sum_holds_seven_products_or_eight_without_the_lowest_weight():
    """One product more overflows the lower half, at the most extreme operands alone."""
    half = (1 << 17) - 1
    assert CHAIN.max_products == 7
    assert 7 * 128 * 128 <= half < 8 * 128 * 128
    assert replace(CHAIN, full_range=False).max_products == 8
    assert 8 * 128 * 127 <= half < 9 * 128 * 127


def test_chain_of_one_row_or_eight_takes_the_same_slices():
    """P / N rows a chain: N = 16 and P = 16 is one row; N = 0 takes nothing."""
    assert [CHAIN.row_stages(n) for n in KEPT] == [0, 2, 4, 8, 16]
    assert MPE.chains({16: 1}) == MPE.chains({2: 8}) == MPE.chains({8: 1, 4: 1, 2: 2, 0: 9}) == 1
    assert MPE.chains({16: 1, 2: 1}) == MPE.chains({2: 9}) == 2
    assert MPE.chains({0: 5}) == 0


@pytest.mark.parametrize(
    ("stages", "group"), [(16, 2), (24, 2), (20, 4), (16, 1), (48, 3), (32, 4)]
)
@pytest.mark.parametrize("seed", range(10))
def test_chains_and_tiles_of_counted_rows_equal_those_of_placed_rows(stages, group, seed):
    """The closed form by counts of N agrees with the row by row plan."""
    rng = np.random.default_rng([stages, seed])
    chain = ChainParams(stages=stages, group=group, load_groups=1)
    params = MpeParams(chain=chain, vpus=int(rng.integers(1, 5)))
    kept = rng.choice(KEPT, int(rng.integers(1, 60))).tolist()
    plan = place_rows(params, kept)
    assert params.chains(Counter(kept)) == plan.chain.max(initial=-1) + 1
    assert plan.tiles == -(-params.chains(Counter(kept)) // params.vpus)


@pytest.mark.parametrize("seed", range(10))
def test_placed_rows_share_no_slice_and_end_at_their_node(seed):
    """Every row has ceil(N / group) groups of its own chain, and its node lies at their end."""
    rng = np.random.default_rng(seed)
    chain = ChainParams(stages=24, group=int(rng.choice([1, 2, 3, 4])), load_groups=1)
    plan = place_rows(MpeParams(chain=chain, vpus=2), rng.choice(KEPT, 40).tolist())
    taken = set()
    for kept, at, stage, node in zip(plan.kept, plan.chain, plan.stage, plan.node, strict=True):
        mine = {(int(at), int(stage) + i) for i in range(chain.row_stages(int(kept)))}
        assert not mine & taken
        assert all(0 <= position < chain.stages for _, position in mine)
        assert not mine or (node + 1) * chain.group == stage + len(mine)
        taken |= mine


def test_slots_are_a_load_then_steps_of_passes_or_loads():
    """MM of 8 tokens: 4 passes hide a load of 1; MV of 1: with a load of 8 the load is all."""
    slow = replace(MPE, chain=replace(CHAIN, load_groups=1))
    mm = ChainJob(params=MPE, tokens=8, tiles=2, groups=3)
    mv = ChainJob(params=slow, tokens=1, tiles=2, groups=3)
    assert (mm.mode, mm.passes, mm.interval, mm.slots) == (ChainMode.MM, 4, 4, 1 + 6 * 4)
    assert (mv.mode, mv.passes, mv.interval, mv.slots) == (ChainMode.MV, 1, 8, 6 * 8 + 1)
    assert mm.cycles == mm.slots + 4 + 16 + 2
    assert mm.mac_slots == 6 * 4 * 2 * 16 * 6


def test_product_of_more_tokens_than_accumulators_is_several_jobs():
    """8 tokens fill the 4 accumulators: 19 tokens are jobs of 8, 8 and 3."""
    rows, slots = {16: 7}, 0
    for tokens in (8, 8, 3):
        slots += chain_job(MPE, tokens=tokens, k=70, rows=rows).slots
    assert chain_slots(MPE, tokens=19, k=70, rows=rows) == slots
    assert chain_slots(MPE, tokens=3, k=70, rows=rows) == 1 + (3 * 3 - 1) * 2 + 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group": 0}, "group must be 1 to 7 slices, .* not 0"),
        ({"group": 8}, "group must be 1 to 7 slices, .* not 8"),
        ({"stages": 0}, "multiple of group = 2, not 0"),
        ({"stages": 15}, "multiple of group = 2, not 15"),
        ({"load_groups": 3}, "must divide the chain's 8 groups, not 3"),
        ({"load_groups": 0}, "must divide the chain's 8 groups, not 0"),
    ],
)
def test_chains_out_of_range_are_named(changed, message):
    """Every limit of a chain has its sentence."""
    with pytest.raises(ValueError, match=message):
        replace(CHAIN, **changed)


@pytest.mark.parametrize("name", ["vpus", "mpus", "depth"])
def test_engines_without_parts_are_named(name):
    """An engine needs at least one of everything."""
    with pytest.raises(ValueError, match=f"MPE {name} must be at least 1, not 0"):
        replace(MPE, **{name: 0})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": 0}, "needs tokens of at least 1, not 0"),
        ({"tiles": 0}, "needs tiles of at least 1, not 0"),
        ({"groups": 0}, "needs groups of at least 1, not 0"),
        ({"tokens": 9}, "9 tokens needs accumulators for 5 passes, but this MPE has 4"),
    ],
)
def test_jobs_out_of_range_are_named(changed, message):
    """Every limit of a job has its sentence."""
    with pytest.raises(ValueError, match=message):
        replace(ChainJob(params=MPE, tokens=1, tiles=1, groups=1), **changed)


def test_rows_that_do_not_fit_are_named():
    """N is one of five, a row fits its chain, and some row keeps something."""
    short = replace(MPE, chain=ChainParams(stages=8, load_groups=1))
    with pytest.raises(ValueError, match="N of 16 must be one of 0, 2, 4, 8, 16, not 3"):
        place_rows(MPE, [2, 3])
    with pytest.raises(ValueError, match="N = 16 takes 16 slices, but the chain has 8"):
        place_rows(short, [16])
    with pytest.raises(ValueError, match="Rows of N = 2 must be at least 0, not -1"):
        MPE.chains({2: -1})
    with pytest.raises(ValueError, match="not k = 5 and 0 chains"):
        chain_job(MPE, tokens=1, k=5, rows={0: 4})
    with pytest.raises(ValueError, match="not k = 0 and 1 chains"):
        chain_slots(MPE, tokens=1, k=0, rows={2: 4})
    with pytest.raises(ValueError, match="tokens of at least 1, not 0"):
        chain_slots(MPE, tokens=0, k=5, rows={2: 4})
