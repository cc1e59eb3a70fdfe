"""Pricing: literal energies, exact sums, missing prices."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models import HOROWITZ_45NM, Cost, MissingPrice, price, prices
from simulator.arch import BufferParams

BUFFERS = ("act_buffer", "weight_buffer", "out_buffer", "dram")
EVENTS = [
    ("mac", "int8", "full"),
    ("mac", "int8", "gated"),
    ("vector", "op", "full"),
    *(
        (b, action, kind)
        for b in BUFFERS
        for action in ("read", "write")
        for kind in ("full", "metadata")
    ),
]


def test_prices_cover_exactly_the_events_in_use(make_arch):
    training = {
        ("mac", "fp16", "full"): 1.1 + 0.9,
        ("mac", "fp16", "gated"): 0.0,
        ("wuve", "update", "full"): 3 * (3.7 + 0.9),
        ("sore", "compare", "full"): 0.4,
        ("delta", "compare", "full"): 2 * 0.03 + 10.0 / 4,
    }
    found = prices(make_arch())
    assert sorted(found) == sorted([*EVENTS, *training])
    assert {key: found[key].pj for key in training} == pytest.approx(training)


def test_price_hand_counts_equal_literal_energies(make_result):
    counts = {
        ("mac", "int8", "full"): 1000,
        ("mac", "int8", "gated"): 500,
        ("weight_buffer", "read", "full"): 64,
        ("weight_buffer", "read", "metadata"): 64,
        ("dram", "write", "full"): 64,
        ("vector", "op", "full"): 10,
    }
    cost = price(make_result(counts))
    expected = {
        ("mac", "int8", "full"): 300.0,
        ("mac", "int8", "gated"): 0.0,
        ("weight_buffer", "read", "full"): 20.0,
        ("weight_buffer", "read", "metadata"): 20.0,
        ("dram", "write", "full"): 1950.0,
        ("vector", "op", "full"): 32.0,
    }
    assert dict(cost.breakdown) == pytest.approx(expected, rel=1e-12)
    assert cost.energy_pj == pytest.approx(2322.0, rel=1e-12)
    assert cost.energy_j == cost.energy_pj * 1e-12
    assert list(cost.by_component()) == ["dram", "mac", "weight_buffer", "vector"]


@pytest.mark.parametrize(
    ("capacity_bytes", "pj_64b"),
    [(1, 10), (8 << 10, 10), ((8 << 10) + 1, 20), (32 << 10, 20), (1 << 20, 100), (5 << 20, 100)],
)
def test_sram_energy_is_that_of_the_smallest_macro_that_holds_the_buffer(
    make_arch, capacity_bytes, pj_64b
):
    arch = make_arch(act_buffer=BufferParams(capacity_bytes=capacity_bytes))
    assert prices(arch)["act_buffer", "read", "full"].pj * 64 == pytest.approx(pj_64b, rel=1e-12)


def test_sram_larger_than_the_largest_macro_states_its_banks(make_arch):
    arch = make_arch(act_buffer=BufferParams(capacity_bytes=(2 << 20) + 1))
    assert "3 banks of 1024 KiB" in prices(arch)["act_buffer", "read", "full"].source


def test_price_unknown_event_names_it_and_lists_the_known(make_result):
    result = make_result({("mac", "fp8", "full"): 1})
    with pytest.raises(MissingPrice, match=r"event mac/fp8/full; known: act_buffer/read/full, "):
        price(result)


def test_price_zero_count_of_an_unknown_event_is_still_refused(make_result):
    with pytest.raises(MissingPrice, match="sram/spill/full"):
        price(make_result({("sram", "spill", "full"): 0}))


def test_price_table_without_an_action_is_refused(make_result):
    entries = {k: v for k, v in HOROWITZ_45NM.entries_pj.items() if k != "dram_bit"}
    with pytest.raises(MissingPrice, match="has no action 'dram_bit'"):
        price(make_result(), table=replace(HOROWITZ_45NM, entries_pj=entries))


def test_every_price_states_a_source_and_gating_is_marked_assumed(make_arch):
    known = prices(make_arch())
    assert all(len(entry.source) > 20 for entry in known.values())
    assert known["mac", "int8", "gated"].assumed
    assert not known["mac", "int8", "full"].assumed


@given(counts=st.dictionaries(st.sampled_from(EVENTS), st.integers(0, 2**50)))
@settings(max_examples=100, deadline=None)
def test_energy_is_counts_times_prices(make_result, counts):
    result = make_result(counts)
    cost = price(result)
    known = prices(result.arch)
    assert set(cost.breakdown) == set(counts)
    assert all(cost.breakdown[e] == n * known[e].pj for e, n in counts.items())
    assert cost.energy_pj == math.fsum(cost.breakdown.values())
    assert math.fsum(cost.by_component().values()) == pytest.approx(cost.energy_pj, rel=1e-12)


@given(
    counts=st.dictionaries(st.sampled_from(EVENTS), st.integers(0, 2**40)),
    times=st.integers(1, 1000),
)
@settings(max_examples=50, deadline=None)
def test_energy_scales_with_counts(make_result, counts, times):
    once = price(make_result(counts)).energy_pj
    many = price(make_result({e: n * times for e, n in counts.items()})).energy_pj
    assert many == pytest.approx(once * times, rel=1e-12)


def test_cost_breakdown_that_does_not_sum_is_refused():
    with pytest.raises(ValueError, match=r"Breakdown sums to 1\.0 pJ, not to energy_pj = 2\.0"):
        Cost(
            energy_pj=2.0,
            latency_cycles=1,
            breakdown={("mac", "int8", "full"): 1.0},
            prices={},
            table="t",
            table_digest="d",
        )
