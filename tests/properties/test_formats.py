"""Storage formats: exact round trips and sizes for any tensor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.arch import formats as arch
from simulator.formats import bits, decode, encode

DTYPES = (np.int8, np.float16, np.float32)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=9)


@st.composite
def sparse_arrays(draw, shapes=SHAPES):
    """Draw an array with every representable value and many zeros, NaN and infinities too."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(shapes)
    values = draw(hnp.arrays(dtype, shape))
    return np.where(draw(hnp.arrays(np.bool_, shape)), values, np.zeros((), dtype))


@st.composite
def formats_for(draw, shape, element_bits):
    """Draw any format that can hold a tensor of `shape`."""
    axis = draw(st.integers(-len(shape), -1))
    m = draw(st.integers(1, 9))
    any_rank = [
        arch.dense(shape, element_bits=element_bits),
        arch.bitmask(shape, element_bits=element_bits),
        arch.coo(shape, element_bits=element_bits),
        arch.rle(shape, element_bits=element_bits, run_bits=draw(st.integers(1, 4))),
        arch.nm_index(shape, n=m, m=m, axis=axis, element_bits=element_bits),
    ]
    if len(shape) < 2:
        return draw(st.sampled_from(any_rank))
    block = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    matrices = [
        arch.csr(shape, element_bits=element_bits),
        arch.csc(shape, element_bits=element_bits),
        arch.block_bitmap(shape, block=block, element_bits=element_bits),
    ]
    return draw(st.sampled_from(any_rank + matrices))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_decode_of_encode_is_the_array(data):
    array = data.draw(sparse_arrays())
    fmt = data.draw(formats_for(array.shape, array.dtype.itemsize * 8))
    back = decode(encode(array, fmt))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_metadata_fits_its_stated_width(data):
    array = data.draw(sparse_arrays())
    fmt = data.draw(formats_for(array.shape, array.dtype.itemsize * 8))
    encoded = encode(array, fmt)
    for entries, width in zip(encoded.metadata, encoded.metadata_widths(), strict=True):
        assert entries.size == 0 or 0 <= int(entries.min()) <= int(entries.max()) < 1 << width


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_closed_form_size_equals_encoded_size(data):
    array = data.draw(sparse_arrays())
    fmt = data.draw(formats_for(array.shape, array.dtype.itemsize * 8))
    nnz = int(np.count_nonzero(array))
    if fmt.name in ("rle", "block-bitmap"):
        with pytest.raises(ValueError, match="depends on where the non-zeros lie"):
            bits(fmt, nnz=nnz)
    else:
        assert bits(fmt, nnz=nnz) == encode(array, fmt).bits


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 9), st.data())
@settings(max_examples=100, deadline=None)
def test_nm_index_holds_every_legal_mask(k, columns, m, data):
    n = data.draw(st.integers(0, m))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rank = rng.random((-(-k // m), m, columns)).argsort(axis=1)
    mask = (rank < n).reshape(-1, columns)[:k]
    weight = np.where(mask, rng.integers(1, 128, mask.shape), 0).astype(np.int8)
    encoded = encode(weight, arch.nm_index(weight.shape, n=n, m=m))
    assert encoded.bits == -(-k // m) * columns * n * (8 + (m - 1).bit_length())
    assert np.array_equal(decode(encoded), weight)


U, B = arch.Uncompressed(), arch.Bitmask()
CP = arch.CoordPayload(coord_bits=3)
RUN, OFFSETS = arch.RLE(run_bits=1), arch.OffsetPair(offset_bits=7)


@pytest.mark.parametrize(
    "levels",
    [(U, U, OFFSETS, CP), (OFFSETS, CP, U, U), (RUN, U, B, B), (CP, B, OFFSETS, RUN), (B, B, B, B)],
    ids=["tiled-csr", "block-csr", "rle-of-bitmasks", "mixed", "bitmask-tree"],
)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_levels_compose_in_any_order_of_ranks(levels, data):
    array = data.draw(sparse_arrays(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)))
    fmt = arch.Format(
        name="any",
        shape=array.shape,
        element_bits=array.dtype.itemsize * 8,
        block=data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        ranks=tuple((axis,) for axis in data.draw(st.permutations(range(4)))),
        levels=levels,
    )
    np.testing.assert_array_equal(decode(encode(array, fmt)), array)
