"""Special functions: accuracy against float64, exactness against Python integers, slots."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch.special import MAX_LENGTH, SpecialJob, SpecialOp, SpecialParams, special_cycles
from simulator.units.special import (
    beat_slots,
    layernorm,
    pack_rows,
    rmsnorm,
    run,
    run_sequence,
    silu,
    softmax,
)

PARAMS = SpecialParams(lanes=4)
JOB = SpecialJob(params=PARAMS, op=SpecialOp.SOFTMAX, length=10, rows=3)
EVERY = np.arange(-(1 << 15), 1 << 15).astype(np.int16)


def fixed(values):
    return np.clip(np.round(values * 256), -(1 << 15), (1 << 15) - 1).astype(np.int16)


def drawn(rng, rows, length, spread=3.0):
    x = fixed(rng.normal(rng.normal(), spread, (rows, length)))
    return x, x / 256


@pytest.mark.parametrize("length", [1, 2, 16, 77, 4096])
@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_softmax_is_within_a_2048th_and_sums_to_one(length, spread):
    """Absolute error below 2**-11 of the float64 softmax of the same fixed-point inputs."""
    x, real = drawn(np.random.default_rng(length), 20, length, spread)
    power = np.exp(real - real.max(axis=1, keepdims=True))
    found = softmax(x, 16) / (1 << 15)
    assert np.abs(found - power / power.sum(axis=1, keepdims=True)).max() < 2**-11
    rounding = length * 2**-16
    assert np.abs(found.sum(axis=1) - 1).max() < 2**-11 + rounding


def test_softmax_of_extreme_rows_is_exact_enough():
    """Equal elements share evenly, an outlier takes all, wherever it stands."""
    assert softmax(np.full((1, 64), 32767, np.int16), 16)[0].tolist() == [512] * 64
    for place in (0, 17, 63):
        row = np.full((1, 64), -(1 << 15), np.int16)
        row[0, place] = (1 << 15) - 1
        wanted = np.zeros(64)
        wanted[place] = (1 << 15) - 1
        assert softmax(row, 16)[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("length", [2, 64, 768, 4096])
@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (5.0, 0.5), (-20.0, 30.0), (0.0, 0.05)])
def test_norms_are_within_a_unit_of_the_last_place(length, mean, spread):
    """Both norms of the same fixed-point inputs in float64, gamma and beta included."""
    rng = np.random.default_rng(length)
    x = fixed(rng.normal(mean, spread, (10, length)))
    real = x / 256
    gamma, beta = fixed(rng.uniform(-1, 1, length)), fixed(rng.uniform(-1, 1, length))
    deviation = np.maximum(real.std(axis=1, keepdims=True), 1e-9)
    exact = (real - real.mean(axis=1, keepdims=True)) / deviation * gamma / 256 + beta / 256
    wide = np.abs(exact).max() * 2**-12
    assert np.abs(layernorm(x, gamma, beta) / 256 - exact).max() < 1 / 256 + wide
    exact = real / np.sqrt((real**2).mean(axis=1, keepdims=True)) * gamma / 256
    wide = np.abs(exact).max() * 2**-12
    assert np.abs(rmsnorm(x, gamma) / 256 - exact).max() < 1 / 256 + wide


def test_norm_of_a_constant_row_is_beta_and_epsilon_damps():
    """No deviation gives beta; epsilon of a variance 1 row halves 1 / sqrt(2) of it."""
    constant = np.full((1, 8), 1234, np.int16)
    beta = np.arange(8).astype(np.int16)
    assert layernorm(constant, np.full(8, 256, np.int16), beta).tolist() == [beta.tolist()]
    assert rmsnorm(np.zeros((1, 8), np.int16), np.full(8, 256, np.int16)).tolist() == [[0] * 8]
    smallest = layernorm(np.array([[0, 1]], np.int16), np.full(2, 256, np.int16), beta[:2] * 0)
    assert smallest.tolist() == [[-256, 256]]
    row = np.array([[256, -256] * 4], np.int16)
    job = replace(JOB, op=SpecialOp.RMSNORM, length=8, epsilon=(1 << 16) - 1)
    damped = rmsnorm(row, np.full(8, 256, np.int16), job.floor)
    assert np.abs(damped - row / np.sqrt(2)).max() < 1


def test_silu_of_every_number_is_within_a_unit_of_the_last_place():
    """All 65536 inputs against float64."""
    real = EVERY / 256
    exact = real / (1 + np.exp(-real))
    assert np.abs(silu(EVERY) / 256 - exact).max() < 1 / 256
    assert silu(np.array([-(1 << 15), 0, (1 << 15) - 1], np.int16)).tolist() == [0, 0, 32767]


@pytest.mark.parametrize("op", [SpecialOp.ADD, SpecialOp.MUL])
def test_elements_are_rounded_half_up_and_saturated(op):
    """Sums and products against Python integers."""
    rng = np.random.default_rng(2)
    job = replace(JOB, op=op, length=500)
    a, b = (rng.choice([-32768, -129, -1, 0, 1, 127, 300, 32767], (3, 500)) for _ in range(2))
    a, b = a.astype(np.int16), b.astype(np.int16)
    found = run(job, pack_rows(job, a, b)).results.reshape(3, -1)[:, :500].tolist()
    for row, (left, right) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        for place, (p, q) in enumerate(zip(left, right, strict=True)):
            value = p + q if op is SpecialOp.ADD else (p * q + 128) >> 8
            assert found[row][place] == min(max(value, -(1 << 15)), (1 << 15) - 1)


@pytest.mark.parametrize("op", list(SpecialOp))
@pytest.mark.parametrize("length", [1, 4, 10])
def test_slots_of_rows_follow_without_a_gap(op, length):
    """Two-phase rows take their beats twice and a turn of 3 slots between; results at the last."""
    job = replace(JOB, op=op, length=length)
    side, top, out, slot = [], [], [], 0
    for _ in range(job.rows):
        for reading in range(1 + op.two_phase):
            slot += 3 * (reading == 1)
            for _ in range(-(-length // 4)):
                side.append(slot)
                if reading == op.two_phase:
                    out.append(slot + 6)
                    top += [slot] * op.second_operand
                slot += 1
    found = beat_slots(job)
    assert (found.side.tolist(), found.top.tolist(), found.out.tolist()) == (side, top, out)
    assert job.slots == slot
    assert special_cycles(PARAMS, op, length, 3) == job.cycles == slot + 6


def test_results_beyond_a_rows_end_are_zero_and_the_counts_are_those_of_the_beats():
    """10 elements on 4 lanes: 3 beats, the last with two lanes of 0."""
    x, _ = drawn(np.random.default_rng(1), 3, 10)
    trace = run(JOB, pack_rows(JOB, x))
    assert trace.results.reshape(3, 12)[:, 10:].tolist() == [[0, 0]] * 3
    np.testing.assert_array_equal(trace.results.reshape(3, 12)[:, :10], softmax(x, 4))
    assert trace.counts == {
        ("special", "element", "full"): 30,
        ("side", "beat", "full"): 18,
        ("top", "beat", "full"): 0,
        ("out", "beat", "full"): 9,
    }


def test_rows_that_grow_are_softmax_of_their_elements_alone():
    """Each row is that of a softmax as long as it, zeros behind; slots are those of whole rows."""
    x, _ = drawn(np.random.default_rng(2), 3, 10)
    job = replace(JOB, first=4)
    trace = run(job, pack_rows(job, x))
    for row, found in enumerate(trace.results.reshape(3, 12)):
        np.testing.assert_array_equal(found[: 4 + row], softmax(x[row : row + 1, : 4 + row], 4)[0])
        assert not found[4 + row :].any()
    assert trace.counts["special", "element", "full"] == 4 + 5 + 6
    assert job.slots == JOB.slots


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"length": 0}, "1 to 32768 elements, not 0"),
        ({"length": MAX_LENGTH + 1}, "1 to 32768 elements, not 32769"),
        ({"rows": 0}, "at least 1 row, not 0"),
        ({"epsilon": 1 << 16}, "Epsilon must be 0 to 65535 of 2\\*\\*16, not 65536"),
        ({"first": 9}, "softmax's, the first of at most 8 elements, not softmax's with 9"),
        ({"first": 1, "op": SpecialOp.SILU}, "Rows that grow are softmax's, .* not silu's with 1"),
    ],
)
def test_jobs_out_of_range_are_named(changed, message):
    """Every limit of a job has its sentence."""
    with pytest.raises(ValueError, match=message):
        replace(JOB, **changed)


def test_bad_operands_are_named():
    """No lanes, beats of another shape, two readings that differ, no jobs."""
    with pytest.raises(ValueError, match="lanes must be at least 1, not 0"):
        SpecialParams(lanes=0)
    beats = pack_rows(JOB, np.zeros((3, 10), np.int16))
    with pytest.raises(ValueError, match=r"Beats need x int16\[18, 4\], not int16\[17, 4\]"):
        run(JOB, replace(beats, x=beats.x[1:]))
    other = beats.x.copy()
    other[0, 0] = 5
    with pytest.raises(ValueError, match="Both readings of a row must bring the same elements"):
        run(JOB, replace(beats, x=other))
    with pytest.raises(ValueError, match="special-function unit's jobs, not 0"):
        run_sequence([JOB], [])
