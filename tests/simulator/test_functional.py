import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from simulator.arch import Dataflow
from simulator.arch.load import load_arch
from simulator.functional import im2col, product
from simulator.nm_tile import NMSetting, Tile, encoded_bits, tile_events, tile_job
from simulator.units.nm_beats import pack
from workloads.graph import Window
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
    values, indices = encoded_bits(setting, tile)
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


def test_product_refuses_a_group_with_more_than_n_values():
    arch = load_arch("nm-tiny")
    setting = NMSetting(dataflow=Dataflow.OS, kept=1, group=4, indexed=True)
    ones = np.ones((4, 4), dtype=np.int8)
    with pytest.raises(ValueError, match="holds 4 non-zeros, at most 1 fit"):
        product(arch, setting, ones, ones)
