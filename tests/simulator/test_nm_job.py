from dataclasses import replace

import pytest

from simulator.arch import ArrayJob, Dataflow, Precision
from simulator.arch.load import load_arch
from simulator.arch.nm_job import drain_wait_slots
from simulator.units.nm_slots import out_slots


def job(dataflow, *, overlap=False, kept=2, group=8, length=5, folds=3, rows=4, cols=3, lanes=1):
    arch = load_arch("nm-tiny", rows=rows, cols=cols, overlap=overlap, macs_per_pe=lanes)
    return ArrayJob(
        arch=arch, dataflow=dataflow, kept=kept, group=group, length=length, folds=folds
    )


def test_os_fold_is_fill_plus_groups():
    assert job(Dataflow.OS, folds=1).slots == 4 + 3 - 2 + 5 * 2


def test_ws_fold_loads_kept_values_and_is_fold_loads_whole_groups():
    assert job(Dataflow.WS, folds=1).slots == 4 * 2 + 4 + 3 - 2 + 5 * 2
    assert job(Dataflow.IS, folds=1).slots == 4 * 8 + 4 + 3 - 2 + 5 * 2


def test_folds_without_overlap_add_up():
    for dataflow in Dataflow:
        assert job(dataflow).slots == 3 * job(dataflow, folds=1).slots


def test_overlapped_folds_hide_fill_but_not_drain_or_load():
    assert job(Dataflow.OS, overlap=True).slots == 4 + 3 - 2 + 3 * 10
    assert job(Dataflow.OS, overlap=True, length=1).interval == 4  # the drain chain's R
    assert job(Dataflow.WS, overlap=True).interval == 4 + 8  # R + load, above 10 streamed
    assert job(Dataflow.WS, overlap=True, length=50).interval == 100


def test_several_macs_per_pe_round_the_group_up():
    assert job(Dataflow.OS, kept=3, lanes=2).slots_per_group == 2


def test_busy_slots_never_exceed_slots():
    for dataflow in Dataflow:
        for overlap in (False, True):
            j = job(dataflow, overlap=overlap)
            assert j.busy_slots <= j.slots
            assert j.mac_slots <= j.busy_slots * j.arch.peak_macs_per_cycle


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"group": 9}, "Group length M must be 1 to 8 on this array, not 9"),
        ({"group": 0}, "Group length M must be 1 to 8 on this array, not 0"),
        ({"kept": 9}, "Kept values N must be 1 to M = 8, not 9"),
        ({"length": 0}, "length and folds of at least 1, not 0 and 3"),
    ],
)
def test_illegal_job_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        job(Dataflow.OS, **change)


def float_job(dataflow, latency, interleave, **change):
    base = job(dataflow, **change)
    arch = replace(
        base.arch, precision=Precision.FP16, adder_latency=latency, interleave=interleave
    )
    return replace(base, arch=arch)


@pytest.mark.parametrize("interleave", [4, 6])
def test_interleave_of_the_adders_latency_hides_it(interleave):
    # One slot a product: 24 vectors and 24 rows of m for every kept value.
    own = {"length": 24, "folds": 1}
    assert float_job(Dataflow.WS, 4, interleave, **own).stream_slots == 24 * 2
    assert float_job(Dataflow.OS, 4, interleave, **own).stream_slots == 24 * 2 * interleave


def test_without_interleave_every_product_takes_the_adders_latency():
    assert float_job(Dataflow.WS, 4, 1).stream_slots == 4 * job(Dataflow.WS).stream_slots
    assert float_job(Dataflow.OS, 4, 1).stream_slots == 4 * job(Dataflow.OS).stream_slots


def test_ragged_block_of_vectors_costs_a_whole_one():
    slots = [float_job(Dataflow.WS, 3, 4, length=length).stream_slots for length in (4, 5, 8, 9)]
    assert slots == [8, 16, 16, 24]


@pytest.mark.parametrize(
    ("latency", "interleave", "own", "passing"), [(1, 1, 0, 1), (4, 4, 3, 7), (4, 2, 1, 5)]
)
def test_fp16_fold_adds_hops_and_the_adders_once(latency, interleave, own, passing):
    # 8 columns, so that no drain is waited for; rows hop L slots in WS.
    one = {"folds": 1, "rows": 3, "cols": 8}
    fold = float_job(Dataflow.OS, latency, interleave, **one)
    assert fold.slots == fold.stream_slots + 2 + 7 + own
    assert fold.drain_slots == 3 * interleave - interleave + 1
    fold = float_job(Dataflow.WS, latency, interleave, **one)
    assert fold.slots == 3 * 2 + fold.stream_slots + 2 * latency + 7 + passing
    assert fold.drain_slots == 1


def test_os_fold_waits_for_a_drain_that_the_next_one_could_meet():
    fold = float_job(Dataflow.OS, 2, 8, length=1, kept=1, folds=1)
    wait = 3 * 7 - 2 - 1
    assert drain_wait_slots(fold.arch) == wait
    # Folds as short as can be follow each other exactly as fast as 4 x 8 results leave.
    assert fold.slots == fold.interval == 4 * 8
    assert fold.drain_slots == 4 * 8 - 8 + 1 - wait
    assert drain_wait_slots(job(Dataflow.OS).arch) == 0


def test_overlapped_fp16_folds_are_held_by_drain_and_swap():
    assert float_job(Dataflow.OS, 2, 8, overlap=True, length=1).interval == 4 * 8
    assert float_job(Dataflow.WS, 5, 1, overlap=True, length=1).interval == 3 * 5 + 1 + 4 * 2


def test_products_of_a_fold_are_one_for_every_sum():
    assert float_job(Dataflow.OS, 4, 3, folds=1).mac_slots == 12 * 2 * 5 * 3
    assert float_job(Dataflow.WS, 4, 3, folds=1).mac_slots == 12 * 2 * 5


@pytest.mark.parametrize("dataflow", list(Dataflow))
@pytest.mark.parametrize(("latency", "interleave"), [(1, 1), (3, 1), (2, 3), (4, 4), (1, 5)])
def test_late_slots_end_with_the_last_result_beat(dataflow, latency, interleave):
    """Results are all out `late_slots` after the job, or before its end already."""
    for overlap in (False, True):
        for length in range(1, 12):
            j = float_job(dataflow, latency, interleave, length=length, overlap=overlap)
            assert j.late_slots == max(0, int(out_slots(j)[-1]) + 1 - j.slots)
