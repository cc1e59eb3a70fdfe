"""Magnitude pruning equals a plain search for the largest values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workloads.pruning import prune
from workloads.sparsity import Balanced, Block, ConstantFanIn, NofM, Unstructured

# Few distinct magnitudes, so that ties are the rule rather than the exception.
VALUES = hnp.arrays(
    np.float32,
    st.one_of(
        st.tuples(st.integers(1, 20), st.integers(1, 9)),
        st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9)),
    ),
    elements=st.integers(-4, 4).map(float),
)
AXES = st.sampled_from([-2, -1])


def largest(row, kept):
    """The positions a stable sort by falling magnitude puts first."""
    chosen = sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[:kept]
    mask = np.zeros(len(row), dtype=bool)
    mask[chosen] = True
    return mask


@st.composite
def nofm(draw):
    m = draw(st.integers(1, 8))
    return NofM(draw(st.integers(0, m)), m)


@given(VALUES, nofm(), AXES)
def test_prune_nofm_equals_a_stable_sort_of_each_group(values, sparsity, axis):
    mask = np.moveaxis(prune(values, sparsity, axis), axis, -1)
    rows = np.moveaxis(values, axis, -1)
    for index in np.ndindex(rows.shape[:-1]):
        for start in range(0, rows.shape[-1], sparsity.m):
            group = rows[index][start : start + sparsity.m]
            got = mask[index][start : start + sparsity.m]
            assert np.array_equal(got, largest(group, sparsity.n))


@given(VALUES, st.integers(0, 12), AXES)
def test_prune_constant_fan_in_equals_a_stable_sort_of_each_feature(values, fan_in, axis):
    mask = np.moveaxis(prune(values, ConstantFanIn(fan_in), axis), axis, -1)
    rows = np.moveaxis(values, axis, -1)
    for index in np.ndindex(rows.shape[:-1]):
        assert np.array_equal(mask[index], largest(rows[index], fan_in))


@given(VALUES, st.floats(0, 1))
def test_prune_unstructured_equals_a_stable_sort_of_all(values, density):
    mask = prune(values, Unstructured(density))
    expected = largest(values.ravel(), round(density * values.size))
    assert np.array_equal(mask.ravel(), expected)


@given(VALUES, st.integers(1, 8), st.floats(0, 1), AXES)
def test_prune_balanced_equals_its_nofm(values, bank, density, axis):
    sparsity = Balanced(bank, density)
    assert np.array_equal(
        prune(values, sparsity, axis), prune(values, NofM(round(density * bank), bank), axis)
    )


@given(VALUES, st.tuples(st.integers(1, 5), st.integers(1, 5)), st.floats(0, 1))
def test_prune_block_drops_no_block_heavier_than_one_it_keeps(values, shape, density):
    sparsity = Block(shape, density)
    mask = prune(values, sparsity)
    assert int(mask.sum()) == sparsity.nnz(values.shape)
    matrices = np.abs(values.reshape(-1, *values.shape[-2:]))
    masks = mask.reshape(matrices.shape)
    kept: dict[tuple[int, ...], list[float]] = {}
    dropped: dict[tuple[int, ...], list[float]] = {}
    for g in range(len(matrices)):
        for i in range(0, matrices.shape[1], shape[0]):
            for j in range(0, matrices.shape[2], shape[1]):
                cut = (g, slice(i, i + shape[0]), slice(j, j + shape[1]))
                block, chosen = matrices[cut], masks[cut]
                assert chosen.all() == chosen.any()
                side = kept if chosen.any() else dropped
                side.setdefault(block.shape, []).append(float(block.sum()))
    for edge, weights in dropped.items():
        assert max(weights) <= min(kept.get(edge, [np.inf]))


@given(VALUES, nofm(), AXES)
def test_prune_already_pruned_values_changes_nothing(values, sparsity, axis):
    once = np.where(prune(values, sparsity, axis), values, 0)
    twice = np.where(prune(once, sparsity, axis), once, 0)
    assert np.array_equal(once, twice)
