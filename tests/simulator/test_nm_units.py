"""The NMArray's beats, handshake and functional model against brute force."""

import numpy as np
import pytest

import simulator.units.nm_float as nm_float
from simulator.arch import ArrayJob, BufferParams, Dataflow, DramParams, NMArray, Precision
from simulator.units.float32 import bits32
from simulator.units.handshake import Flow, pass_slots
from simulator.units.nm_array import Stalls, respond, run, run_sequence
from simulator.units.nm_beats import Lanes, compress, gemm_job, pack, streamed_pair_beats, unpack
from simulator.units.nm_order import in_order
from simulator.units.nm_slots import out_slots, side_slots, top_slots

BUFFER = BufferParams(capacity_bytes=1024)
DRAM = DramParams(bandwidth_bytes_per_s=10**9)


def array(rows=2, cols=3, max_m=4, macs_per_pe=1, overlap=False, **precision):
    return NMArray(
        rows=rows,
        cols=cols,
        max_m=max_m,
        macs_per_pe=macs_per_pe,
        overlap=overlap,
        **precision,
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


HALF_CORNERS = [0.0, -0.0, 6e-8, -6e-8, 1.0, 65504.0, -65504.0, np.inf, -np.inf, np.nan]


def float_array(rng, **change):
    return array(
        rows=int(rng.integers(1, 5)),
        cols=int(rng.integers(1, 5)),
        max_m=int(rng.integers(1, 7)),
        overlap=bool(rng.integers(2)),
        precision=Precision.FP16,
        **{
            "adder_latency": int(rng.integers(1, 6)),
            "interleave": int(rng.integers(1, 6)),
            **change,
        },
    )


def halves(rng, shape, share):
    """Return moderate numbers with a share of corners."""
    corners = rng.choice(np.array(HALF_CORNERS, np.float16), shape)
    return np.where(rng.random(shape) < share, corners, rng.standard_normal(shape) * 8).astype(
        np.float16
    )


def random_float_job(rng, arch, dataflow, share):
    group = int(rng.integers(1, arch.max_m + 1))
    kept = int(rng.integers(1, group + 1))
    m, k, n = (int(rng.integers(1, high)) for high in (24, 40, 9))
    act, weight = halves(rng, (m, k), share), halves(rng, (k, n), share)
    order = rng.random((-(-k // group), group, n)).argsort(axis=1)
    weight = np.where(order.reshape(-1, n)[:k] < kept, weight, np.float16(0))
    return gemm_job(arch, dataflow, m=m, k=k, n=n, kept=kept, group=group), act, weight


def one_after_the_other(terms):
    total = np.float32(0)
    for term in terms:
        total = total + np.float32(term)
    return total


def sum_by_sum(job, act, weight):
    """Compute every output by itself, one scalar addition at a time."""
    (m, k), n, group = act.shape, weight.shape[1], job.group
    out = np.empty((m, n), np.float32)
    for row, col in np.ndindex(m, n):
        present = [i for i in range(k) if weight[i, col] != 0]
        # A group's own sum, for every PE of a column.
        products = [
            [
                np.float32(act[row, i]) * np.float32(weight[i, col])
                for i in present
                if i // group == g
            ]
            for g in range(-(-k // group))
        ]
        if job.dataflow is Dataflow.OS:
            out[row, col] = one_after_the_other([p for pes in products for p in pes])
            continue
        local = [one_after_the_other(pe) for pe in products]
        folds = [local[i : i + job.arch.rows] for i in range(0, len(local), job.arch.rows)]
        out[row, col] = one_after_the_other([one_after_the_other(fold) for fold in folds])
    return out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # infinities and NaN are meant
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("dataflow", list(Dataflow))
@pytest.mark.parametrize("seed", range(12))
def test_fp32_outputs_equal_scalar_sums_in_the_stated_order(seed, dataflow, share):
    rng = np.random.default_rng([seed, 16])
    job, act, weight = random_float_job(rng, float_array(rng), dataflow, share)
    trace = run(job, pack(job, act, weight))
    out = unpack(job, trace.outputs, m=len(act), n=weight.shape[1])
    assert trace.outputs.dtype == out.dtype == np.float32
    np.testing.assert_array_equal(bits32(out), bits32(sum_by_sum(job, act, weight)))
    assert trace.counts["pe", "mac", "full"] == np.count_nonzero(weight) * len(act)
    assert trace.counts["pe", "mac", "full"] + trace.counts["pe", "mac", "gated"] == job.mac_slots


@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_fp32_outputs_do_not_depend_on_the_chunks(dataflow, monkeypatch):
    rng = np.random.default_rng(5)
    arch = float_array(rng, adder_latency=2, interleave=3)
    job, act, weight = random_float_job(rng, arch, dataflow, 0.05)
    beats = pack(job, act, weight)
    whole = respond(job, beats)
    for items in (1, 50, 700):
        monkeypatch.setattr(nm_float, "CHUNK_ITEMS", items)
        np.testing.assert_array_equal(bits32(respond(job, beats)), bits32(whole))


@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_padding_times_infinity_is_no_nan(dataflow):
    rng = np.random.default_rng(8)
    job = gemm_job(array(precision=Precision.FP16), dataflow, m=3, k=7, n=2, kept=2, group=4)
    act, weight = np.full((3, 7), np.inf, np.float16), np.zeros((7, 2), np.float16)
    weight[5, 0] = rng.random() + 1
    out = unpack(job, respond(job, pack(job, act, weight)), m=3, n=2)
    assert out.tolist() == [[np.inf, 0.0]] * 3


def test_is_column_without_its_row_0_operand_takes_no_part():
    job = gemm_job(
        array(1, 1, 2, precision=Precision.FP16), Dataflow.IS, m=1, k=2, n=1, kept=2, group=2
    )
    beats = pack(job, np.ones((1, 2), np.float16), np.ones((2, 1), np.float16))
    top = Lanes(valid=np.array([[True], [False]]), value=beats.top.value)
    assert respond(job, beats).tolist() == [[2.0]]
    assert respond(job, type(beats)(side=beats.side, top=top)).tolist() == [[0.0]]


@pytest.mark.parametrize("items", [1, 2, 3, 64])
def test_in_order_adds_strictly_from_left_to_right(items):
    rng = np.random.default_rng(items)
    terms = (
        rng.standard_normal((2, 3000, items)) * 10.0 ** rng.integers(-6, 7, (2, 3000, items))
    ).astype(np.float32)
    start = rng.standard_normal((2, items)).astype(np.float32)
    wanted = start.copy()
    for position in range(terms.shape[1]):
        wanted += terms[:, position]
    assert not np.array_equal(
        wanted, start + terms.sum(axis=1, dtype=np.float64).astype(np.float32)
    )
    np.testing.assert_array_equal(in_order(terms, start), wanted)


@pytest.mark.parametrize("seed", range(30))
def test_fp16_run_without_stalls_takes_the_closed_form_slots(seed):
    rng = np.random.default_rng([seed, 17])
    dataflow = list(Dataflow)[seed % 3]
    job, act, weight = random_float_job(rng, float_array(rng), dataflow, 0.0)
    trace = run(job, pack(job, act, weight))
    assert trace.cycles == job.slots
    assert max(trace.accept_side[-1], trace.accept_top[-1]) < job.slots
    last = job.slots + job.drain_slots - 1
    missing = 0 if dataflow is Dataflow.OS else -job.length % job.arch.interleave
    assert trace.emit[-1] == last - missing


def test_streamed_pairs_run_value_by_value_through_ragged_blocks():
    arch = array(precision=Precision.FP16, interleave=2)
    job = ArrayJob(arch=arch, dataflow=Dataflow.IS, kept=2, group=4, length=3)
    # Beats: vectors 0 and 1 of value 0, both of value 1, then vector 2 alone.
    assert streamed_pair_beats(job).tolist() == [[0, 2], [1, 3], [4, 5]]
    assert (side_slots(job) - job.load_slots).tolist() == [0, 1, 2, 3, 4, 6]


def test_os_beats_interleave_the_rows_of_a_fold():
    arch = array(rows=2, cols=1, max_m=1, precision=Precision.FP16, interleave=2, adder_latency=3)
    job = gemm_job(arch, Dataflow.OS, m=5, k=2, n=1, kept=1, group=1)
    act = np.arange(10, dtype=np.float16).reshape(5, 2)
    beats = pack(job, act, np.ones((2, 1), np.float16))
    rows = beats.side.value[..., 0].astype(int).tolist()
    # Two folds of rows 0 to 3 and 4: both sums of k = 0, then both of k = 1.
    assert rows == [[0, 2], [4, 6], [1, 3], [5, 7], [8, 0], [0, 0], [9, 0], [0, 0]]
    assert side_slots(job)[:4].tolist() == [0, 1, 3, 4]
    assert top_slots(job)[:2].tolist() == [0, 3]
    # Sets leave in order, the bottom row first.
    assert respond(job, beats)[:, 0].tolist() == [5.0, 1.0, 13.0, 9.0, 0.0, 17.0, 0.0, 0.0]


def test_pack_of_integers_for_an_fp16_array_is_refused():
    job = ArrayJob(
        arch=array(precision=Precision.FP16), dataflow=Dataflow.OS, kept=1, group=1, length=1
    )
    with pytest.raises(ValueError, match="Operands must be float16, not int8 and int8"):
        pack(job, np.zeros((1, 1), np.int8), np.zeros((1, 1), np.int8))
