import pytest

from simulator.arch import ArrayJob, Dataflow
from simulator.arch.load import load_arch


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
