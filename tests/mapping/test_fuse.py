"""What may stay on chip, what it saves, and what it takes."""

import pytest

import sparseloom as sl
from mapping.fuse import best_keeping, rows
from mapping.graph import map_graph
from mapping.machines import map_graph as map_on
from mapping.types import NoMapping
from rtl.machine.assembler import assemble
from simulator.arch.load import load_arch
from simulator.schedule import Unit, verify_schedule
from simulator.simulate import simulate
from workloads.builder import GraphBuilder
from workloads.graph import OpKind

M, K, H, N = 12, 40, 24, 20


def perceptron():
    net = GraphBuilder()
    x = net.linear("first", net.tensor("input", (M, K)), H, post=("Relu",))
    x = net.vector("norm", OpKind.NORM, (x,), "LayerNorm", passes=2)
    net.linear("second", x, N)
    return net.build("perceptron")


def names(graph):
    return [[op.name for op in row.ops] for row in rows(graph)]


def test_rows_are_cut_where_a_tensor_has_another_reader():
    net = GraphBuilder()
    x = net.linear("a", net.tensor("input", (4, 8)), 8)
    y = net.linear("b", x, 8)
    z = net.add("sum", y, x)
    net.add("twice", z, z)
    assert names(net.build("residual")) == [["a"], ["b", "sum"], ["twice"]]


def test_rows_are_cut_at_second_operands_moves_and_other_repeats():
    net = GraphBuilder()
    x = net.tensor("input", (2, 4, 4))
    y = net.vector("a", OpKind.ELEMENTWISE, (x,), "Relu")
    y = net.matmul("weights", x, y)
    y = net.vector("move", OpKind.MOVE, (y,), "Transpose")
    y = net.vector("b", OpKind.ELEMENTWISE, (y,), "Relu")
    net.repeat = 3
    net.vector("c", OpKind.ELEMENTWISE, (y,), "Relu")
    assert names(net.build("cuts")) == [["a"], ["weights"], ["move"], ["b"], ["c"]]


def test_views_of_a_tensor_that_is_read_once_cut_no_row():
    net = GraphBuilder()
    x = net.conv("conv", net.tensor("input", (1, 4, 4, 2)), 4, 3)
    flat = net.flatten("flat", x)
    net.linear("head", net.flatten("again", flat), 5)
    assert names(net.build("view")) == [["conv", "head"]]
    net.add("other", flat, flat)
    assert names(net.build("views")) == [["conv"], ["head"], ["other"]]


def test_a_view_with_two_readers_cuts_the_row_of_what_it_views():
    net = GraphBuilder()
    x = net.conv("conv", net.tensor("input", (1, 4, 4, 2)), 4, 3)
    flat = net.flatten("flat", x)
    net.linear("one", flat, 5)
    net.linear("other", flat, 5)
    assert names(net.build("views")) == [["conv"], ["one"], ["other"]]


def test_best_keeping_takes_the_cheapest_way_and_of_equals_the_one_that_keeps_more():
    costs = {(0, 0, 0): 3, (0, 0, 1): 1, (1, 0, 0): 4, (1, 1, 0): 6, (1, 1, 1): 5, (1, 0, 1): 1}
    costs |= {(2, 0, 0): 2, (2, 1, 0): None}
    found = best_keeping(3, lambda *at: costs[at])
    assert (found.cost, found.kept) == (9, (True, False))
    assert best_keeping(3, lambda i, before, behind: None if i == 1 else 1) is None


def test_kept_tensors_do_not_move_and_cost_what_they_save():
    """Two bytes a value: neither result is stored nor read, the rest moves as before."""
    graph, arch = perceptron(), load_arch("sat-vcu1525")
    apart = simulate(map_graph(graph, arch).schedule, arch).per_op
    found = map_graph(graph, arch, fuse=True)
    verify_schedule(found.schedule)
    fused = simulate(found.schedule, arch).per_op
    assert found.fused.chains == (("first", "norm", "second"),)
    assert fused["dram_write_bytes"].tolist() == [0, 0, 2 * M * N]
    hidden = 2 * M * H
    saved = apart["dram_read_bytes"] - fused["dram_read_bytes"]
    assert saved.tolist() == [0, hidden, hidden]
    assert (fused["cycles"] < apart["cycles"]).tolist() == [False, True, True]
    assert found.fused.unfused == apart["cycles"].sum() > found.cost == fused["cycles"].sum()
    assert "2 tensors in 1 chains of operators stay on chip" in found.schedule.notes[-1]


def test_an_operator_with_both_tensors_on_chip_waits_for_no_transfer():
    found = map_graph(perceptron(), load_arch("sat-vcu1525"), fuse=True)
    norm = found.schedule.ops[1]
    assert {step.unit for step, _ in norm.steps()} == {Unit.VECTOR}
    assert norm.tokens == {}


def test_values_leave_the_output_buffer_once_whether_kept_or_stored():
    """Kept results take the store's way as far as the activation buffer."""
    graph, arch = perceptron(), load_arch("sat-vcu1525")
    apart, fused = (
        simulate(map_graph(graph, arch, fuse=fuse).schedule, arch) for fuse in (False, True)
    )
    for event in (("out_buffer", "read", "full"), ("act_buffer", "read", "full")):
        moved = apart.counts[event] - fused.counts[event]
        # Streams read the buffer for their work and once more for their store.
        assert moved == (16 * M * H if event[0] == "act_buffer" else 0)
    assert fused.macs_effectual == apart.macs_effectual


def test_a_tensor_stays_only_where_both_operators_have_room_beside_it():
    """The tensor between is 8 rows of 64 bytes; its producer needs four slots of a row more."""
    net = GraphBuilder()
    x = net.vector("norm", OpKind.NORM, (net.tensor("input", (8, 64)),), "LayerNorm", passes=2)
    net.linear("b", x, 8)
    for size, chains in (((8 + 4) * 64, (("norm", "b"),)), ((8 + 4) * 64 - 1, ())):
        arch = load_arch("nm-tiny", act_buffer={"capacity_bytes": size})
        found = map_graph(net.build("room"), arch, objective="dram_bytes", fuse=True)
        assert found.fused.chains == chains


def test_tiles_of_products_leave_room_for_the_tensors_that_stay():
    """What loads bring into all slots of the activation buffer fits beside what is kept there."""
    net, wide = GraphBuilder(), 32
    x = net.tensor("input", (8, wide))
    for name in ("a", "b", "c"):
        x = net.linear(name, x, wide)
    kept = set()
    for capacity in range(200, 900, 20):
        arch = load_arch("nm-tiny", act_buffer={"capacity_bytes": capacity})
        found = map_graph(net.build("products"), arch, objective="dram_bytes", fuse=True)
        ends = {name: (i > 0) + (name != chain[-1]) for chain in found.fused.chains
                for i, name in enumerate(chain)}  # fmt: skip
        for op in found.schedule.ops:
            tile = max(
                (step.counts["act_buffer", "write", "full"] for step, _ in op.steps()
                 if step.label == "load act"), default=0,
            )  # fmt: skip
            slots = tile // 8 * op.tokens.get("act.free", 0)
            assert slots + ends.get(op.name, 0) * 8 * wide <= capacity
        kept.add(sum(len(chain) - 1 for chain in found.fused.chains))
    assert kept == {0, 1, 2}


def test_an_operator_may_fit_only_with_its_tensors_kept():
    """Two rows instead of four chunks of a row: there is no cost to compare with."""
    net = GraphBuilder()
    x = net.linear("a", net.tensor("input", (1, 8)), 64)
    x = net.vector("softmax", OpKind.SOFTMAX, (x,), "Softmax", passes=2)
    net.linear("b", x, 8)
    graph = net.build("narrow")
    arch = load_arch("nm-tiny", act_buffer={"capacity_bytes": 160})
    with pytest.raises(NoMapping, match="Vector operators need act_buffer"):
        map_graph(graph, arch)
    found = map_graph(graph, arch, fuse=True)
    assert (found.fused.unfused, found.fused.chains) == (None, (("a", "softmax", "b"),))


def test_a_workload_that_fits_no_way_names_its_operator():
    arch = load_arch("nm-tiny", weight_buffer={"capacity_bytes": 1})
    with pytest.raises(NoMapping, match="Op 'first' fits no tile in weight_buffer"):
        map_graph(perceptron(), arch, fuse=True)


def test_training_steps_and_other_machines_are_not_fused():
    training = perceptron().training("dense")
    with pytest.raises(
        ValueError, match=r"Op 'first\.ff' belongs to a training step, .*: only inference can"
    ):
        map_graph(training, load_arch("sat-tiny"), fuse=True)
    for arch in ("stc-like", "grid-tiny"):
        with pytest.raises(ValueError, match="does not fuse operators; NMArray does"):
            map_on(perceptron(), load_arch(arch), fuse=True)
    with pytest.raises(ValueError, match="DspChain does not fuse operators; NMArray does"):
        sl.simulate(perceptron(), "flightllm-u280", fuse=True)


def test_without_memory_there_is_nothing_to_keep():
    arch = load_arch("nm-tiny", memory="ideal")
    assert map_graph(perceptron(), arch, fuse=True).fused is None


def test_the_generated_machine_refuses_a_fused_program():
    net = GraphBuilder()
    x = net.linear("a", net.tensor("input", (8, 32)), 32)
    net.linear("b", x, 32)
    graph, arch = net.build("two"), load_arch("sat-tiny")
    schedule = map_graph(graph, arch, objective="dram_bytes", fuse=True).schedule
    with pytest.raises(ValueError, match=r"Op 'a' .*its program has no plan"):
        assemble(schedule, graph, arch)


@pytest.mark.parametrize("objective", ["cycles", "energy", "edp", "dram_bytes"])
def test_a_proved_choice_has_no_gap_whatever_the_order_of_its_sum(objective):
    found = sl.map(sl.load("resnet18"), sl.arch("sat-vcu1525"), objective=objective, fuse=True)
    assert (found.gap, found.bound) == (0, found.cost)
