"""Every sparsity structure draws masks with exactly the non-zeros it counts."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workloads.patterns import (
    AShape,
    Band,
    BlockWindow,
    Diagonal,
    MultiDiagonal,
    Radial,
    VerticalSlash,
    VerticalStripe,
)
from workloads.sparsity import (
    Balanced,
    Block,
    ConstantFanIn,
    Dense,
    Explicit,
    NofM,
    Positional,
    Unstructured,
    parse,
)

SIZES = st.integers(1, 40)
SHAPES = st.one_of(st.tuples(SIZES, SIZES), st.tuples(st.integers(1, 4), SIZES, SIZES))
AXES = st.sampled_from([-2, -1])
DENSITIES = st.floats(0, 1)
PLACES = st.lists(st.integers(0, 45), max_size=5).map(tuple)


@st.composite
def nofm(draw):
    m = draw(st.integers(1, 20))
    return NofM(draw(st.integers(0, m)), m)


PATTERNS = st.one_of(
    st.builds(Band, st.integers(0, 50), st.integers(0, 50)),
    st.builds(Diagonal, st.integers(-50, 50)),
    st.builds(MultiDiagonal, st.lists(st.integers(-50, 50), min_size=1, max_size=6).map(tuple)),
    st.integers(1, 20).flatmap(lambda p: st.builds(VerticalStripe, st.just(p), st.integers(0, p))),
    st.builds(AShape, st.integers(0, 50), st.integers(1, 50)),
    st.builds(VerticalSlash, PLACES, PLACES),
    st.builds(BlockWindow, st.integers(1, 50)),
    st.builds(Radial, st.integers(1, 50)),
)
SPARSITIES = st.one_of(
    st.just(Dense()),
    nofm(),
    st.builds(Unstructured, DENSITIES),
    st.builds(Block, st.tuples(st.integers(1, 9), st.integers(1, 9)), DENSITIES),
    st.builds(Balanced, st.integers(1, 20), DENSITIES),
    st.builds(ConstantFanIn, st.integers(0, 50)),
    st.builds(Positional, PATTERNS),
)


@given(SPARSITIES, SHAPES, AXES, st.integers(0, 5))
def test_sample_any_structure_has_the_counted_nonzeros(sparsity, shape, axis, seed):
    mask = sparsity.sample(shape, np.random.default_rng(seed), axis=axis)
    assert mask.shape == shape
    assert mask.dtype == np.bool_
    assert int(mask.sum()) == sparsity.nnz(shape, axis=axis)
    assert sparsity.density_for(shape, axis=axis) == mask.sum() / mask.size


@given(SPARSITIES, SHAPES, AXES)
def test_sample_same_seed_repeats(sparsity, shape, axis):
    first, second = (sparsity.sample(shape, np.random.default_rng(7), axis=axis) for _ in "ab")
    assert np.array_equal(first, second)


@given(nofm(), SHAPES, AXES)
def test_nofm_every_group_keeps_n_or_all_of_a_short_tail(sparsity, shape, axis):
    mask = sparsity.sample(shape, np.random.default_rng(0), axis=axis)
    along = np.moveaxis(mask, axis, -1)
    for start in range(0, shape[axis], sparsity.m):
        group = along[..., start : start + sparsity.m]
        assert (group.sum(axis=-1) == min(sparsity.n, group.shape[-1])).all()


@given(st.data(), st.integers(1, 12), st.integers(1, 3), SIZES, st.integers(1, 8))
def test_nofm_one_n_per_feature_is_kept_by_that_feature(data, m, groups, k, features):
    repeats = data.draw(st.sampled_from([1, groups]))
    n = tuple(data.draw(st.lists(st.integers(0, m), min_size=features * repeats,
                                 max_size=features * repeats)))  # fmt: skip
    sparsity = NofM(n, m)
    mask = sparsity.sample((groups, k, features), np.random.default_rng(0))
    kept = np.resize(np.array(n), (groups, features))
    full, tail = divmod(k, m)
    assert np.array_equal(mask.sum(axis=1), full * kept + np.minimum(kept, tail))
    assert int(mask.sum()) == sparsity.nnz((groups, k, features))


@given(st.integers(1, 9), st.integers(1, 9), DENSITIES, SHAPES)
def test_block_mask_is_made_of_whole_blocks(height, width, density, shape):
    sparsity = Block((height, width), density)
    mask = sparsity.sample(shape, np.random.default_rng(0)).reshape(-1, *shape[-2:])
    blocks = 0
    for i in range(0, shape[-2], height):
        for j in range(0, shape[-1], width):
            block = mask[:, i : i + height, j : j + width].reshape(len(mask), -1)
            assert (block.all(axis=1) == block.any(axis=1)).all()
            blocks += int(block.any(axis=1).sum())
    assert blocks == round(density * math.prod(sparsity.grid(shape)))


@given(
    st.one_of(
        st.just(Dense()),
        nofm(),
        st.builds(Unstructured, DENSITIES),
        st.builds(Block, st.tuples(st.integers(1, 999), st.integers(1, 999)), DENSITIES),
        st.builds(Balanced, st.integers(1, 999), DENSITIES),
    )
)
def test_parse_reads_back_what_str_writes(sparsity):
    assert parse(str(sparsity)) == sparsity


@given(SHAPES, st.integers(0, 3))
def test_explicit_equal_masks_compare_hash_and_digest_alike(shape, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.5
    one, two = Explicit(mask), Explicit(mask.astype(int))
    assert one == two
    assert hash(one) == hash(two)
    assert one.digest() == two.digest()
    flipped = mask.copy()
    flipped.flat[-1] ^= True
    assert one != Explicit(flipped)
    assert one.digest() != Explicit(flipped).digest()
    assert one != Explicit(mask.reshape(1, *shape))
