"""Large draws are numpy's own, mark for mark, and leave the generator where numpy leaves it."""

import numpy as np
import pytest

from workloads import marking
from workloads.marking import mark


def chosen(size, kept, seed):
    """Return the mask that numpy's own draw gives, and what the generator draws next."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.bool_)
    mask[rng.choice(size, kept, replace=False, shuffle=False)] = True
    return mask, rng.integers(1 << 62)


@pytest.mark.parametrize("size", [10_001, 40_000])
@pytest.mark.parametrize("share", [0, 0.01, 0.05, 0.06, 0.3, 0.5, 0.9, 0.999, 1])
def test_a_compiled_draw_is_that_of_numpy(monkeypatch, size, share):
    """Sparse, dense and full draws: the same positions, then the same numbers."""
    monkeypatch.setattr(marking, "LARGE", 10_000)
    kept = round(share * size)
    for seed in range(3):
        rng, mask = np.random.default_rng(seed), np.zeros(size, np.bool_)
        mark(mask, kept, rng)
        wanted, following = chosen(size, kept, seed)
        assert np.array_equal(mask, wanted)
        assert rng.integers(1 << 62) == following


@pytest.mark.parametrize("kept", [1, (1 << 20) // 20, (1 << 20) // 20 + 1, (1 << 20) - 1])
def test_draws_of_the_size_that_is_compiled(kept):
    """At the limits from which a draw is compiled nothing changes."""
    size = 1 << 20
    rng, mask = np.random.default_rng(kept), np.zeros(size, np.bool_)
    mark(mask, kept, rng)
    wanted, following = chosen(size, kept, kept)
    assert np.array_equal(mask, wanted)
    assert rng.integers(1 << 62) == following


def test_only_large_draws_load_the_compiler(monkeypatch):
    """What is drawn at once is not worth it."""
    monkeypatch.setattr(marking, "_kernel", None)
    mask = np.zeros(1000, np.bool_)
    mark(mask, 300, np.random.default_rng(0))
    assert mask.sum() == 300
