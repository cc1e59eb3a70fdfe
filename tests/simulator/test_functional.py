import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from mapping.problem import Problem
from simulator.arch import Dataflow
from simulator.arch.load import load_arch
from simulator.functional import im2col, product
from simulator.nm_tile import NMSetting, Tile, encoded_bits, tile_events, tile_job
from simulator.units.nm_beats import pack
from workloads.graph import Gemm, Window
from workloads.sparsity import NofM

sizes = st.integers(1, 40)


def operands(rng, m, k, n, kept, group):
    act = rng.integers(-128, 128, (m, k)).astype(np.int8)
    weight = rng.integers(1, 128, (k, n)).astype(np.int8) * rng.choice([-1, 1], (k, n))
    mask = NofM(kept, group).sample((k, n), rng, axis=-2)
    return act, np.where(mask, weight, 0).astype(np.int8)


@st.composite
def cases(draw):
    group = draw(st.sampled_from([1, 3, 4, 8]))
    kept = draw(st.integers(1, group))
    arch = load_arch(
        "nm-tiny",
        rows=draw(st.integers(1, 5)),
        cols=draw(st.integers(1, 5)),
        macs_per_pe=draw(st.integers(1, 3)),
    )
    setting = NMSetting(
        dataflow=draw(st.sampled_from(list(Dataflow))), kept=kept, group=group, indexed=True
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return arch, setting, operands(rng, draw(sizes), draw(sizes), draw(sizes), kept, group)


@given(cases())
def test_product_equals_numpy_bit_for_bit(case):
    arch, setting, (act, weight) = case
    expected = act.astype(np.int32) @ weight.astype(np.int32)
    np.testing.assert_array_equal(product(arch, setting, act, weight), expected)


@given(cases())
def test_tile_events_equal_the_valid_items_of_the_beats(case):
    """The closed forms count what the array's operand streams really carry."""
    arch, setting, (act, weight) = case
    (m, k), n = act.shape, weight.shape[1]
    tile = Tile(groups=1, m=m, k=k, n=n)
    job = tile_job(arch, setting, tile)
    beats = pack(job, act, weight)
    events = tile_events(arch, setting, tile, first_k=True)
    values, indices = encoded_bits(arch, setting, tile)
    # Kept pairs per lane and beat: N a group over its slots for streams, one for WS loads.
    per_group = {Dataflow.OS: beats.top, Dataflow.IS: beats.side}.get(setting.dataflow)
    if per_group is None:
        pairs = beats.top.valid_lanes
    else:
        pairs = per_group.valid_lanes // job.slots_per_group * setting.kept
    assert events["weight_buffer", "read", "full"] == 8 * pairs
    assert events["weight_buffer", "read", "metadata"] == setting.index_bits * pairs
    assert pairs * 8 % values == 0
    assert indices * 8 == values * setting.index_bits


@given(
    st.integers(1, 2),
    st.integers(3, 9),
    st.integers(3, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
)
def test_im2col_equals_a_direct_convolution(batch, h, w, channels, kernel, stride, dilation, pad):
    window = Window(
        batch=batch,
        image=(h, w),
        channels=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        dilation=(dilation, dilation),
        padding=(pad, pad, pad, pad),
    )
    if min(window.out) < 1:
        return
    rng = np.random.default_rng(h * w)
    image = rng.integers(-9, 10, (batch, h, w, channels)).astype(np.int8)
    columns = im2col(window, image)
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = [
        np.concatenate(
            [
                padded[b, y * stride + i * dilation, x * stride + j * dilation]
                for i in range(kernel)
                for j in range(kernel)
            ]
        )
        for b in range(batch)
        for y in range(window.out[0])
        for x in range(window.out[1])
    ]
    np.testing.assert_array_equal(columns, rows)


@given(st.sampled_from([(8, 1, 8), (6, 2, 3), (4, 2, 4)]), st.sampled_from(list(Dataflow)))
def test_packed_groups_compute_the_grouped_convolution_bit_for_bit(case, dataflow):
    """Block-diagonal weights of several groups are N:M along k, and the array runs them so."""
    groups, channels, packed = case
    rng = np.random.default_rng(groups)
    window = Window(batch=1, image=(5, 6), channels=channels, kernel=(3, 3), padding=(1,) * 4)
    gemm = Gemm(groups=groups, m=30, k=9 * channels, n=2)
    problem = Problem(gemm=gemm, window=window, compressed=None).packed(packed)
    image = rng.integers(-128, 128, (1, 5, 6, groups * channels)).astype(np.int8)
    weight = rng.integers(-128, 128, (groups, 9 * channels, 2)).astype(np.int8)
    kept, group = problem.compressed
    setting = NMSetting(dataflow=dataflow, kept=kept, group=group, indexed=True)
    for first in range(0, groups, packed):
        part = slice(first * channels, (first + packed) * channels)
        act = im2col(problem.window, image[..., part])
        diagonal = np.zeros((9, packed, channels, packed, 2), dtype=np.int8)
        for g in range(packed):
            diagonal[:, g, :, g] = weight[first + g].reshape(9, channels, 2)
        found = product(
            load_arch("nm-tiny"), setting, act, diagonal.reshape(problem.gemm.k, problem.gemm.n)
        )
        for g in range(packed):
            own = slice((first + g) * channels, (first + g + 1) * channels)
            columns = im2col(window, image[..., own]).astype(np.int32)
            expected = columns @ weight[first + g].astype(np.int32)
            np.testing.assert_array_equal(found[:, 2 * g : 2 * g + 2], expected)


def test_product_refuses_a_group_with_more_than_n_values():
    arch = load_arch("nm-tiny")
    setting = NMSetting(dataflow=Dataflow.OS, kept=1, group=4, indexed=True)
    ones = np.ones((4, 4), dtype=np.int8)
    with pytest.raises(ValueError, match="holds 4 non-zeros, at most 1 fit"):
        product(arch, setting, ones, ones)
