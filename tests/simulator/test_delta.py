"""The delta encoder: what it sends, what it keeps, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch.delta import DeltaJob
from simulator.arch.pe_grid import Skip
from simulator.units.delta import DeltaStalls, encode, run_sequence
from tests.simulator.test_pe_grid import GRID

DELTA = replace(GRID, delta_chunks=3)


def test_delta_memory_needs_skipping_of_activations():
    """Only a grid that skips absent activations can use an encoder."""
    with pytest.raises(ValueError, match="skip must be activations or both, not weights"):
        replace(DELTA, skip=Skip.WEIGHTS)
    with pytest.raises(ValueError, match="delta_chunks must be at least 0, not -1"):
        replace(DELTA, delta_chunks=-1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"chunks": 0}, "1 to delta_chunks = 3 chunks, not 0"),
        ({"chunks": 4}, "1 to delta_chunks = 3 chunks, not 4"),
        ({"frames": 0}, "frames of at least 1, not 0"),
        ({"threshold": -1}, "threshold must be 0 to 255, not -1"),
        ({"threshold": 256}, "threshold must be 0 to 255, not 256"),
    ],
)
def test_job_out_of_range_is_refused(change, sentence):
    """Each limit of a job has its sentence."""
    with pytest.raises(ValueError, match=sentence):
        replace(DeltaJob(arch=DELTA, chunks=1), **change)


def test_differences_above_the_threshold_are_sent_and_added_to_the_state():
    """A small change waits until it has grown past the threshold."""
    frames = np.array([[10, -3, 0], [12, -3, 3], [14, 5, 3]], np.int8)
    sent, mask, state = encode(frames, 3)
    assert sent.tolist() == [[10, 0, 0], [0, 0, 0], [4, 5, 0]]
    assert (mask == (sent != 0)).all()
    assert state.tolist() == [14, 5, 0]


def test_large_difference_is_clipped_and_sent_in_two_frames():
    """-128 to 127 is 255: 127 at once, then 127, then 1."""
    frames = np.array([[-128], [127], [127], [127]], np.int8)
    sent, _, state = encode(frames, 0)
    assert sent.ravel().tolist() == [-128, 127, 127, 1]
    assert state.tolist() == [127]


@pytest.mark.parametrize("threshold", [0, 5, 255])
def test_accumulated_products_are_those_of_the_state(threshold):
    """Sums over frames of what is sent equal the product of the state, exactly."""
    rng = np.random.default_rng(threshold)
    frames = rng.integers(-128, 128, (6, 20), dtype=np.int8)
    weight = rng.integers(-128, 128, (20, 4)).astype(np.int64)
    sent, mask, state = encode(frames, threshold)
    assert (sent.astype(np.int64).sum(axis=0) @ weight == state @ weight).all()
    assert (np.abs(frames[-1].astype(int) - state) <= max(threshold, 128)).all()
    assert mask.any() == (threshold < 255)


def test_resumed_job_goes_on_from_the_state():
    """Two jobs of which the second resumes send what one job sends; a fresh one starts over."""
    rng = np.random.default_rng(1)
    frames = rng.integers(-20, 20, (4 * 2, 8), dtype=np.int8)
    whole = DeltaJob(arch=DELTA, chunks=2, frames=4, threshold=6)
    half = replace(whole, frames=2)
    together = run_sequence([whole], [frames]).chunks
    resumed = run_sequence([half, replace(half, resume=True)], [frames[:4], frames[4:]]).chunks
    fresh = run_sequence([half, half], [frames[:4], frames[4:]]).chunks
    assert (together.value == resumed.value).all()
    assert (together.mask == resumed.mask).all()
    assert (fresh.mask != resumed.mask).any()


def test_chunks_or_delays_that_do_not_match_are_refused():
    """The encoder's input is checked before it is used."""
    job, chunks = DeltaJob(arch=DELTA, chunks=2), np.zeros((2, 8), np.int8)
    with pytest.raises(ValueError, match="one set of chunks for each of one encoder's jobs, not 0"):
        run_sequence([job], [])
    with pytest.raises(ValueError, match=r"int8 chunks \(2, 8\), not int8 \(1, 8\)"):
        run_sequence([job], [chunks[:1]])
    with pytest.raises(ValueError, match=r"int8 chunks \(2, 8\), not int64"):
        run_sequence([job], [chunks.astype(np.int64)])
    with pytest.raises(ValueError, match="A job resumes 2 chunks, but 1 have a state"):
        run_sequence([replace(job, chunks=1), replace(job, resume=True)], [chunks[:1], chunks])
    with pytest.raises(ValueError, match="one delay for each of 2 chunks, not 1 and 1"):
        run_sequence([job], [chunks], DeltaStalls.none([replace(job, chunks=1)]))
