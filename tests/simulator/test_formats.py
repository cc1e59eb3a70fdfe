"""Storage formats: literal encodings, exact sizes and error sentences."""

import numpy as np
import pytest

from simulator.arch.formats import (
    FORMATS,
    RLE,
    Bitmask,
    CoordPayload,
    Format,
    OffsetPair,
    Uncompressed,
    bitmask,
    block_bitmap,
    coo,
    csc,
    csr,
    dense,
    nm_index,
    rle,
)
from simulator.formats import bits, decode, encode

MATRIX = np.array([[0, 5, 0, 0], [7, 0, 0, -1], [0, 0, 0, 0]], dtype=np.int8)


def test_formats_registry_lists_the_formats_of_the_design():
    assert list(FORMATS) == [
        "dense", "bitmask", "nm-index", "csr", "csc", "rle", "coo", "block-bitmap",
    ]  # fmt: skip


def test_dense_small_matrix_stores_every_element():
    encoded = encode(MATRIX, dense(MATRIX.shape))
    assert encoded.values.tolist() == MATRIX.reshape(-1).tolist()
    assert (encoded.value_bits, encoded.metadata_bits) == (96, 0)


def test_bitmask_small_matrix_stores_one_bit_an_element():
    encoded = encode(MATRIX, bitmask(MATRIX.shape))
    assert encoded.values.tolist() == [5, 7, -1]
    assert encoded.metadata[0].astype(int).tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert (encoded.value_bits, encoded.metadata_bits, encoded.bits) == (24, 12, 36)


def test_csr_small_matrix_stores_offsets_and_columns():
    encoded = encode(MATRIX, csr(MATRIX.shape))
    assert encoded.values.tolist() == [5, 7, -1]
    assert [m.tolist() for m in encoded.metadata] == [[0, 1, 3, 3], [1, 0, 3]]
    assert encoded.metadata_widths() == (4, 2)  # offsets count to 12, columns to 3
    assert encoded.metadata_bits == 4 * 4 + 3 * 2


def test_csc_small_matrix_stores_offsets_and_rows():
    encoded = encode(MATRIX, csc(MATRIX.shape))
    assert encoded.values.tolist() == [7, 5, -1]
    assert [m.tolist() for m in encoded.metadata] == [[0, 1, 2, 2, 3], [1, 0, 1]]


def test_coo_small_matrix_stores_a_field_for_each_axis():
    encoded = encode(MATRIX, coo(MATRIX.shape))
    assert encoded.metadata[0].tolist() == [0 << 2 | 1, 1 << 2 | 0, 1 << 2 | 3]
    assert encoded.metadata_bits == 3 * (2 + 2)


def test_rle_small_matrix_stores_zero_runs():
    encoded = encode(MATRIX, rle(MATRIX.shape))
    assert encoded.metadata[0].tolist() == [1, 2, 2]
    assert encoded.metadata_bits == 3 * 5


def test_rle_run_longer_than_its_field_stores_explicit_zeros():
    vector = np.zeros(12, dtype=np.int8)
    vector[[0, 9]] = 3, 4
    encoded = encode(vector, rle(vector.shape, run_bits=2))
    # Eight zeros: two entries of three zeros and an explicit one, then none left.
    assert encoded.metadata[0].tolist() == [0, 3, 3, 0]
    assert encoded.values.tolist() == [3, 0, 0, 4]
    assert np.array_equal(decode(encoded), vector)


def test_nm_index_small_matrix_pads_groups_with_value_and_index_zero():
    weight = np.array([[0, 1], [2, 0], [0, 3], [0, 0], [9, 0]], dtype=np.int8)
    encoded = encode(weight, nm_index(weight.shape, n=2, m=4))
    # Column 0: groups (0 2 0 0) and (9 + padding); column 1: (1 0 3 0) and (0 + padding).
    assert encoded.values.tolist() == [2, 0, 9, 0, 1, 3, 0, 0]
    assert encoded.metadata[1].tolist() == [1, 0, 0, 0, 0, 2, 0, 0]
    assert (encoded.value_bits, encoded.metadata_bits) == (8 * 8, 8 * 2)
    assert np.array_equal(decode(encoded), weight)


def test_block_bitmap_ragged_edge_stores_padded_blocks():
    encoded = encode(MATRIX, block_bitmap(MATRIX.shape, block=(2, 3)))
    assert encoded.metadata[0].astype(int).tolist() == [1, 1, 0, 0]
    assert encoded.values.tolist() == [0, 5, 0, 7, 0, 0, 0, 0, 0, -1, 0, 0]
    assert (encoded.value_bits, encoded.metadata_bits) == (12 * 8, 4)


def test_nm_index_group_over_its_quota_names_group_and_count():
    weight = np.zeros((8, 3), dtype=np.int8)
    weight[4:7, 2] = 1
    with pytest.raises(
        ValueError,
        match=r"'nm-index': group \(2, 1\) holds 3 non-zeros, at most 2 of 4 fit",
    ):
        encode(weight, nm_index(weight.shape, n=2, m=4))


@pytest.mark.parametrize(("n", "m"), [(3, 2), (-1, 4), (0, 0)])
def test_nm_index_illegal_quota_is_refused(n, m):
    with pytest.raises(ValueError, match=rf"0 <= N <= M and M >= 1, not {n}:{m}"):
        nm_index((8, 8), n=n, m=m)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (2, 8), (4, 4), (3, 7)])
@pytest.mark.parametrize("shape", [(64, 16), (13, 5), (1, 1)])
def test_nm_index_size_equals_scale_sim_ellpack_block(n, m, shape):
    # entries + entries * ceil(log2 M) / 32 words of 32 bits, N entries for each block of M.
    words = nm_index(shape, n=n, m=m, element_bits=32)
    entries = -(-shape[0] // m) * n * shape[1]
    assert bits(words) == 32 * entries + entries * int(np.ceil(np.log2(m)))


@pytest.mark.parametrize(("constructor", "pointers"), [(csr, 7), (csc, 10)])
def test_compressed_size_in_words_equals_scale_sim(constructor, pointers):
    array = np.arange(54, dtype=np.int32).reshape(6, 9) % 3
    words = constructor((6, 9), element_bits=32, coord_bits=32, offset_bits=32)
    nnz = int(np.count_nonzero(array))
    assert encode(array, words).bits == 32 * (2 * nnz + pointers)
    assert bits(words, nnz=nnz) == 32 * (2 * nnz + pointers)


def test_encode_batched_csr_keeps_offsets_for_each_matrix():
    array = np.stack([MATRIX, np.roll(MATRIX, 1, axis=0)])
    encoded = encode(array, csr(array.shape))
    assert encoded.metadata[1].tolist() == [0, 1, 3, 3, 0, 0, 1, 3]
    assert np.array_equal(decode(encoded), array)


def test_negative_zero_is_a_zero_and_decodes_as_zero():
    array = np.array([[-0.0, 1.0], [0.0, -0.0]], dtype=np.float32)
    encoded = encode(array, bitmask(array.shape, element_bits=32))
    assert encoded.values.tolist() == [1.0]
    assert not np.signbit(decode(encoded)).any()


def test_encode_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"'dense' is for shape \(2, 2\), not \(3, 4\)"):
        encode(MATRIX, dense((2, 2)))


def test_encode_wrong_element_width_is_refused():
    with pytest.raises(ValueError, match="'dense' holds 16-bit elements, not int8"):
        encode(MATRIX, dense(MATRIX.shape, element_bits=16))


@pytest.mark.parametrize("constructor", [rle, block_bitmap])
def test_bits_position_dependent_format_is_refused(constructor):
    with pytest.raises(ValueError, match="depends on where the non-zeros lie; encode it"):
        bits(constructor((8, 8)), nnz=3)


@pytest.mark.parametrize("nnz", [None, -1, 65])
def test_bits_impossible_nnz_is_refused(nnz):
    with pytest.raises(ValueError, match=rf"'csr' needs nnz from 0 to 64, not {nnz}"):
        bits(csr((8, 8)), nnz=nnz)


@pytest.mark.parametrize("constructor", [csr, csc, block_bitmap])
def test_matrix_formats_refuse_vectors(constructor):
    with pytest.raises(ValueError, match=r"needs at least two axes, not shape \(8,\)"):
        constructor((8,))


def test_format_metadata_narrower_than_its_rank_is_refused():
    with pytest.raises(ValueError, match="rank 1 of size 9: coord_bits must be at least 4, not 3"):
        csr((4, 9), coord_bits=3)
    with pytest.raises(ValueError, match="offset_bits must be at least 6 to count 36 entries"):
        csr((4, 9), offset_bits=5)
    with pytest.raises(ValueError, match="run_bits must be at least 1, not 0"):
        rle((4, 9), run_bits=0)


def _two_ranks(*levels):
    return Format(
        name="odd", shape=(4, 4), element_bits=8, block=(1, 1), ranks=((0,), (1,)), levels=levels
    )


def test_format_varying_fibres_without_offsets_are_refused():
    with pytest.raises(ValueError, match="must be outermost or under an OffsetPair"):
        _two_ranks(Uncompressed(), CoordPayload(coord_bits=2))
    with pytest.raises(ValueError, match="must be outermost or under an OffsetPair"):
        _two_ranks(Bitmask(), RLE(run_bits=2))


def test_format_offsets_without_a_rank_below_are_refused():
    with pytest.raises(ValueError, match="an OffsetPair needs a rank below it"):
        _two_ranks(Uncompressed(), OffsetPair(offset_bits=9))


def test_format_slots_beyond_their_rank_are_refused():
    with pytest.raises(ValueError, match="rank 1 of size 4: it cannot fill 5 slots"):
        _two_ranks(Uncompressed(), CoordPayload(coord_bits=2, slots=5))
    with pytest.raises(ValueError, match="fixed slots need Uncompressed ranks around them"):
        _two_ranks(Bitmask(), CoordPayload(coord_bits=2, slots=2))


def test_format_ranks_must_cover_every_axis_once():
    with pytest.raises(ValueError, match=r"must use each of the split axes \[0, 1\] once"):
        Format(
            name="odd",
            shape=(4, 4),
            element_bits=8,
            block=(1, 1),
            ranks=((0,), (0,)),
            levels=(Uncompressed(), Uncompressed()),
        )


def test_format_zero_sized_axis_is_refused():
    with pytest.raises(ValueError, match=r"sizes must be at least 1, not \(0, 4\)"):
        dense((0, 4))


def test_format_equal_parameters_share_a_digest():
    assert csr((4, 9)).digest() == csr((4, 9)).digest() != csc((4, 9)).digest()
