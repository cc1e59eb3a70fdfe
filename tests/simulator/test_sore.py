"""SORE's selection, timing and closed forms against brute force."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch.sore import SoreFormat, SoreJob, SoreParams, sore_cycles
from simulator.units.sore import SoreStalls, magnitude, run, run_sequence, select

PARAMS = SoreParams(lanes=2, max_n=8, max_m=8, value=SoreFormat.INT8)


def job(kept=2, group=4, length=8, passes=1, params=PARAMS):
    return SoreJob(params=params, kept=kept, group=group, length=length, passes=passes)


def brute_select(job, beats):
    """Pick one lane's winners of one group at a time."""
    values, indices = [], []
    for column in np.split(beats, job.passes):
        for start in range(0, job.length, job.group):
            block = column[start : start + job.group]
            rows = [[(0, 0)] * job.params.lanes for _ in range(job.kept)]
            for lane in range(job.params.lanes):
                size = [abs(int(value)) for value in block[:, lane]]
                best = sorted(range(len(size)), key=lambda at, s=size: (-s[at], at))[: job.kept]
                for row, at in enumerate(sorted(best)):
                    rows[row][lane] = (int(block[at, lane]), at)
            values += [[value for value, _ in row] for row in rows]
            indices += [[index for _, index in row] for row in rows]
    return np.array(values), np.array(indices)


def brute_cycles(job, stalls):
    """Play the handshake one beat at a time; returns acceptance and emission cycles."""
    accept, emit, now, left = [], [], -1, 0
    for _ in range(job.passes):
        for start in range(0, job.length, job.group):
            size = min(job.group, job.length - start)
            for at in range(size):
                now += 1 + int(stalls.side[len(accept)])
                if at == size - 1:
                    now = max(now, left)
                accept.append(now)
            visible = now + 1
            for _ in range(job.kept):
                emit.append(visible + int(stalls.out[len(emit)]))
                visible = emit[-1] + 1
            left = emit[-1]
    return accept, emit


def drawn(rng):
    group = int(rng.integers(1, 9))
    chosen = job(
        kept=int(rng.integers(1, group, endpoint=True)),
        group=group,
        length=int(rng.integers(1, 25)),
        passes=int(rng.integers(1, 5)),
    )
    high = int(rng.choice([3, 129]))
    beats = rng.integers(-high + 1, high, (chosen.in_beats, 2)).clip(-128, 127).astype(np.int8)
    beats[rng.random(beats.shape) < 0.1] = -128
    return chosen, beats


@pytest.mark.parametrize("seed", range(60))
def test_selection_equals_brute_force(seed):
    chosen, beats = drawn(np.random.default_rng(seed))
    value, index = select(chosen, beats)
    wanted_value, wanted_index = brute_select(chosen, beats)
    np.testing.assert_array_equal(value, wanted_value)
    np.testing.assert_array_equal(index, wanted_index)


@pytest.mark.parametrize("seed", range(60))
def test_cycles_under_stalls_equal_the_beat_by_beat_handshake(seed):
    rng = np.random.default_rng(seed)
    chosen, beats = drawn(rng)
    stalls = SoreStalls(
        side=rng.integers(0, 4, chosen.in_beats) * rng.integers(0, 2),
        out=rng.integers(0, 4, chosen.out_beats) * rng.integers(0, 2),
    )
    trace = run(chosen, beats, stalls)
    accept, emit = brute_cycles(chosen, stalls)
    assert trace.accept.tolist() == accept
    assert trace.emit.tolist() == emit


@pytest.mark.parametrize("seed", range(60))
def test_closed_form_cycles_equal_the_trace(seed):
    chosen, beats = drawn(np.random.default_rng(seed))
    assert chosen.cycles == run(chosen, beats).cycles


@pytest.mark.parametrize("lanes", [1, 2, 32])
@pytest.mark.parametrize(("m", "n"), [(8, 2), (4, 4), (7, 3), (1, 1)])
@pytest.mark.parametrize("groups", [1, 5, 64])
def test_tensor_cycles_equal_the_trace_of_its_rounds(lanes, m, n, groups):
    params = replace(PARAMS, lanes=lanes)
    rounds = -(-groups // lanes)
    chosen = job(kept=n, group=m, length=m * rounds, params=params)
    trace = run(chosen, np.zeros((m * rounds, lanes), np.int8))
    assert sore_cycles(params, groups, m, n) == trace.cycles == rounds * m + n


def test_jobs_back_to_back_keep_their_own_settings():
    rng = np.random.default_rng(4)
    points = [drawn(rng) for _ in range(3)]
    jobs, beats = zip(*points, strict=True)
    together = run_sequence(jobs, beats)
    alone = [select(*point) for point in points]
    np.testing.assert_array_equal(together.value, np.concatenate([v for v, _ in alone]))
    np.testing.assert_array_equal(together.index, np.concatenate([i for _, i in alone]))
    assert together.counts["sore", "compare", "full"] == 2 * sum(job.in_beats for job in jobs)
    assert together.counts["sore", "hand_over", "full"] == 2 * sum(job.out_beats for job in jobs)


def test_equal_magnitudes_keep_the_lower_index():
    lane = np.array([3, -3, 3, -3, 0, -1, 1, 1], np.int8)
    value, index = select(job(kept=2), np.stack([lane, -lane], axis=1))
    assert value.tolist() == [[3, -3], [-3, 3], [-1, 1], [1, -1]]
    assert index.tolist() == [[0, 0], [1, 1], [1, 1], [2, 2]]


def test_half_magnitudes_rank_nan_over_infinity_over_numbers():
    values = np.array([-0.0, 0.0, 2**-24, -1.0, 65504.0, -np.inf, np.nan], np.float16)
    ranks = magnitude(values).astype(int)
    assert ranks[0] == ranks[1] == 0
    assert (np.diff(ranks[1:]) > 0).all()


def test_integer_magnitude_of_the_most_negative_value_is_128():
    assert magnitude(np.array([-128, 127], np.int8)).tolist() == [128, 127]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lanes": 0}, "lanes must be at least 1, not 0"),
        ({"max_m": 65}, "max_m must be 1 to 64, not 65"),
        ({"max_m": 0}, "max_m must be 1 to 64, not 0"),
        ({"max_n": 9}, "max_n must be 1 to max_m = 8, not 9"),
        ({"max_n": 0}, "max_n must be 1 to max_m = 8, not 0"),
    ],
)
def test_params_out_of_range_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(PARAMS, **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group": 9}, "M must be 1 to 8 on this SORE, not 9"),
        ({"kept": 5}, "N must be 1 to 4 for M = 4 on this SORE, not 5"),
        ({"kept": 0}, "N must be 1 to 4 for M = 4 on this SORE, not 0"),
        ({"length": 0}, "at least 1, not 0 and 1"),
        ({"passes": 0}, "at least 1, not 8 and 0"),
    ],
)
def test_jobs_out_of_range_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        job(**changed)


def test_beats_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"Beats must be int8\[8, 2\], not float16\[8, 2\]"):
        run(job(), np.zeros((8, 2), np.float16))
    with pytest.raises(ValueError, match=r"Beats must be int8\[8, 2\], not int8\[7, 2\]"):
        run(job(), np.zeros((7, 2), np.int8))
    with pytest.raises(ValueError, match="one array of beats for each of one SORE's jobs, not 0"):
        run_sequence((job(),), ())


def test_missing_delays_are_refused():
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="one delay for each of 8 and 4 beats, not 0 and 0"):
        run(job(), np.zeros((8, 2), np.int8), SoreStalls(side=none, out=none))


def test_tensor_without_groups_is_refused():
    with pytest.raises(ValueError, match="at least 1 group, not 0"):
        sore_cycles(PARAMS, 0, 8, 2)


@pytest.mark.parametrize(
    ("n", "m", "takes"),
    [(1, 8, True), (3, 3, True), (3, 8, True), (4, 8, False), (0, 8, False), (2, 9, False)],
)
def test_selector_takes_what_a_job_of_it_may_ask(n, m, takes):
    """`selects` is true of exactly the N and M that a SoreJob accepts."""
    params = SoreParams(lanes=1, max_n=3, max_m=8)
    assert params.selects(n, m) is takes
    if takes:
        SoreJob(params=params, kept=n, group=m, length=m)
    else:
        with pytest.raises(ValueError, match="on this SORE"):
            SoreJob(params=params, kept=n, group=m, length=m)
