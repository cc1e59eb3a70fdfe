"""The dequantiser's arithmetic, packing and slots against brute force."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from simulator.arch.dequantiser import CODE_BITS, DequantiserJob, DequantiserParams
from simulator.units.dequantiser import (
    DequantiserBeats,
    beat_slots,
    dequantise,
    pack_codes,
    run,
    run_sequence,
)

PARAMS = DequantiserParams(lanes=3)
JOB = DequantiserJob(params=PARAMS, bits=5, beats=7, scale_beats=3)


def drawn(rng, job):
    half = 1 << (job.bits - 1)
    codes = rng.integers(-half, half, (job.beats, job.params.lanes)).astype(np.int8)
    return codes, DequantiserBeats(
        words=pack_codes(job, codes),
        scale=rng.integers(0, 256, job.scales).astype(np.uint8),
        shift=rng.integers(0, 16, job.scales).astype(np.uint8),
    )


def test_every_code_scale_and_shift_is_rounded_half_up_and_saturated():
    """All 8-bit codes, all scales, all shifts against exact fractions (sampled) and integers."""
    code, scale, shift = np.meshgrid(
        np.arange(-128, 128), np.arange(256), np.arange(16), indexing="ij"
    )
    found = dequantise(code.astype(np.int8), scale.astype(np.uint8), shift.astype(np.uint8))
    exact = np.floor(code * scale / 2.0**shift + 0.5)
    np.testing.assert_array_equal(found, exact.clip(-128, 127))
    for c, s, r in [(-3, 1, 1), (3, 1, 1), (-128, 255, 15), (5, 77, 4), (-1, 1, 15)]:
        wanted = min(max(floor(Fraction(c * s, 1 << r) + Fraction(1, 2)), -128), 127)
        assert found[c + 128, s, r] == wanted


@pytest.mark.parametrize("bits", CODE_BITS)
@pytest.mark.parametrize("beats", [1, 2, 3, 7, 8, 16])
def test_unpacked_codes_are_those_packed_and_slots_those_of_a_bit_count(bits, beats):
    """A slot takes a word exactly when the bits left over do not fill its beat."""
    job = DequantiserJob(params=PARAMS, bits=bits, beats=beats, scale_beats=beats)
    codes, given = drawn(np.random.default_rng(beats), job)
    trace = run(job, replace(given, scale=np.array([1], np.uint8), shift=np.zeros(1, np.uint8)))
    np.testing.assert_array_equal(trace.weights, codes)
    left, slots = 0, []
    for slot in range(beats):
        if left < bits:
            left += 8
            slots.append(slot)
        left -= bits
    assert beat_slots(job).side.tolist() == slots
    assert (len(slots), job.scales) == (job.words, 1)
    assert trace.passage.accept_side.tolist() == slots
    assert int(trace.passage.emit[-1]) + 1 == job.cycles


def test_jobs_of_mixed_widths_follow_without_a_gap():
    """3, 4, 5 and 8 bits back to back take a beat a slot, each with its own factors."""
    rng = np.random.default_rng(0)
    jobs = [replace(JOB, bits=bits, beats=5 + bits) for bits in CODE_BITS]
    beats, wanted = [], []
    for job in jobs:
        codes, given = drawn(rng, job)
        which = np.arange(job.beats) // job.scale_beats
        wanted.append(dequantise(codes, given.scale[which, None], given.shift[which, None]))
        beats.append(given)
    trace = run_sequence(jobs, beats)
    np.testing.assert_array_equal(trace.weights, np.concatenate(wanted))
    assert trace.passage.emit.tolist() == list(range(2, 2 + sum(job.beats for job in jobs)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bits": 6}, "Codes must have one of 3, 4, 5, 8 bits, not 6"),
        ({"beats": 0}, "needs beats of at least 1, not 0"),
        ({"scale_beats": 0}, "needs scale_beats of at least 1, not 0"),
    ],
)
def test_jobs_out_of_range_are_named(changed, message):
    """Every limit of a job has its sentence."""
    with pytest.raises(ValueError, match=message):
        replace(JOB, **changed)


def test_bad_operands_are_named():
    """No lanes, codes too wide, beats of another shape, shifts too large, no jobs."""
    with pytest.raises(ValueError, match="lanes must be at least 1, not 0"):
        DequantiserParams(lanes=0)
    with pytest.raises(ValueError, match="Codes of 5 bits must be -16 to 15, not 0 to 16"):
        pack_codes(JOB, np.repeat(np.array([[0, 1, 16]], np.int8), 7, axis=0))
    with pytest.raises(ValueError, match=r"Codes must be \[7, 3\], not \[7, 2\]"):
        pack_codes(JOB, np.zeros((7, 2), np.int8))
    _, given = drawn(np.random.default_rng(0), JOB)
    with pytest.raises(ValueError, match=r"Beats need words uint8\[5, 3\], not uint8\[4, 3\]"):
        run(JOB, replace(given, words=given.words[:-1]))
    with pytest.raises(ValueError, match="Shifts must be below 16, not 16"):
        run(JOB, replace(given, shift=np.full(3, 16, np.uint8)))
    with pytest.raises(ValueError, match="one dequantiser's jobs, not 0"):
        run_sequence([JOB], [])
