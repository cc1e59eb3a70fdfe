"""Programs of the PEGrid: exact time of whole operators, blocks as jobs, bits, and causes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mapping.grid_cells
from mapping import NoMapping, map_graph
from mapping.grid_blocks import Timed, blocking
from mapping.grid_cells import time_gemm
from mapping.grid_lanes import act_lanes, weight_lanes
from mapping.grid_program import program, tokens
from simulator.arch.load import load_arch
from simulator.engine import program_cycles, unit_cycles, without
from simulator.functional import im2col
from simulator.models.product import Packed
from simulator.result import STALLS
from simulator.schedule import OpSchedule, Unit
from simulator.simulate import simulate
from simulator.units.pe_balance import column_order
from simulator.units.pe_chunks import grid_job, pack, pack_mask
from simulator.units.pe_grid import time_product
from simulator.units.pe_trace import run_sequence
from workloads.gemm import gemm_graph
from workloads.graph import Gemm, Op, OpKind, TensorSpec, Window, WorkloadGraph
from workloads.pruning import mask_of
from workloads.recording import recorded
from workloads.sparsity import Balanced, Dense, Explicit, NofM, Unstructured
from workloads.zoo import build

GRID = load_arch("grid-tiny", balance="none", memory="ideal")


def run(graph, arch=GRID, seed=0):
    return simulate(map_graph(graph, arch, seed=seed).schedule, arch)


def packed_masks(graph, arch, group=None):
    act, weight = mask_of(graph, "activation"), mask_of(graph, "weight")
    if group is not None:
        act, weight = act[group], weight[group]
    return pack_mask(act, arch.chunk), pack_mask(weight.T, arch.chunk)


CAUSES = {
    "compute": ("work",),
    "fifo": ("coupling",),
    "imbalance": ("imbalance",),
    "vacant": ("vacant",),
    "pipeline": ("fill", "drain"),
}
SIZES = st.integers(1, 40)
ZEROS = st.sampled_from([Dense(), Unstructured(0.0), Unstructured(0.4), Unstructured(0.9)])


@settings(max_examples=40, deadline=None)
@given(
    m=SIZES,
    k=SIZES,
    n=SIZES,
    act=ZEROS,
    weight=ZEROS,
    skip=st.sampled_from(["none", "weights", "activations", "both"]),
    balance=st.sampled_from(["none", "greedy"]),
)
def test_ideal_cycles_and_events_are_those_of_the_timed_product(
    m, k, n, act, weight, skip, balance
):
    """Dense operands are not drawn, and still take the time of a mask of ones."""
    arch = replace(GRID, skip=skip, balance=balance)
    graph = gemm_graph(m, k, n, weight=weight, activation=act)
    side, top = packed_masks(graph, arch)
    timing = time_product(arch, side, top.take(column_order(arch, top)), union=True)
    result = run(graph, arch)
    assert (result.cycles, result.array_busy) == (timing.cycles, timing.array_busy)
    assert result.macs_effectual == timing.effectual
    assert result.macs_weight == m * int(top.present.sum())
    assert result.macs_act == n * int(side.present.sum())
    assert result.counts["mac", "int8", "full"] == timing.counts["pe", "mac", "full"]
    assert result.counts["act_buffer", "read", "full"] == 8 * timing.counts["side", "value", "full"]
    causes = {cause: cycles for cause, cycles, _ in result.bottlenecks()}
    for cause, parts in CAUSES.items():
        whole = sum(timing.pe_cycles[part] for part in parts) / arch.pes
        assert abs(causes.get(cause, 0) - whole) < 1
    metadata = arch.chunk * timing.counts["top", "chunk", "full"]
    assert result.counts["weight_buffer", "read", "metadata"] == metadata


def test_groups_are_further_tiles_of_one_job():
    """The time of a grouped product follows from the spans of all its tiles in order."""
    zeros = {"weight": Unstructured(0.4), "activation": Unstructured(0.5)}
    graph = gemm_graph(50, 37, 23, groups=5, **zeros)
    timings = [time_product(GRID, *packed_masks(graph, GRID, g)) for g in range(5)]
    spans = np.concatenate([t.spans for t in timings])
    later = np.maximum(spans[1:] - 1, GRID.drain_beats).sum()
    assert run(graph).cycles == spans[0] + later


@pytest.mark.parametrize("elements", [1, 500, 5000])
def test_masks_drawn_in_parts_give_the_same_time(monkeypatch, elements):
    """How much is drawn at a time bounds memory, never results."""
    graph = gemm_graph(50, 37, 23, groups=5, weight=Unstructured(0.4), activation=Unstructured(0.5))
    whole = run(graph)
    monkeypatch.setattr(mapping.grid_cells, "MOST_ELEMENTS", elements)
    parts = run(graph)
    assert (parts.cycles, parts.counts) == (whole.cycles, whole.counts)
    assert (parts.per_op == whole.per_op).all()


def convolution(window, groups, features, mask):
    """Return a graph of one convolution on an image of known zeros; None is a dense image."""
    (height, width), (kh, kw) = window.out, window.kernel
    k, channels = kh * kw * window.channels, groups * window.channels
    gemm = Gemm(groups=groups, m=window.batch * height * width, k=k, n=features)
    shape = (window.batch, *window.image, channels)
    sparsity = Dense() if mask is None else Explicit(mask)
    tensors = [
        TensorSpec(name="image", dims=tuple("bhwc"), shape=shape, sparsity=sparsity),
        TensorSpec(
            name="weight",
            dims=("g", "k", "n"),
            shape=(groups, k, features),
            parameter=True,
            sparsity=Unstructured(0.5),
        ),
        TensorSpec(name="out", dims=("g", "m", "n"), shape=(groups, gemm.m, features)),
    ]
    op = Op(
        name="conv",
        kind=OpKind.CONV,
        inputs=("image", "weight"),
        output="out",
        gemm=gemm,
        window=window,
    )
    return WorkloadGraph(name="conv", ops=(op,), tensors={t.name: t for t in tensors})


DILATED = Window(
    batch=2, image=(8, 8), channels=2, kernel=(3, 3), dilation=(2, 1), padding=(2, 0, 1, 0)
)


@pytest.mark.parametrize("dense", [False, True], ids=["masked", "dense"])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    "window",
    [
        Window(batch=2, image=(7, 6), channels=4, kernel=(3, 3), padding=(1, 1, 1, 1)),
        Window(batch=1, image=(9, 8), channels=3, kernel=(3, 2), stride=(2, 3)),
        Window(
            batch=2, image=(8, 8), channels=2, kernel=(3, 3), dilation=(2, 1), padding=(2, 0, 1, 0)
        ),
        Window(batch=1, image=(5, 5), channels=16, kernel=(1, 1)),
    ],
    ids=["padded", "strided", "dilated", "pointwise"],
)
def test_convolutions_are_timed_by_the_windows_of_their_masks(window, groups, dense):
    """Window masks are those of im2col, borders are zeros, groups take their own channels."""
    shape = (window.batch, *window.image, groups, window.channels)
    whole = np.random.default_rng(0).random(shape) < (1 if dense else 0.5)
    mask = None if dense else whole.reshape(*shape[:3], -1)
    graph = convolution(window, groups, 5, mask)
    weights = mask_of(graph, "weight")
    spans, effectual = [], 0
    for g in range(groups):
        rows = im2col(window, whole[:, :, :, g])
        timing = time_product(GRID, pack_mask(rows, 8), pack_mask(weights[g].T, 8))
        spans += timing.spans.tolist()
        effectual += timing.effectual
    result = run(graph)
    later = np.maximum(np.array(spans[1:]) - 1, GRID.drain_beats).sum()
    assert (result.cycles, result.macs_effectual) == (spans[0] + later, effectual)
    stored = int(whole.sum())
    plain = 8 * whole.size <= 8 * stored + whole.size
    acts = 8 * (whole.size if plain else stored)
    weight_bits = 8 * int(weights.sum())
    assert result.counts["dram", "read", "full"] == acts + weight_bits
    metadata = weights.size + (0 if plain else whole.size)
    assert result.counts["dram", "read", "metadata"] == metadata


def timed(graph, arch):
    op = graph.ops[0]
    act, weight = act_lanes(graph, op), weight_lanes(graph, op, arch.balance)
    return Timed(
        grid=arch,
        gemm=op.gemm,
        cells=time_gemm(arch, op.gemm, act, weight),
        act=act.stored,
        weight=weight.stored,
        written=Packed(value_bits=8 * op.gemm.groups * op.gemm.m * op.gemm.n),
    )


def free_transfers(step):
    return replace(step, cycles=0, latency=0) if step.unit is Unit.DMA else step


@pytest.mark.parametrize("k", [5, 20])
@pytest.mark.parametrize("drain_rows", [1, 3])
@pytest.mark.parametrize(
    ("parts", "outer"), [((1, 1, 4), True), ((1, 3, 1), True), ((1, 3, 2), False)]
)
def test_blocks_take_the_time_of_jobs_back_to_back(parts, outer, drain_rows, k):
    """Without transfers a program ends when the last result of the same jobs has drained."""
    arch = replace(GRID, drain_rows=drain_rows, look_ahead=True)
    m, n = 27, 32
    graph = gemm_graph(m, k, n, weight=Unstructured(0.2), activation=Unstructured(0.3))
    blocks = blocking(timed(graph, arch), parts, rows_outer=outer)
    steps = program(blocks)
    act, weight = mask_of(graph, "activation"), mask_of(graph, "weight")
    rows = np.array_split(np.arange(m), parts[1])
    cols = np.array_split(np.arange(n), parts[2])
    order = [(r, c) for r in rows for c in cols] if outer else [(r, c) for c in cols for r in rows]
    jobs = [grid_job(arch, m=len(r), k=k, n=len(c)) for r, c in order]
    beats = [
        pack(job, act[r].astype(np.int8), weight[:, c].astype(np.int8))
        for job, (r, c) in zip(jobs, order, strict=True)
    ]
    trace = run_sequence(jobs, beats)
    cycles = program_cycles(without(steps, free_transfers), tokens(blocks))
    assert cycles == trace.emit[-1] + 1
    op = OpSchedule(name="op", kind="gemm", program=steps)
    assert sum(step.busy * times for step, times in op.steps()) == trace.array_busy


@pytest.mark.parametrize("order", [True, False])
def test_blocks_cover_the_product_and_load_what_changes(order):
    """Outputs, non-zeros and cycles of all blocks sum to the whole; parts reload as they must."""
    graph = gemm_graph(60, 64, 64, weight=Unstructured(0.3), activation=Unstructured(0.6))
    whole = timed(graph, GRID)
    blocks = blocking(whole, (1, 4, 2), rows_outer=order)
    assert blocks.size == 8
    assert blocks.outputs.sum() == 60 * 64
    loads = (blocks.act.loaded.sum(), blocks.weight.loaded.sum())
    assert loads == ((4, 8) if order else (8, 2))
    times = 1 if order else 2
    acts = blocks.act.nonzeros[blocks.act.loaded].sum()
    assert acts == times * mask_of(graph, "activation").sum()


@pytest.mark.parametrize("preset", ["grid-tiny", "s4-like", "sparten-like", "delta-rnn-like"])
def test_modelled_memory_lies_between_steady_and_serial(preset):
    """Memory hides behind work at best and follows it at worst."""
    graph = gemm_graph(100, 512, 96, weight=NofM(2, 8), activation=Unstructured(0.5))
    array, steady, modelled = (
        run(graph, load_arch(preset, memory=mode)) for mode in ("ideal", "steady", "modelled")
    )
    op = map_graph(graph, load_arch(preset)).schedule.ops[0]
    assert array.cycles <= steady.cycles <= modelled.cycles
    assert modelled.cycles <= sum(unit_cycles(op).values()) + 200 * len(list(op.steps()))


@pytest.mark.parametrize("arch", ["grid-tiny", "sparten-like"])
def test_causes_sum_to_cycles_and_none_is_negative(arch):
    """Every cycle has one cause, under every memory mode."""
    graph = build("resnet9", image=8).sparsify(Unstructured(0.3))
    for memory in ("modelled", "steady", "ideal"):
        result = run(graph, load_arch(arch, memory=memory))
        rows = result.per_op
        waits = sum(rows[f"stall_{cause}"] for cause in STALLS)
        assert all((rows[f"stall_{cause}"] >= 0).all() for cause in STALLS)
        assert (waits <= rows["cycles"]).all()
        assert sum(n for _, n, _ in result.bottlenecks()) == result.cycles
        assert result.utilisation <= 1


def test_greedy_balance_moves_imbalance_to_work():
    """Features of uneven density wait for each other, sorted ones less."""
    rng = np.random.default_rng(0)
    weight = Explicit(rng.random((256, 48)) < rng.random(48))
    graph = gemm_graph(48, 256, 48, weight=weight)
    shares = {}
    for balance in ("none", "greedy"):
        result = run(graph, load_arch("grid-tiny", memory="ideal", balance=balance, fifo_depth=32))
        shares[balance] = {cause: share for cause, _, share in result.bottlenecks()}
    assert shares["greedy"]["imbalance"] < shares["none"]["imbalance"]
    assert shares["greedy"]["compute"] > 1.2 * shares["none"]["compute"]


def test_shallow_fifos_show_as_their_own_cause():
    """Depth one couples PEs chunk by chunk, depth sixteen hardly at all."""
    graph = gemm_graph(48, 256, 48, weight=Unstructured(0.4), activation=Unstructured(0.4))
    fifo = {}
    for depth in (1, 16):
        result = run(graph, load_arch("grid-tiny", memory="ideal", fifo_depth=depth))
        fifo[depth] = {cause: n for cause, n, _ in result.bottlenecks()}.get("fifo", 0)
    assert fifo[1] > 10 * fifo[16]


def test_dense_products_draw_no_masks(monkeypatch):
    """A language model without a zero needs sizes only."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a mask was drawn")

    monkeypatch.setattr("mapping.grid_lanes.mask_of", refuse)
    result = run(build("llama2-7b", prefill=16), load_arch("sparten-like"))
    assert result.macs_effectual == result.macs_dense


def test_equal_operators_share_one_draw_and_say_so():
    """Layers of one shape are timed once; their names are in a note."""
    graph = build("resnet9", image=8).sparsify(Unstructured(0.3))
    notes = run(graph).notes
    assert any("drawn for another: res1.1, res2.1" in note for note in notes)
    assert any(note.startswith("Activations count as dense") for note in notes)


def test_seed_draws_other_masks_of_the_same_counts():
    """Cycles depend on the seed, effectual weights do not."""
    graph = gemm_graph(30, 64, 30, weight=Unstructured(0.4), activation=Unstructured(0.4))
    first, second = (run(graph, seed=seed) for seed in (0, 1))
    assert first.macs_weight == second.macs_weight
    assert first.cycles != second.cycles
    assert run(graph, seed=1).digest() == second.digest()


def test_results_of_known_zeros_leave_compressed():
    """A recorded output is written as non-zeros and a bitmask."""
    graph = gemm_graph(16, 32, 16)
    mask = np.random.default_rng(0).random((16, 16)) < 0.25
    counts = run(recorded(graph, {"output": mask})).counts
    assert counts["dram", "write", "full"] == 8 * int(mask.sum())
    assert counts["dram", "write", "metadata"] == 256
    assert run(graph).counts["dram", "write", "full"] == 8 * 256


def test_s4_speedup_is_one_over_the_density_up_to_32():
    """Banks of a chunk keep all PEs in step: the tile takes 32, 16 ... 1 cycles a chunk."""
    arch = load_arch("s4-like", memory="ideal")
    shape = (32, 1024, 32)
    dense = run(gemm_graph(*shape), arch).cycles
    for kept in (32, 16, 8, 4, 2, 1):
        sparse = run(gemm_graph(*shape, weight=Balanced(32, kept / 32)), arch).cycles
        assert (dense - 1, sparse - 1) == (32 * 32, 32 * kept)


def test_a_reduction_too_long_for_the_buffers_names_them():
    """What fits no buffer is said with need and size."""
    arch = load_arch("grid-tiny", weight_buffer={"capacity_bytes": 64})
    with pytest.raises(
        NoMapping, match=r"'gemm' fits no buffer: .* bytes of weight_buffer, not 64"
    ):
        run(gemm_graph(8, 512, 8), arch)


def test_a_frame_longer_than_the_delta_state_is_refused():
    """The encoder keeps a limited number of chunks."""
    with pytest.raises(ValueError, match=r"a frame of 2048 activations is 32 chunks, .* = 16"):
        run(gemm_graph(8, 2048, 8), load_arch("delta-rnn-like"))


def test_delta_machines_compare_every_activation():
    """Every position of every chunk passes the encoder."""
    counts = run(gemm_graph(8, 100, 8), load_arch("delta-rnn-like")).counts
    assert counts["delta", "compare", "full"] == 8 * 128


def test_training_is_refused():
    """A grid runs inference."""
    step = build("resnet9", image=8).training("dense")
    with pytest.raises(ValueError, match="belongs to a training step, which this machine"):
        run(step)


def test_a_mask_of_another_size_names_its_operator():
    """An explicit mask that is not the product's cannot be cut to it."""
    graph = gemm_graph(4, 8, 4, activation=Explicit(np.ones((4, 8), bool)))
    wide = replace(graph.tensors["activation"], shape=(5, 8), sparsity=Explicit(np.ones((5, 8))))
    odd = replace(graph, tensors={**graph.tensors, "activation": wide})
    with pytest.raises(ValueError, match=r"Op 'gemm': Mask of 'activation' has shape \(5, 8\)"):
        run(odd)
