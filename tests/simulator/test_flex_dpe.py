"""The FlexDpe array's passes: values, routes, the closed form's cycles, and what it refuses."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapping import map_graph
from rtl.testing import bare_flex
from simulator.arch import Dataflow, Precision
from simulator.arch.accelerator import with_rtl, without_rtl
from simulator.arch.flex_job import FlexJob
from simulator.arch.load import load_arch
from simulator.simulate import simulate
from simulator.units.flex_dpe import pack_product, run_sequence, unpack_product
from simulator.units.flex_routes import distribute, route
from workloads.gemm import gemm_graph
from workloads.sparsity import Explicit

ARCH = bare_flex(2, 4, 4)
JOB = FlexJob(arch=ARCH, start=3, nonzeros=6, vectors=5, drain=True)


def distances(rows):
    return bare_flex(1, rows, 1).route_distances


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_network_routes_every_map(rows):
    """Any row reaches any rows: every map of up to four rows, free rows included."""
    for source in itertools.product(range(-1, rows), repeat=rows):
        seen = distribute(route(source), distances(rows), np.arange(rows))
        assert all(got == wanted for got, wanted in zip(seen, source, strict=True) if wanted >= 0)


@settings(deadline=None)
@given(st.integers(3, 7).flatmap(lambda bits: st.tuples(st.just(1 << bits), st.randoms())))
def test_network_routes_large_maps(drawn):
    """The same for random maps and permutations of up to 128 rows."""
    rows, random = drawn
    for source in (
        [random.randrange(-1, rows) for _ in range(rows)],
        random.sample(range(rows), rows),
    ):
        seen = distribute(route(source), distances(rows), np.arange(rows))
        assert all(got == wanted for got, wanted in zip(seen, source, strict=True) if wanted >= 0)


@pytest.mark.parametrize(("rows", "stages"), [(1, 0), (2, 1), (4, 5), (16, 13), (128, 25)])
def test_network_has_two_benes_networks_of_stages(rows, stages):
    """Two Benes networks share the stage at which they meet: 4 log2(rows) - 3."""
    assert len(distances(rows)) == stages
    assert route(np.arange(rows)).shape == (stages, rows)


def drawn_product(rng, arch):
    m, k, n = (int(size) for size in rng.integers(1, 3 * arch.peak_macs_per_cycle + 3, 3) // 2 + 1)
    mask = rng.random((k, n)) < rng.random()
    mask[rng.integers(k), rng.integers(n)] = True
    act = rng.integers(-128, 128, (m, k), dtype=np.int8)
    weight = rng.integers(-128, 128, (k, n), dtype=np.int8)
    return act, weight, mask


STRUCTURES = [(1, 1, 1), (1, 2, 1), (2, 1, 2), (1, 8, 8), (4, 2, 2), (2, 8, 4), (8, 4, 16)]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_passes_compute_the_product_in_the_cycles_of_the_machine(structure):
    """Sums are those of numpy; slots add up to what the whole machine says of the same masks."""
    arch = replace(bare_flex(*structure), dataflow=Dataflow.WS, memory="ideal")
    rng = np.random.default_rng(structure)
    for _ in range(8):
        act, weight, mask = drawn_product(rng, arch)
        product = pack_product(arch, weight.T, mask.T, act)
        trace = run_sequence(product.jobs, product.beats)
        kept = np.where(mask, weight, 0).astype(np.int64)
        seen = unpack_product(product, trace.results, weight.shape[1])
        assert (seen == act.astype(np.int64) @ kept).all()
        graph = gemm_graph(*act.shape, weight.shape[1], weight=Explicit(mask))
        machine = simulate(map_graph(graph, arch).schedule, arch)
        assert trace.passage.cycles == machine.cycles == sum(job.slots for job in product.jobs)
        assert trace.counts["side", "beat", "full"] == machine.array_busy


def test_array_of_sigma_takes_the_published_form_in_small():
    """One size where every term counts: 3 beats, 2 slices of 4 vectors and 1, one drain twice."""
    arch = bare_flex(1, 8, 4)
    mask = np.zeros((2, 12), np.bool_)
    mask[:, [0, 3, 5, 6, 9]] = True
    stationary, moving = np.ones((2, 12), np.int8), np.ones((4, 12), np.int8)
    product = pack_product(arch, stationary, mask, moving)
    # 10 values in 3 loads; 8 of the first slice fill the array, 2 of the second start anew.
    assert [(job.loads, job.vectors, job.drain) for job in product.jobs] == [
        (2, 4, True),
        (1, 4, True),
    ]
    assert run_sequence(product.jobs, product.beats).passage.cycles == 3 + 2 * 4 + 2 * 3


def test_values_of_one_beat_serve_several_passes():
    """A beat holds the end of a pass and the starts of others, which load nothing themselves."""
    arch = bare_flex(1, 4, 4)
    mask = np.eye(1, 16, dtype=np.bool_) | (np.arange(16) % 4 == 1)[None]
    product = pack_product(arch, np.ones((1, 16), np.int8), mask, np.ones((2, 16), np.int8))
    assert [job.nonzeros for job in product.jobs] == [2, 1, 1, 1]
    assert [job.loads for job in product.jobs] == [1, 0, 0, 1]
    assert [job.drain for job in product.jobs] == [False, False, True, True]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"start": 8}, "starts at multiplier 0 to 7, not 8"),
        ({"start": -1}, "starts at multiplier 0 to 7, not -1"),
        ({"nonzeros": 0}, "keeps 1 to 8 non-zeros, not 0"),
        ({"nonzeros": 9}, "keeps 1 to 8 non-zeros, not 9"),
        ({"vectors": 0}, "streams at least 1 vector, not 0"),
        ({"arch": replace(ARCH, precision=Precision.FP16)}, "needs precision int8, not fp16"),
    ],
)
def test_job_out_of_range_is_refused(change, sentence):
    """Each limit of a job has its sentence."""
    with pytest.raises(ValueError, match=sentence):
        replace(JOB, **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"precision": "fp16"}, "RTL of a FlexDpe needs precision int8, not fp16"),
        ({"dpes": 3}, "needs a power of two as dpes, not 3"),
        ({"dpe_size": 12}, "needs a power of two as dpe_size, not 12"),
        ({"loads_per_cycle": 6}, "needs a power of two as loads_per_cycle, not 6"),
        ({"dpes": 64}, "has at most 128 multipliers, not 512"),
        ({"loads_per_cycle": 32}, "loads_per_cycle of at most its 16 multipliers, not 32"),
    ],
)
def test_arrays_without_rtl_are_models_only_and_say_why(change, sentence):
    """The small preset has RTL; what it lacks elsewhere is named."""
    assert with_rtl(load_arch("flex-tiny"), "flex-tiny") == load_arch("flex-tiny")
    with pytest.raises(ValueError, match=f"^a.yaml: .*{sentence}"):
        with_rtl(load_arch("flex-tiny", **change), "a.yaml")


def test_the_published_array_is_a_model_only():
    """SIGMA's 16384 half-precision multipliers have no RTL; neither has a tensor core."""
    assert without_rtl(load_arch("sigma-like")) == "RTL of a FlexDpe needs precision int8, not fp16"
    assert without_rtl(load_arch("stc-like")) == (
        "a tensor_core is a model only and has no RTL; nm_array, pe_grid, flex_dpe have"
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [("value", (1, 4)), ("cluster", (0, 4)), ("side", (5, 8)), ("position", (5,))],
)
def test_beats_of_another_shape_are_refused(name, shape):
    """A job's beats must have its sizes."""
    rng = np.random.default_rng(0)
    product = pack_product(
        ARCH,
        np.ones((2, 4), np.int8),
        np.ones((2, 4), np.bool_),
        rng.integers(9, size=(5, 4)).astype(np.int8),
    )
    (job,), (beats,) = product.jobs, product.beats
    wrong = replace(beats, **{name: np.zeros(shape, np.int64)})
    with pytest.raises(ValueError, match=rf"Beats need {name} \["):
        run_sequence([job], [wrong])
    with pytest.raises(ValueError, match="one set of beats for each of one array's jobs, not 0"):
        run_sequence([job], [])


def test_operands_that_do_not_fit_are_refused():
    """Mask and stationary operand have one shape, vectors as many positions."""
    ones, mask = np.ones((2, 4), np.int8), np.ones((2, 4), np.bool_)
    with pytest.raises(ValueError, match=r"mask must be bool\[2, 4\], not int8\[2, 4\]"):
        pack_product(ARCH, ones, ones, ones)
    with pytest.raises(ValueError, match=r"mask must be bool\[2, 4\], not bool\[4, 2\]"):
        pack_product(ARCH, ones, mask.T, ones)
    with pytest.raises(ValueError, match=r"Vectors must have 4 positions, not \[2, 3\]"):
        pack_product(ARCH, ones, mask, ones[:, :3])
