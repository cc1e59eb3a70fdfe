import numpy as np
import pytest

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


def drawn(pattern, rows=6, cols=6):
    return ["".join(".#"[bit] for bit in row) for row in pattern.mask(rows, cols).astype(int)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (Diagonal(1), [".#....", "..#...", "...#..", "....#.", ".....#", "......"]),
        (MultiDiagonal((-2, 0)), ["#.....", ".#....", "#.#...", ".#.#..", "..#.#.", "...#.#"]),
        (Band(1, 2), ["###...", "####..", ".####.", "..####", "...###", "....##"]),
        (VerticalStripe(3, 1), ["#..#.."] * 6),
        (AShape(1, 2), ["#.....", "##....", "###...", "#.##..", "#..##.", "#...##"]),
        (VerticalSlash((1,), (0, 3)), ["#.....", ".#....", ".##...", "##.#..", ".#..#.", ".##..#"]),
        (BlockWindow(4), ["####..", "####..", "####..", "####..", "....##", "....##"]),
        (Radial(2), ["#####.", "####.#", "######", "######", "#.####", ".#####"]),
    ],
)  # fmt: skip
def test_mask_small_matrix_is_as_drawn(pattern, expected):
    assert drawn(pattern) == expected


def test_radial_far_frames_thin_out():
    mask = Radial(2).mask(40, 40)
    # Frame distance 4 to 7: p = 4 exceeds frame = 2, every second frame keeps equal positions.
    assert mask[0, [2 * 4, 2 * 5, 2 * 6]].tolist() == [True, False, True]
    assert not mask[0, 2 * 4 + 1]


def test_row_counts_rectangular_equal_the_mask():
    for pattern in (Radial(3), AShape(2, 3), VerticalSlash((0, 9), (1,)), Band(2, 30)):
        for rows, cols in ((7, 20), (20, 7), (1, 1)):
            counts = pattern.row_counts(rows, cols)
            assert np.array_equal(counts, pattern.mask(rows, cols).sum(axis=1))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Band(-1), "Band below must be at least 0, not -1"),
        (lambda: MultiDiagonal(()), "MultiDiagonal needs at least one offset"),
        (lambda: VerticalStripe(4, 5), "VerticalStripe width must be 0 to period = 4, not 5"),
        (lambda: VerticalSlash((-1,), ()), "VerticalSlash columns must be at least 0, not -1"),
        (lambda: BlockWindow(0), "BlockWindow width must be at least 1, not 0"),
        (lambda: Radial(0), "Radial frame must be at least 1, not 0"),
    ],
)
def test_construction_out_of_range_says_what_is_allowed(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
