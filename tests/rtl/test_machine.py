"""What the machine and its assembler refuse, by name."""

from dataclasses import replace

import pytest

from mapping.graph import map_graph
from rtl.machine.assembler import assemble, layout_rules
from rtl.machine.machine import check_machine
from rtl.machine.program import mask, packed
from rtl.machine.shapes import table_entry, tokens
from rtl.machine.vector import exponential_table, reciprocal_table
from simulator.arch.load import load_arch
from workloads.builder import GraphBuilder
from workloads.sparsity import NofM
from workloads.training import SGD

pytestmark = pytest.mark.rtl

ARCH = load_arch("sat-tiny")


def assembled(graph, arch=ARCH, *, aligned=True, **options):
    layout = layout_rules(graph, arch) if aligned else None
    return assemble(map_graph(graph, arch, layout=layout).schedule, graph, arch, **options)


def linear(features=16, depth=32, batch=8, method="bdwp"):
    net = GraphBuilder()
    x = net.linear("first", net.tensor("input", (batch, depth)), 32, post=("Relu",))
    net.linear("second", x, features)
    sparsity = None if method == "dense" else NofM(2, 4)
    return net.build("net").training(method, sparsity=sparsity)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"precision": "int8", "adder_latency": 1, "interleave": 1},
            "precision must be fp16, not int8",
        ),
        ({"training": None}, r"training units \(sore, wuve\) are needed"),
        (
            {"dram": {"bandwidth_bytes_per_s": 1_000_000_000}},
            "must be a power of two of at least 2 bytes a cycle, not 1000000000 / 200000000",
        ),
        ({"dram": {"latency_cycles": 2}}, "latency_cycles must be at least 3, .* not 2"),
        ({"training": {"wuve": {"lanes": 8}}}, "must be equal, not 4, 4, 4, 8 and 4"),
    ],
)
def test_a_machine_that_cannot_be_built_is_refused_by_parameter(change, sentence):
    arch = replace(ARCH, training=None) if change == {"training": None} else None
    with pytest.raises(ValueError, match=f"The RTL machine: .*{sentence}"):
        check_machine(arch or load_arch("sat-tiny", **change))


def test_tiles_that_are_not_whole_beats_are_refused_unless_the_mapper_avoids_them():
    net = GraphBuilder()
    x = net.conv("conv1", net.tensor("input", (2, 4, 4, 4)), 16, 3, post=("Relu",))
    net.conv("conv2", x, 16, 3, stride=2)
    graph = net.build("net").training("bdwp", sparsity=NofM(2, 4))
    small = load_arch("sat-tiny", weight_buffer={"capacity_bytes": 1200})
    with pytest.raises(ValueError, match=r"Op 'conv2\.ff' cannot .* are not whole beats of 64"):
        assembled(graph, small, aligned=False)
    assert assembled(graph, small).ops


def test_rows_that_fill_no_whole_beats_are_refused():
    with pytest.raises(ValueError, match=r"Op 'loss' .* no whole beats: 18 cycles, not 15"):
        assembled(linear(features=10))


def test_masks_that_stay_in_place_are_refused():
    """SR-STE's input gradient reads weights that are zero along the other axis: stored nowhere."""
    with pytest.raises(ValueError, match=r"Op 'second\.bp' cannot .* are not stored dense"):
        assembled(linear(method="sr-ste"), aligned=False)


def test_groups_are_refused():
    net = GraphBuilder()
    x = net.conv("conv", net.tensor("input", (2, 4, 4, 8)), 16, 3, groups=2)
    net.linear("fc", net.flatten("flatten", x), 16)
    with pytest.raises(ValueError, match=r"Op 'conv\.ff' cannot run on the RTL machine: it has"):
        assembled(net.build("net").training("dense"), aligned=False)


def test_vector_work_it_does_not_know_is_refused():
    net = GraphBuilder()
    x = net.conv("conv", net.tensor("input", (2, 4, 4, 4)), 16, 3)
    x = net.pool("pool", x, 1, "AveragePool")
    net.linear("fc", net.flatten("flatten", x), 16)
    with pytest.raises(ValueError, match=r"Op 'pool\.ff' cannot .*the vector unit knows Softmax"):
        assembled(net.build("net").training("dense"))


def test_another_optimizer_than_the_graphs_is_refused():
    with pytest.raises(ValueError, match=r"it is SGD\(learning_rate=0\.1.*, not SGD"):
        assembled(linear(), optimizer=SGD(learning_rate=0.5))


def test_a_program_that_is_too_long_is_refused_with_its_unit():
    with pytest.raises(ValueError, match=r"\d+ steps of unit dma, the machine holds 1024"):
        assembled(linear(depth=1024, batch=64))


def test_tensors_do_not_overlap_and_views_share_their_place():
    net = GraphBuilder()
    x = net.conv("conv", net.tensor("input", (2, 4, 4, 4)), 16, 3)
    net.linear("fc", net.flatten("flatten", x), 16)
    program = assembled(net.build("net").training("dense"))
    ends = 0
    for region in sorted(program.regions.values(), key=lambda r: r.beat):
        assert region.beat >= ends
        ends = region.beat + -(-region.size_bits // 64)
    assert ends == program.beats
    assert "flatten.out" not in program.regions


def test_words_have_the_layout_they_are_read_with():
    entry = packed(table_entry(), {"address": 5, "y": -1, "x": 2})
    assert entry == 5 | 0xFFF << 18 | 2 << 30
    assert packed(tokens(), [1, 0, 2, 0, 0, 0, 0, 7]) == 1 | 2 << 6 | 7 << 21
    assert mask(("in.full", "out.free")) == 0b10010
    with pytest.raises(ValueError, match=r"one token of 'act\.free', not several"):
        mask(("in.free", "act.free"))


def test_look_up_tables_are_exact_where_their_arguments_are():
    exp, inverse = exponential_table(), reciprocal_table()
    one, two = 0x3C00 >> 5, 0x4000 >> 5
    assert (exp[0], inverse[one], inverse[two]) == (0x3C00, 0x3C00, 0x3800)
    assert exp[one] == 0x35E3  # exp(-1) = 0.36788
    assert exp[0x7C00 >> 5] == 0
