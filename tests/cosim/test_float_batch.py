"""The floating-point units against numpy, operand pairs by the hundred thousand."""

import numpy as np
import pytest

from rtl.float.batch import OPERATIONS, FloatBatch, build
from simulator.units.float32 import add, bits16, bits32, multiply, narrow, widen

pytestmark = pytest.mark.rtl

PAIRS = 100_000
"""Random operand pairs of each kind in CI."""

LONG_PAIRS = 1_000_000

# Zero, subnormals (smallest, two, middle, largest), smallest normals, around 1, around the largest.
CORNERS32 = [
    *(0x0, 0x1, 0x2, 0x3, 0x400000, 0x7FFFFE, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000),
    *(0x3EFFFFFF, 0x3F000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3F800002, 0x3FC00000),
    *(0x40000000, 0x4B000000, 0x4B7FFFFF, 0x4B800000, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF),
    *(0x1FFFFFFF, 0x20000000, 0x1F800001, 0x34000000, 0x33800000, 0x33800001, 0x337FFFFF),
    # fp16's largest, its tie with infinity and both neighbours; its smallest and half of that.
    *(0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FF001, 0x38800000, 0x387FFFFF, 0x387FE000),
    *(0x33800000, 0x33000000, 0x33000001, 0x32FFFFFF, 0x33C00000, 0x387FC000, 0x387FD000),
    # Infinity; NaNs quiet and signalling, with payloads.
    *(0x7F800000, 0x7FC00000, 0x7FC00001, 0x7F800001, 0x7FFFFFFF),
]
CORNERS16 = [
    *(0x0, 0x1, 0x2, 0x3, 0x200, 0x3FE, 0x3FF, 0x400, 0x401, 0x7FF, 0x800, 0x3BFF, 0x3C00),
    *(0x3C01, 0x3E00, 0x4000, 0x7800, 0x7BFE, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7E01, 0x7FFF),
]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> FloatBatch:
    return build(tmp_path_factory.mktemp("float_bank"), latency=3)


def expected(a, b):
    half_a, half_b = ((word & 0xFFFF).astype(np.uint16).view(np.float16) for word in (a, b))
    a, b = a.view(np.float32), b.view(np.float32)
    return {
        "sum": bits32(add(a, b)),
        "product": bits32(multiply(a, b)),
        "exact_product": bits32(multiply(half_a, half_b)),
        "narrowed": bits16(narrow(a)),
        "widened": bits32(widen(half_a)),
    }


def assert_equal_bits(batch, a, b):
    found, wanted = batch.run(a, b), expected(a, b)
    for operation in OPERATIONS:
        wrong = np.flatnonzero(found[operation] != wanted[operation])
        assert not wrong.size, (
            f"{operation}: {wrong.size} of {a.size} wrong, first a={a[wrong[0]]:#x} "
            f"b={b[wrong[0]]:#x}: RTL {found[operation][wrong[0]]:#x}, "
            f"numpy {wanted[operation][wrong[0]]:#x}"
        )


def bits(rng, size):
    return rng.integers(0, 1 << 32, size, dtype=np.uint32)


def packed(sign, exponent, fraction):
    """Return fp32 bits from integer arrays."""
    word = (sign.astype(np.int64) << 31) | (exponent.astype(np.int64) << 23) | fraction
    return word.astype(np.uint32)


def drawn(rng, size, low, high):
    """Return random fp32 bits with biased exponents from low to high, both included."""
    exponent = rng.integers(low, high, size, endpoint=True)
    return packed(rng.integers(0, 2, size), exponent, rng.integers(0, 1 << 23, size))


def all_pairs(corners, sign):
    values = np.array([*corners, *(corner | sign for corner in corners)], np.uint32)
    return np.repeat(values, values.size), np.tile(values, values.size)


def uniform_bits(rng, size):
    return bits(rng, size), bits(rng, size)


def near_exponents(rng, size):
    """Return pairs whose exponents are 0 to 30 apart, either one the larger, either sign."""
    low = rng.integers(0, 224, size)
    near, far = (
        packed(rng.integers(0, 2, size), low + up, rng.integers(0, 1 << 23, size))
        for up in (0, rng.integers(0, 31, size))
    )
    swap = rng.random(size) < 0.5
    return np.where(swap, far, near), np.where(swap, near, far)


def cancellation(rng, size):
    """Return pairs of opposite sign that differ by a few units in the last place or powers."""
    a = bits(rng, size)
    moved = rng.integers(-4, 5, size) << rng.integers(0, 25, size)
    return a, ((a.astype(np.int64) + moved) & 0x7FFFFFFF).astype(np.uint32) | (~a & 0x80000000)


def subnormal_sums(rng, size):
    return drawn(rng, size, 0, 2), drawn(rng, size, 0, 2)


def small_products(rng, size):
    """Return pairs whose products lie around the smallest normal and subnormal numbers."""
    low = rng.integers(1, 150, size)
    other = np.clip(127 - low + rng.integers(-28, 4, size), 0, 254)
    a, b = (rng.integers(0, 1 << 23, size) for _ in range(2))
    return packed(rng.integers(0, 2, size), low, a), packed(rng.integers(0, 2, size), other, b)


def large_products(rng, size):
    low = rng.integers(120, 255, size)
    other = np.clip(381 - low + rng.integers(-3, 3, size), 0, 254)
    a, b = (rng.integers(0, 1 << 23, size) for _ in range(2))
    return packed(rng.integers(0, 2, size), low, a), packed(rng.integers(0, 2, size), other, b)


def product_ties(rng, size):
    """Return odd 12- and 13-bit significands: products of 25 bits end in exactly one half."""
    a = (rng.integers(1 << 10, 1 << 11, size) * 2 + 1) << 12
    b = (rng.integers(1 << 11, 1 << 12, size) * 2 + 1) << 11
    low = rng.integers(100, 150, size)
    sign = rng.integers(0, 2, size)
    return packed(sign, low, a & 0x7FFFFF), packed(sign, low, b & 0x7FFFFF)


def sum_ties(rng, size):
    """Return a number and half its last place, exactly or just beside, of either sign."""
    exponent = rng.integers(60, 250, size)
    a = packed(rng.integers(0, 2, size), exponent, rng.integers(0, 1 << 23, size))
    beside = rng.integers(-1, 2, size)
    b = packed(rng.integers(0, 2, size), exponent - 24, np.zeros(size, np.int64)) + beside
    return a, b.astype(np.uint32)


def half_ties(rng, size):
    """Return numbers of fp16's range whose bits beyond its significand are one half or beside."""
    exponent = rng.integers(127 - 26, 127 + 17, size)
    dropped = np.clip(13 + (113 - exponent), 13, 23)
    fraction = rng.integers(0, 1 << 23, size)
    fraction = (fraction >> dropped << dropped) + (1 << (dropped - 1)) + rng.integers(-1, 2, size)
    word = packed(rng.integers(0, 2, size), exponent, fraction & 0x7FFFFF)
    return word, word[::-1].copy()


KINDS = (
    uniform_bits,
    near_exponents,
    cancellation,
    subnormal_sums,
    small_products,
    large_products,
    product_ties,
    sum_ties,
    half_ties,
)


@pytest.mark.parametrize(
    ("corners", "sign"), [(CORNERS32, 0x80000000), (CORNERS16, 0x8000)], ids=["fp32", "fp16"]
)
def test_units_on_all_pairs_of_corners_equal_numpy(batch, corners, sign):
    assert_equal_bits(batch, *all_pairs(corners, sign))


@pytest.mark.parametrize("kind", KINDS)
def test_units_on_random_pairs_equal_numpy(batch, kind):
    assert_equal_bits(batch, *kind(np.random.default_rng(2024), PAIRS))


def test_conversion_of_every_half_equals_numpy(batch):
    every = np.arange(1 << 16, dtype=np.uint32)
    assert_equal_bits(batch, every, every[::-1].copy())
    # Narrowing what was widened must give every number back.
    widened = batch.run(every, every)["widened"]
    halves = every.astype(np.uint16).view(np.float16)
    np.testing.assert_array_equal(batch.run(widened, widened)["narrowed"], bits16(halves))


def test_sums_over_every_exponent_distance_equal_numpy(batch):
    fractions = np.array([0, 1, 2, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF])
    signs, distance, large, small = (
        axis.ravel() for axis in np.meshgrid([0, 1], np.arange(31), fractions, fractions)
    )
    for exponent in (1, 31, 127, 254):
        low = np.maximum(exponent - distance, 0)
        a, b = packed(np.zeros_like(signs), 0 * low + exponent, large), packed(signs, low, small)
        assert_equal_bits(batch, a, b)
        assert_equal_bits(batch, b, a)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_units_on_a_million_random_pairs_equal_numpy(batch, kind, seed):
    assert_equal_bits(batch, *kind(np.random.default_rng([7, seed]), LONG_PAIRS))


@pytest.mark.long
def test_half_products_of_every_significand_pair_equal_numpy(batch):
    significands = np.arange(1 << 10, dtype=np.uint32)
    for exponents in ((0, 0), (1, 0), (14, 15), (30, 30)):
        tops = np.array([exponent << 10 for exponent in exponents], np.uint32)
        a = np.repeat(tops[0] + significands, significands.size)
        b = np.tile(tops[1] + significands, significands.size)
        assert_equal_bits(batch, a, b)


def test_batch_with_unequal_operands_says_so(batch):
    with pytest.raises(ValueError, match=r"uint32 vectors of one length, not uint32\[3\] and"):
        batch.run(np.zeros(3, np.uint32), np.zeros(2, np.uint32))


def test_build_without_a_compiler_names_it(tmp_path):
    with pytest.raises(RuntimeError, match="no-such-compiler could not compile the unit"):
        build(tmp_path, latency=1, compiler="no-such-compiler")
