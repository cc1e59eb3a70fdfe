"""The NMArray's beats, handshake and functional model against brute force."""

import numpy as np
import pytest

from simulator.arch import ArrayJob, BufferParams, Dataflow, DramParams, NMArray
from simulator.units.handshake import Flow, pass_slots
from simulator.units.nm_array import Stalls, run, run_sequence
from simulator.units.nm_beats import compress, gemm_job, pack, unpack
from simulator.units.nm_slots import out_slots, side_slots, top_slots

BUFFER = BufferParams(capacity_bytes=1024)
DRAM = DramParams(bandwidth_bytes_per_s=10**9)


def array(rows=2, cols=3, max_m=4, macs_per_pe=1, overlap=False):
    return NMArray(
        rows=rows,
        cols=cols,
        max_m=max_m,
        macs_per_pe=macs_per_pe,
        overlap=overlap,
        act_buffer=BUFFER,
        weight_buffer=BUFFER,
        out_buffer=BUFFER,
        dram=DRAM,
    )


def operands(rng, m, k, n, kept, group):
    act = rng.integers(-128, 128, (m, k), dtype=np.int8)
    weight = rng.integers(-128, 128, (k, n), dtype=np.int8)
    order = rng.random((-(-k // group), group, n)).argsort(axis=1)
    return act, np.where(order.reshape(-1, n)[:k] < kept, weight, np.int8(0))


def random_array(rng):
    max_m = int(rng.integers(1, 9))
    return array(
        rows=int(rng.integers(1, 5)),
        cols=int(rng.integers(1, 5)),
        max_m=max_m,
        macs_per_pe=int(rng.integers(1, max_m + 1)),
        overlap=bool(rng.integers(2)),
    )


def random_job(rng, arch):
    group = int(rng.integers(1, arch.max_m + 1))
    kept = int(rng.integers(1, group + 1))
    m, k, n = (int(rng.integers(1, high)) for high in (9, 40, 9))
    dataflow = list(Dataflow)[int(rng.integers(3))]
    job = gemm_job(arch, dataflow, m=m, k=k, n=n, kept=kept, group=group)
    return job, *operands(rng, m, k, n, kept, group)


@pytest.mark.parametrize("seed", range(40))
def test_unpacked_outputs_equal_the_integer_product(seed):
    rng = np.random.default_rng(seed)
    job, act, weight = random_job(rng, random_array(rng))
    out = unpack(job, run(job, pack(job, act, weight)).outputs, m=len(act), n=weight.shape[1])
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, act.astype(np.int32) @ weight.astype(np.int32))


@pytest.mark.parametrize("seed", range(40))
def test_counts_equal_the_masks(seed):
    rng = np.random.default_rng(seed)
    job, act, weight = random_job(rng, random_array(rng))
    counts = run(job, pack(job, act, weight)).counts
    # Every non-zero weight meets every activation row exactly once.
    assert counts["pe", "mac", "full"] == np.count_nonzero(weight) * len(act)
    assert counts["pe", "mac", "full"] + counts["pe", "mac", "gated"] == job.mac_slots


@pytest.mark.parametrize("seed", range(40))
def test_run_without_stalls_takes_the_closed_form_slots(seed):
    rng = np.random.default_rng(seed)
    job, act, weight = random_job(rng, random_array(rng))
    trace = run(job, pack(job, act, weight))
    assert trace.cycles == job.slots
    assert trace.emit[-1] == job.slots + job.drain_slots - 1
    assert min(trace.accept_side[0], trace.accept_top[0]) == 0
    assert max(trace.accept_side[-1], trace.accept_top[-1]) < job.slots
    np.testing.assert_array_equal(trace.accept_side, side_slots(job))


def brute_cycles(slots, side, top, out):
    """Play the recurrence one slot at a time."""
    cycle, last, at = [], {"side": -1, "top": -1}, {"side": 0, "top": 0}
    flows = {"side": side, "top": top}
    refused = dict(zip(out.slots.tolist(), out.delays.tolist(), strict=True))
    for slot in range(slots):
        now = (cycle[-1] if cycle else -1) + 1 + refused.get(slot, 0)
        taking = []
        for name, flow in flows.items():
            if at[name] < flow.slots.size and flow.slots[at[name]] == slot:
                now = max(now, last[name] + 1 + int(flow.delays[at[name]]))
                taking.append(name)
        for name in taking:
            last[name] = now
            at[name] += 1
        cycle.append(now)
    return cycle


def random_flow(rng, slots, rate, first=0):
    taken = first + np.flatnonzero(rng.random(slots - first) < rate)
    delays = rng.integers(0, 7, taken.size) * (rng.random(taken.size) < rng.random())
    return Flow(slots=taken.astype(np.int64), delays=delays.astype(np.int64))


@pytest.mark.parametrize("seed", range(120))
def test_prefix_scan_equals_the_slot_by_slot_recurrence(seed):
    rng = np.random.default_rng(seed)
    slots = int(rng.integers(2, 60))
    side, top = (random_flow(rng, slots, rng.random()) for _ in range(2))
    out = random_flow(rng, slots, rng.random() / 2, first=1)
    passage = pass_slots(slots, side, top, out)
    assert passage.cycle.tolist() == brute_cycles(slots, side, top, out)
    held = passage.held_out + passage.held_side + passage.held_top
    np.testing.assert_array_equal(np.diff(passage.cycle, prepend=-1) - 1, held)
    np.testing.assert_array_equal(passage.side, passage.cycle[side.slots])


def test_stalled_cycles_account_for_every_cycle_beyond_the_slots():
    rng = np.random.default_rng(5)
    arch = array(overlap=True)
    triples = [random_job(rng, arch) for _ in range(4)]
    jobs = [job for job, _, _ in triples]
    stalls = Stalls.random(jobs, rng, rate=0.5, longest=6)
    trace = run_sequence(jobs, [pack(*triple) for triple in triples], stalls)
    slots = sum(job.slots for job in jobs)
    assert trace.cycles == slots + trace.stall_side + trace.stall_top + trace.stall_out
    assert min(trace.stall_side, trace.stall_top, trace.stall_out) > 0


def test_sequence_outputs_equal_each_job_alone():
    rng = np.random.default_rng(6)
    arch = array(rows=3, cols=2)
    triples = [random_job(rng, arch) for _ in range(3)]
    beats = [pack(*triple) for triple in triples]
    jobs = [job for job, _, _ in triples]
    together = run_sequence(jobs, beats, Stalls.none(jobs))
    alone = [run(job, beat).outputs for job, beat in zip(jobs, beats, strict=True)]
    np.testing.assert_array_equal(together.outputs, np.concatenate(alone))


@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_sum_beyond_int32_wraps(dataflow):
    k = 131_073  # (-128)^2 * k is 2**31 + 2**14
    arch = array(rows=1 if dataflow is Dataflow.OS else 2049, cols=1, max_m=64)
    job = gemm_job(arch, dataflow, m=1, k=k, n=1, kept=64, group=64)
    act = np.full((1, k), -128, np.int8)
    out = unpack(job, run(job, pack(job, act, act.T.copy())).outputs, m=1, n=1)
    assert out.tolist() == [[-(2**31) + 2**14]]


def test_partial_sums_of_reduction_tiles_wrap():
    job = gemm_job(array(rows=1, cols=1, max_m=1), Dataflow.WS, m=1, k=2, n=1, kept=1, group=1)
    out = np.array([[2**31 - 1], [1]], np.int32)
    assert unpack(job, out, m=1, n=1).tolist() == [[-(2**31)]]


def test_all_zero_weights_are_all_gated_and_give_zero():
    job = gemm_job(array(), Dataflow.WS, m=3, k=11, n=4, kept=2, group=4)
    act = np.full((3, 11), 7, np.int8)
    trace = run(job, pack(job, act, np.zeros((11, 4), np.int8)))
    assert not trace.outputs.any()
    assert trace.counts["pe", "mac", "full"] == 0
    assert trace.counts["pe", "mac", "gated"] == job.mac_slots


def test_operand_lanes_count_the_operands_that_exist():
    act, weight = operands(np.random.default_rng(0), 5, 10, 4, 2, 4)
    arch = array(rows=2, cols=3)
    lanes = {}
    for dataflow in Dataflow:
        job = gemm_job(arch, dataflow, m=5, k=10, n=4, kept=2, group=4)
        counts = run(job, pack(job, act, weight)).counts
        lanes[dataflow] = counts["side", "lane", "full"], counts["top", "lane", "full"]
    # Three groups of k; two column tiles (n = 4 of 3) or (IS) two of m = 5.
    assert lanes[Dataflow.OS] == (5 * 3 * 2, 4 * 3 * 2 * 3)
    assert lanes[Dataflow.WS] == (5 * 3 * 2, 4 * 3 * 2)
    assert lanes[Dataflow.IS] == (4 * 3 * 2 * 2, 5 * 10)


def test_slot_tables_stay_inside_the_job_and_never_collide():
    rng = np.random.default_rng(11)
    for _ in range(60):
        job, _, _ = random_job(rng, random_array(rng))
        for table in (side_slots(job), top_slots(job)):
            assert table[0] >= 0
            assert table[-1] < job.slots
            assert (np.diff(table) > 0).all()
        assert (np.diff(out_slots(job)) > 0).all()
        assert out_slots(job)[-1] == job.slots + job.drain_slots - 1


def test_compress_keeps_positions_and_pads_with_zero():
    weight = np.array([[0], [5], [0], [-3], [7]], np.int8)
    value, index = compress(weight, 3, 4)
    assert value[:, :, 0].tolist() == [[5, -3, 0], [7, 0, 0]]
    assert index[:, :, 0].tolist() == [[1, 3, 0], [0, 0, 0]]


def test_compress_of_an_overfull_group_is_refused():
    with pytest.raises(ValueError, match="A group of 4 weights holds 3 non-zeros, at most 2 fit"):
        compress(np.array([[1], [1], [1], [0]], np.int8), 2, 4)


def test_pack_of_a_job_that_does_not_fit_is_refused():
    job = ArrayJob(arch=array(), dataflow=Dataflow.OS, kept=1, group=1, length=2)
    with pytest.raises(ValueError, match="needs length 5 and 1 folds, not 2 and 1"):
        pack(job, np.zeros((1, 5), np.int8), np.zeros((5, 1), np.int8))


def test_pack_of_other_dtypes_is_refused():
    job = ArrayJob(arch=array(), dataflow=Dataflow.OS, kept=1, group=1, length=1)
    with pytest.raises(ValueError, match="Operands must be int8, not int16 and int8"):
        pack(job, np.zeros((1, 1), np.int16), np.zeros((1, 1), np.int8))


def test_pack_of_mismatched_shapes_is_refused():
    job = ArrayJob(arch=array(), dataflow=Dataflow.OS, kept=1, group=1, length=1)
    with pytest.raises(ValueError, match=r"Operands must be \(m, k\) and \(k, n\), not"):
        pack(job, np.zeros((1, 2), np.int8), np.zeros((1, 1), np.int8))


def test_flow_with_missing_delays_is_refused():
    with pytest.raises(ValueError, match="one delay for each of its 2 beats, not 1"):
        Flow(slots=np.arange(2), delays=np.zeros(1, np.int64))


def test_flow_with_negative_delays_is_refused():
    with pytest.raises(ValueError, match="Delays must be at least 0 cycles, not -1"):
        Flow(slots=np.arange(1), delays=np.array([-1]))


def test_beats_outside_the_slots_are_refused():
    empty = Flow(slots=np.arange(0), delays=np.arange(0))
    late = Flow(slots=np.array([4]), delays=np.array([0]))
    with pytest.raises(ValueError, match="Beats must lie in slots 0 to 3, not 4"):
        pass_slots(4, late, empty, empty)


def test_sequence_without_jobs_is_refused():
    none = Stalls(side=np.arange(0), top=np.arange(0), out=np.arange(0))
    with pytest.raises(ValueError, match="Need one set of beats for each"):
        run_sequence((), (), none)
