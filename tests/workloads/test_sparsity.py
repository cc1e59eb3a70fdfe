import numpy as np
import pytest

from workloads.patterns import AShape, Band
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


def test_nofm_zero_padded_tail_keeps_at_most_its_length():
    assert NofM(2, 4).nnz((9, 1)) == 2 + 2 + 1
    assert NofM(3, 8).nnz((10, 5)) == 5 * (3 + 2)


def test_nofm_zero_n_empties_a_feature():
    mask = NofM((0, 1, 2), 2).sample((4, 3), np.random.default_rng(0))
    assert mask.sum(axis=0).tolist() == [0, 2, 4]


def test_nofm_own_axis_wins_over_the_tensors():
    mask = NofM(1, 4, -1).sample((3, 8), np.random.default_rng(0), axis=-2)
    assert mask.sum(axis=1).tolist() == [2, 2, 2]


def test_nofm_large_tensor_counts_without_a_mask():
    assert NofM(2, 8).nnz((1 << 20, 1 << 20)) == 1 << 38


def test_nofm_choices_are_uniform():
    mask = NofM(2, 4).sample((4, 60_000), np.random.default_rng(1))
    codes, counts = np.unique(np.packbits(mask, axis=0), return_counts=True)
    assert len(codes) == 6
    assert np.abs(counts - 10_000).max() < 400  # four standard deviations


def test_nofm_wide_group_uses_keys_and_stays_exact_and_uniform():
    mask = NofM(20, 64).sample((64, 20_000), np.random.default_rng(2))
    assert (mask.sum(axis=0) == 20).all()
    assert np.abs(mask.mean(axis=1) - 20 / 64).max() < 0.014  # four standard deviations


def test_unstructured_half_rounds_to_even():
    assert Unstructured(0.5).nnz((5, 1)) == 2
    assert Unstructured(0.5).nnz((7, 1)) == 4


def test_unstructured_over_several_chunks_is_exact():
    shape = (3000, 3000)  # more than two chunks of 2**22
    mask = Unstructured(0.3).sample(shape, np.random.default_rng(0))
    assert int(mask.sum()) == 2_700_000
    assert abs(mask[:1000].mean() - 0.3) < 0.002


def test_block_ragged_edges_keep_their_share():
    sparsity = Block((4, 4), 0.5)
    assert sparsity.nnz((10, 10)) == sparsity.sample((10, 10), np.random.default_rng(3)).sum()
    assert sum(kept for _, _, kept, _ in sparsity.strata((10, 10))) == round(0.5 * 9)


def test_density_of_each_type_that_states_one():
    assert Dense().density == 1
    assert NofM(2, 8).density == 0.25
    assert NofM((0, 4), 4).density == 0.5
    assert Explicit([[1, 0], [0, 0]]).density == 0.25
    assert Unstructured(0.3).density == 0.3


def test_balanced_realised_density_follows_whole_nonzeros():
    assert Balanced(8, 0.3).density_for((16, 2)) == 2 / 8


def test_constant_fan_in_is_capped_by_the_reduction():
    assert ConstantFanIn(9).nnz((4, 3)) == 12


def test_positional_repeats_over_leading_axes():
    sparsity = Positional(Band(1))
    mask = sparsity.sample((3, 4, 4), np.random.default_rng(0))
    assert (mask == mask[0]).all()
    assert sparsity.nnz((3, 4, 4)) == 3 * 7


def test_explicit_mask_is_copied_and_read_only():
    source = np.eye(3)
    sparsity = Explicit(source)
    source[0, 1] = 1
    assert sparsity.nnz((3, 3)) == 3
    with pytest.raises(ValueError, match="read-only"):
        sparsity.mask[0, 0] = False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dense", Dense()),
        ("2:8", NofM(2, 8)),
        ("unstructured:0.25", Unstructured(0.25)),
        ("block:4x16:.5", Block((4, 16), 0.5)),
        ("balanced:32:1e-1", Balanced(32, 0.1)),
        (" Dense ", Dense()),
    ],
)
def test_parse_known_form_gives_the_type(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "2:", "2:4:8", "a:b", "unstructured", "unstructured:x", "unstructured:nan",
             "block:4:0.5", "block:4x4", "balanced:0.5", "dense:1", "2.5:4", "9999999999:4"]
)  # fmt: skip
def test_parse_unknown_form_lists_the_forms(text):
    with pytest.raises(
        ValueError,
        match=r"Unknown sparsity .*: use dense, N:M, unstructured:D, block:RxC:D or balanced:B:D",
    ):
        parse(text)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: NofM(5, 4), "N:M sparsity needs 0 <= N <= M and M >= 1, not 5:4"),
        (lambda: NofM(0, 0), "N:M sparsity needs 0 <= N <= M and M >= 1, not 0:0"),
        (lambda: NofM(-1, 4), "N:M sparsity needs 0 <= N <= M and M >= 1, not -1:4"),
        (lambda: NofM((1, 7), 4), "N:M sparsity needs 0 <= N <= M and M >= 1, not 7:4"),
        (lambda: NofM((), 4), "N:M sparsity needs at least one N, not an empty tuple"),
        (lambda: NofM(1.5, 4), "N:M sparsity needs a whole N, not 1.5"),
        (lambda: Unstructured(1.5), "Density must lie between 0 and 1, not 1.5"),
        (lambda: Unstructured(float("nan")), "Density must lie between 0 and 1, not nan"),
        (lambda: Block((0, 4), 0.5), r"Block shape must be two sizes of at least 1, not \(0, 4\)"),
        (lambda: Balanced(0, 0.5), "Balanced bank must be at least 1, not 0"),
        (lambda: ConstantFanIn(-1), "ConstantFanIn k must be at least 0, not -1"),
        (lambda: Explicit([]), "An explicit mask needs at least one element"),
        (lambda: Explicit(["a"]), "An explicit mask must hold booleans or 0 and 1, not <U1"),
        (lambda: Explicit([1, 0.5]), "must hold booleans or 0 and 1, not 0.5; the mask of a"),
        (lambda: Explicit([[0, -1]]), "must hold booleans or 0 and 1, not -1; the mask of a"),
        (lambda: Explicit([0, np.nan]), "must hold booleans or 0 and 1, not nan; the mask"),
        (lambda: Positional(AShape(0, 0)), "AShape window must be at least 1, not 0"),
    ],
)
def test_construction_out_of_range_says_what_is_allowed(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


@pytest.mark.parametrize(
    ("sparsity", "shape", "sentence"),
    [
        (NofM((1, 2), 4), (8, 3), "gives 2 values of N for 3 output features"),
        (NofM(1, 4, 5), (8, 3), r"Reduction axis 5 lies outside a tensor of shape \(8, 3\)"),
        (Block((2, 2), 0.5), (8,), r"Block sparsity needs at least two axes, not shape \(8,\)"),
        (Explicit(np.ones((2, 2))), (2, 3), r"shape \(2, 2\), but its tensor has shape \(2, 3\)"),
    ],
)
def test_nnz_of_a_tensor_it_does_not_fit_says_why(sparsity, shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        sparsity.nnz(shape)
