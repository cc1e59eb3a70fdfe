"""What lowered programs move and when: drains, saved tensors and whole granules."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mapping import map_graph
from mapping.stream import map_stream
from mapping.types import NoMapping
from mapping.updates import update_stream
from simulator.arch.load import load_arch
from simulator.engine import program_cycles
from simulator.plan import Flow, GemmPlan, Stream, StreamPlan
from simulator.schedule import Repeat, Unit
from workloads.builder import GraphBuilder
from workloads.sparsity import NofM
from workloads.zoo import build


def flat(block):
    for item in block:
        if isinstance(item, Repeat):
            for _ in range(item.times):
                yield from flat(item.body)
        else:
            yield item


def network():
    net = GraphBuilder()
    x = net.linear("first", net.tensor("input", (8, 32)), 32, post=("Relu",))
    net.linear("second", x, 16)
    return net.build("net").training("bdwp", sparsity=NofM(2, 4))


@pytest.fixture(scope="module")
def schedule():
    graph = network()
    return {op.name: op for op in map_graph(graph, load_arch("sat-tiny")).schedule.ops}


def test_results_are_given_when_the_last_of_them_has_drained(schedule):
    gives = []
    for op in schedule.values():
        late = 0
        for step in flat(op.program):
            if step.label == "array":
                late = step.latency
            elif step.label == "give" and step.releases == ("out.full",) and step.unit == "array":
                assert step.latency == late
                gives.append(late)
    assert max(gives) > 0


def test_a_saved_tensor_is_read_once_with_its_results(schedule):
    """The gradient of the fused ReLU reads the saved output, 16 bits an element, and no more."""
    op = schedule["second.bp"]
    loads = [step for step in flat(op.program) if step.label == "load saved"]
    stores = [step for step in flat(op.program) if step.label == "store"]
    assert sum(step.counts["dram", "read", "full"] for step in loads) == 16 * 8 * 32
    assert len(loads) == len(stores)
    assert all(step.waits == ("out.full", "saved.full") for step in stores)
    assert not any(step.label == "load saved" for step in flat(schedule["second.ff"].program))


def test_saved_tensors_take_room_beside_the_sums():
    graph = network()
    room = {"out_buffer": {"capacity_bytes": 4 * 8 * 4}}
    tiles = {m.op: m.shape for m in map_graph(graph, load_arch("sat-tiny", **room)).mappings}
    sums = tiles["second.bp"].m * tiles["second.bp"].n
    assert 2 * sums * (4 + 2) <= 4 * 8 * 4 or sums == 8 * 32


def test_plans_tell_what_programs_were_lowered_from(schedule):
    assert isinstance(schedule["first.ff"].plan, GemmPlan)
    assert schedule["second.bp"].plan.saved
    assert not schedule["first.ff"].plan.saved
    update = schedule["first.update"].plan
    assert isinstance(update, StreamPlan)
    assert [f.role for f in update.stream.writes] == ["master", "momentum", "copy"]
    assert [f.role for f in schedule["second.update"].plan.stream.writes] == [
        "master",
        "momentum",
        "ff",
        "bp",
    ]


@st.composite
def streams(draw):
    granules = draw(st.integers(1, 3000))
    flows = []
    for role in "abcd"[: draw(st.integers(2, 4))]:
        each = draw(st.sampled_from([0, 8, 16, 32, 48, 72, 256]))
        rest = draw(st.sampled_from([0, 0, 0, 24, 160])) if each else 64
        flows.append(Flow(role=role, granule_bits=each, bits=each * granules + rest))
    unit = draw(st.sampled_from([Unit.VECTOR, Unit.WUVE]))
    return Stream(
        reads=tuple(flows[:-1]),
        writes=tuple(flows[-1:]),
        granules=granules,
        ops=granules,
        unit=unit,
    )


@given(streams(), st.sampled_from([256, 1024, 8192]))
@settings(max_examples=40)
def test_chunks_are_whole_granules_and_move_every_tensor_once(stream, capacity):
    arch = load_arch("sat-tiny", act_buffer={"capacity_bytes": capacity})
    try:
        program, tokens, plan = map_stream(arch, stream)
    except NoMapping:
        return
    chunks = list(plan.all())
    assert sum(chunk.granules for chunk in chunks) == stream.granules
    assert sum(chunk.ops for chunk in chunks) == stream.ops
    for i, flow in enumerate(stream.reads):
        assert sum(chunk.reads[i] for chunk in chunks) == flow.bits
        for chunk in chunks[1:]:
            assert chunk.reads[i] == chunk.granules * flow.granule_bits
    moved = {"read": 0, "write": 0}
    for step in flat(program):
        for way in moved:
            bits = step.counts.get(("dram", way, "full"), 0)
            moved[way] += bits
            if bits:  # each tensor's transfer takes whole beats of its own
                assert step.cycles == -(-bits // 64)
    assert moved == {
        "read": sum(f.bits for f in stream.reads),
        "write": sum(f.bits for f in stream.writes),
    }
    assert program_cycles(program, tokens) > 0


@given(streams())
@settings(max_examples=40)
def test_chunks_start_on_beats_where_such_chunks_fit(stream):
    arch = load_arch("sat-tiny", act_buffer={"capacity_bytes": 1 << 22})
    _, _, plan = map_stream(arch, stream)
    for chunk in plan.all():
        for flow in (*stream.reads, *stream.writes):
            assert chunk.start * flow.granule_bits % 64 == 0


def test_a_granule_that_fits_no_slot_is_refused_with_what_it_needs():
    stream = Stream(
        reads=(Flow(role="a", granule_bits=8 * 100, bits=8 * 100),),
        writes=(Flow(role="b", granule_bits=8, bits=8),),
        granules=1,
        ops=1,
    )
    arch = load_arch("sat-tiny", act_buffer={"capacity_bytes": 396})
    with pytest.raises(NoMapping, match="of at least 400, not 396"):
        map_stream(arch, stream)


def test_a_move_between_tensors_of_awkward_sizes_is_cut_to_fit():
    """196 patches joined by a class token: of 64 images."""
    arch = load_arch("sat-vcu1525")
    schedule = map_graph(build("vit-b16", batch=64), arch).schedule
    (joined,) = (op for op in schedule.ops if op.name == "embeddings.class_token")
    moved = {"load": 0, "store": 0}
    for step, times in joined.steps():
        if step.unit is Unit.DMA:
            bits = sum(n for (part, _, _), n in step.counts.items() if part == "dram")
            moved[step.label.split()[0]] += bits * times
    assert moved == {"load": 64 * 196 * 768 * 16, "store": 64 * 197 * 768 * 16}


def test_rows_too_long_for_the_buffer_are_updated_in_strips():
    """Strips of whole groups: the same bytes move, in granules that fit a slot."""
    graph = network()
    (update,) = (op for op in graph.ops if op.name == "second.update")
    whole = update_stream(graph, load_arch("sat-tiny"), update)
    arch = load_arch("sat-tiny", act_buffer={"capacity_bytes": 1024})
    strips = update_stream(graph, arch, update)
    assert (whole.granules, strips.granules) == (8, 32)
    assert strips.ops_per_granule == 4 * 4
    for one, other in zip(
        (*whole.reads, *whole.writes), (*strips.reads, *strips.writes), strict=True
    ):
        assert one.bits == other.bits == other.granule_bits * strips.granules
    assert map_stream(arch, strips)
