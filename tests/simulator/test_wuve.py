"""WUVE's arithmetic, timing and closed forms."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch.wuve import WuveJob, WuveParams, wuve_cycles
from simulator.units.wuve import WuveBeats, WuveStalls, run, run_sequence, update

PARAMS = WuveParams(lanes=2, adder_latency=3, multiplier_latency=2)


def job(beats=5, params=PARAMS, **settings):
    chosen = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, **settings}
    return WuveJob(params=params, beats=beats, **chosen)


def drawn(rng, shape):
    return WuveBeats(
        weight=rng.normal(0, 1, shape).astype(np.float32),
        velocity=rng.normal(0, 1, shape).astype(np.float32),
        gradient=rng.normal(0, 1, shape).astype(np.float16),
    )


def test_update_equals_numpy_in_the_stated_order():
    beats = drawn(np.random.default_rng(0), (1000, 7))
    lr, mu, wd = np.float32(0.1), np.float32(0.9), np.float32(1e-4)
    w, v = beats.weight, beats.velocity
    g = beats.gradient.astype(np.float32)
    g = g + wd * w
    v = mu * v + g
    w = w - lr * v
    results = update(job(), beats)
    assert (results.weight == w).all()
    assert (results.velocity == v).all()
    assert (results.copy == w.astype(np.float16)).all()
    assert (results.weight.dtype, results.copy.dtype) == (np.float32, np.float16)


def test_update_rounds_every_operation_separately():
    # One ulp of 1 is lost in the product's rounding, so a fused multiply-add would differ.
    w = np.float32(1 + 2**-12)
    beats = WuveBeats(
        weight=np.full(1, w), velocity=np.zeros(1, np.float32), gradient=np.zeros(1, np.float16)
    )
    results = update(job(momentum=0.0, weight_decay=float(w), learning_rate=1.0), beats)
    assert results.velocity[0] == np.float32(float(w) ** 2)
    assert float(results.velocity[0]) != float(w) ** 2
    assert results.weight[0] == w - np.float32(float(w) ** 2)


def test_update_makes_infinite_copies_of_large_weights_and_canonical_nan():
    beats = WuveBeats(
        weight=np.array([70000.0, np.uint32(0xFFC12345).view(np.float32)], np.float32),
        velocity=np.zeros(2, np.float32),
        gradient=np.zeros(2, np.float16),
    )
    results = update(job(), beats)
    assert results.copy.view(np.uint16).tolist() == [0x7C00, 0x7E00]
    assert results.weight.view(np.uint32)[1] == 0x7FC00000


def brute_cycles(jobs, stalls):
    """Play the slots one at a time; returns acceptance and emission cycles."""
    latency = jobs[0].params.latency
    takes = [slot < job.beats for job in jobs for slot in range(job.slots)] + [False]
    accept, emit, offered, now = [], [], int(stalls.side[0]), -1
    for slot, take in enumerate(takes):
        now += 1
        if slot >= latency and takes[slot - latency]:
            now += int(stalls.out[len(emit)])
            emit.append(now)
        if take:
            now = max(now, offered)
            accept.append(now)
            last = len(accept) == stalls.side.size
            offered = now + 1 + (0 if last else int(stalls.side[len(accept)]))
    return accept, emit


@pytest.mark.parametrize("seed", range(40))
def test_cycles_under_stalls_equal_the_slot_by_slot_recurrence(seed):
    rng = np.random.default_rng(seed)
    jobs = [job(beats=int(rng.integers(1, 30))) for _ in range(rng.integers(1, 4))]
    quiet = WuveStalls.none(jobs)
    stalls = WuveStalls(
        side=rng.integers(0, 5, quiet.side.size) * rng.integers(0, 2),
        out=rng.integers(0, 5, quiet.out.size) * rng.integers(0, 2),
    )
    trace = run_sequence(jobs, [drawn(rng, (job.beats, 2)) for job in jobs], stalls)
    accept, emit = brute_cycles(jobs, stalls)
    assert trace.accept.tolist() == accept
    assert trace.emit.tolist() == emit


@pytest.mark.parametrize("elements", [1, 2, 9, 64])
@pytest.mark.parametrize("lanes", [1, 2, 32])
@pytest.mark.parametrize(("adder", "multiplier"), [(1, 1), (7, 4)])
def test_tensor_cycles_equal_the_trace(elements, lanes, adder, multiplier):
    params = WuveParams(lanes=lanes, adder_latency=adder, multiplier_latency=multiplier)
    chosen = job(beats=-(-elements // lanes), params=params)
    trace = run(chosen, drawn(np.random.default_rng(0), (chosen.beats, lanes)))
    assert wuve_cycles(params, elements) == chosen.cycles == trace.cycles


def test_counts_are_three_products_and_sums_an_element():
    trace = run(job(), drawn(np.random.default_rng(0), (5, 2)))
    assert trace.counts == {
        ("wuve", "multiply", "full"): 30,
        ("wuve", "add", "full"): 30,
        ("wuve", "convert", "full"): 10,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lanes": 0}, "lanes must be at least 1, not 0"),
        ({"adder_latency": 0}, "adder_latency must be 1 to 64, not 0"),
        ({"multiplier_latency": 65}, "multiplier_latency must be 1 to 64, not 65"),
    ],
)
def test_params_out_of_range_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(PARAMS, **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beats": 0}, "at least 1 beat, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite fp32 number, not nan"),
        ({"momentum": 1e39}, "momentum must be a finite fp32 number, not 1e\\+39"),
        ({"weight_decay": float("-inf")}, "weight_decay must be a finite fp32 number, not -inf"),
    ],
)
def test_jobs_out_of_range_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        job(**changed)


def test_operands_of_another_kind_are_refused():
    good = drawn(np.random.default_rng(0), (5, 2))
    with pytest.raises(ValueError, match=r"float32\[5, 2\], float32\[5, 2\], float32\[5, 2\]"):
        replace(good, gradient=good.weight)
    with pytest.raises(ValueError, match=r"of one shape, not float32\[4, 2\]"):
        replace(good, weight=good.weight[1:])


def test_beats_that_do_not_match_the_job_are_refused():
    with pytest.raises(ValueError, match=r"Beats must be \[5, 2\], not \[4, 2\]"):
        run(job(), drawn(np.random.default_rng(0), (4, 2)))
    with pytest.raises(ValueError, match="each of one WUVE's jobs, not 0"):
        run_sequence((job(),), ())


def test_tensor_without_elements_is_refused():
    with pytest.raises(ValueError, match="at least 1 element, not 0"):
        wuve_cycles(PARAMS, 0)
