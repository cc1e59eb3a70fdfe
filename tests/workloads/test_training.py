from dataclasses import replace

import numpy as np
import pytest

from workloads.builder import GraphBuilder
from workloads.graph import Gemm, Op, OpKind, Phase, TensorSpec, Window, WindowUse
from workloads.pruning import nnz_of, prune
from workloads.sparsity import Balanced, Dense, NofM, Unstructured
from workloads.training import SGD, Method, training
from workloads.training.gradients import vector_gradient
from workloads.zoo import build

S = NofM(2, 8)


def conv_net(batch=2):
    """Three convolutions, the second with stride 2 and the third depthwise, and a classifier."""
    net = GraphBuilder()
    x = net.conv("a", net.tensor("x", (batch, 8, 8, 16)), 16, 3, post=("Relu",))
    x = net.conv("b", x, 32, 3, stride=2, post=("Relu",))
    x = net.conv("c", x, 32, 3, groups=32, post=("Relu",))
    net.linear("d", net.flatten("flatten", x), 10)
    return net.build("conv-net")


def mlp(*widths, values=False):
    net = GraphBuilder()
    x = net.tensor("x", (4, widths[0]))
    for i, width in enumerate(widths[1:]):
        x = net.linear(f"fc{i}", x, width)
    graph = net.build("mlp")
    rng = np.random.default_rng(0)
    weights = [s for s in graph.tensors.values() if s.parameter] if values else []
    drawn = {s.name: rng.normal(size=s.shape).astype(np.float32) for s in weights}
    return replace(graph, values=drawn)


def vectors(*ops, x=(4, 8)):
    """A linear layer on x, then vector operators (name, kind, inputs, source, options)."""
    net = GraphBuilder()
    net.linear("fc", net.tensor("x", x), x[-1])
    for name, kind, inputs, source, options in ops:
        net.vector(name, kind, inputs, source, **options)
    return net.build("vectors")


def step_op(step, name):
    return next(op for op in step.ops if op.name == name)


def names(step, phase):
    return [op.name for op in step.ops if op.phase is phase]


# --- order, names, shapes --------------------------------------------------------------------


def test_training_operators_come_in_execution_order():
    step = mlp(8, 16, 8).sparsify(S, first_layer=True).training("bdwp")
    assert [op.name for op in step.ops] == [
        "fc0.ff",
        "fc1.ff",
        "loss",
        "fc1.bp",
        "fc1.wu",
        "fc1.update",
        "fc1.select_ff",
        "fc1.select_bp",
        "fc0.wu",
        "fc0.update",
        "fc0.select_ff",
    ]
    assert [op.phase for op in step.ops[:4]] == [Phase.FF, Phase.FF, Phase.BP, Phase.BP]
    assert [op.kind for op in step.ops[5:8]] == [OpKind.UPDATE, OpKind.SELECT, OpKind.SELECT]


def test_training_conv_shapes_are_exact():
    step = conv_net().training("dense")
    window = Window(
        batch=2, image=(8, 8), channels=16, kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)
    )
    ff, bp, wu = (step_op(step, f"b.{phase}") for phase in ("ff", "bp", "wu"))
    assert ff.gemm == Gemm(m=2 * 4 * 4, k=9 * 16, n=32)
    assert bp.gemm == Gemm(m=2 * 4 * 4, k=32, n=9 * 16)
    assert wu.gemm == Gemm(m=9 * 16, k=2 * 4 * 4, n=32)
    assert bp.inputs[:2] == ("b.out.grad", "b.weight.T")
    assert wu.inputs == ("a.out", "b.out.grad")
    assert ff.window == bp.window == wu.window == window
    assert [op.window_use for op in (ff, bp, wu)] == [
        WindowUse.GATHER_M,
        WindowUse.SCATTER,
        WindowUse.GATHER_K,
    ]
    shapes = {n: step.tensors[n].shape for n in (bp.output, wu.output, "b.weight.T")}
    assert shapes == {
        "a.out.grad": (2, 8, 8, 16),
        "b.weight.grad": (144, 32),
        "b.weight.T": (32, 144),
    }


def test_training_depthwise_keeps_kind_and_groups():
    step = conv_net().training("dense")
    bp, wu = step_op(step, "c.bp"), step_op(step, "c.wu")
    assert bp.kind is wu.kind is OpKind.DEPTHWISE
    assert bp.gemm == Gemm(groups=32, m=32, k=1, n=9)
    assert wu.gemm == Gemm(groups=32, m=9, k=32, n=1)
    assert step.tensors["c.weight.T"].shape == (32, 1, 9)


def test_training_linear_products_have_no_window():
    step = conv_net().training("dense")
    assert step_op(step, "d.bp").window_use is WindowUse.GATHER_M
    assert step_op(step, "d.wu").gemm == Gemm(m=512, k=2, n=10)


def test_training_first_layer_has_no_bp_and_says_so():
    step = conv_net().training("dense")
    assert "a.bp" not in names(step, Phase.BP)
    assert "a.weight.T" not in step.tensors
    assert "No BP, since nothing in front needs a gradient: a" in step.notes


def test_training_product_of_activations_gives_two_bp_and_no_wu():
    graph = build("vit-b16")
    step = graph.training("bdwp", sparsity=S)
    scores = "encoder.layer.3.attention.scores"
    first, second = step_op(step, f"{scores}.bp_0"), step_op(step, f"{scores}.bp_1")
    assert step_op(step, f"{scores}.ff").gemm == Gemm(groups=12, m=197, k=64, n=197)
    assert first.gemm == Gemm(groups=12, m=197, k=197, n=64)
    assert second.gemm == Gemm(groups=12, m=64, k=197, n=197)
    assert first.inputs[1] == step_op(step, f"{scores}.ff").inputs[1]
    assert second.inputs[0] == step_op(step, f"{scores}.ff").inputs[0]
    assert {step.tensors[i].sparsity for i in (*first.inputs, *second.inputs)} == {Dense()}
    assert f"{scores}.wu" not in names(step, Phase.WU)


def test_training_tensor_bits_are_those_of_the_machine():
    step = mlp(8, 16, 8).training("bdwp", sparsity=S)
    update = step_op(step, "fc1.update")
    assert [step.tensors[n].bits for n in (*update.inputs, update.output)] == [16, 32, 32, 16]
    assert [n for n in update.inputs if step.tensors[n].parameter] == [
        "fc1.weight.master",
        "fc1.weight.momentum",
    ]
    wide = {n for n, s in step.tensors.items() if s.bits != 16}
    assert {n.rsplit(".")[-1] for n in wide} == {"master", "momentum", "labels"}


def test_training_wide_tensors_keep_their_bits():
    graph = mlp(8, 8)
    index = replace(graph.tensors["x"], bits=64)
    step = replace(graph, tensors={**graph.tensors, "x": index}).training("dense")
    assert step.tensors["x"].bits == 64


def test_training_loss_is_one_vector_operator_on_the_last_output():
    loss = step_op(mlp(8, 16, 10).training("dense"), "loss")
    assert (loss.kind, loss.inputs, loss.output) == (
        OpKind.SOFTMAX,
        ("fc1.out", "labels"),
        "fc1.out.grad",
    )
    assert loss.passes == 3


def test_training_names_that_are_taken_are_avoided():
    graph = mlp(8, 8)
    taken = {n: replace(graph.tensors["x"], name=n) for n in ("labels", "fc0.out.grad")}
    step = replace(graph, tensors={**graph.tensors, **taken}).training("dense")
    assert step_op(step, "loss").inputs == ("fc0.out", "labels_")
    assert step_op(step, "loss").output == "fc0.out.grad_"


# --- sparsity by method ----------------------------------------------------------------------


def sparsities(step):
    weight, turned = step.tensors["fc1.weight"], step.tensors.get("fc1.weight.T")
    return weight.sparsity, turned and turned.sparsity


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("dense", (Dense(), Dense())),
        ("sr-ste", (S, NofM(2, 8, axis=-1))),
        ("bdwp", (S, S)),
        ("sdgp", (Dense(), None)),
    ],
)
def test_training_method_sets_the_structure_of_each_pass(method, expected):
    graph = mlp(16, 16, 32)
    for step in (graph.sparsify(S).training(method), graph.training(method, sparsity=S)):
        assert sparsities(step) == expected
        assert step.tensors["fc0.weight"].sparsity == Dense()
        assert {step.tensors[op.inputs[1]].sparsity for op in step.ops if op.phase == "wu"} == {
            Dense()
        }


def test_training_both_forms_of_shape_only_graphs_agree():
    graph = build("resnet18")
    assert graph.sparsify(S).training("bdwp") == graph.training("bdwp", sparsity=S)


def test_training_first_layer_asked_for_is_sparse():
    step = mlp(16, 16, 32).training("bdwp", sparsity=S, first_layer=True)
    assert step.tensors["fc0.weight"].sparsity == S


def test_training_sdgp_reads_the_gradient_through_the_compressed_port():
    step = conv_net().training("sdgp", sparsity=S)
    select, bp = step_op(step, "b.select_bp"), step_op(step, "b.bp")
    assert step.ops.index(bp) == step.ops.index(select) + 1
    assert (select.kind, select.phase, select.inputs) == (
        OpKind.SELECT,
        Phase.SELECT,
        ("b.out.grad",),
    )
    assert bp.inputs[:2] == ("b.weight", select.output)
    assert bp.gemm == Gemm(m=144, k=32, n=32)
    spec = step.tensors[select.output]
    assert (spec.shape, spec.sparsity, spec.parameter) == ((32, 32), S, False)
    assert step_op(step, "b.wu").inputs == ("a.out", "b.out.grad")
    assert names(step, Phase.SELECT) == ["d.select_bp", "b.select_bp"]


def test_training_sdgp_grouped_gradient_keeps_its_groups():
    net = GraphBuilder()
    x = net.conv("a", net.tensor("x", (1, 4, 4, 4)), 16, 1)
    net.conv("b", x, 16, 1, groups=2)
    step = net.build("grouped").training("sdgp", sparsity=NofM(2, 4))
    assert step.tensors["b.out.grad.selected"].shape == (2, 8, 16)
    assert step_op(step, "b.bp").gemm == Gemm(groups=2, m=8, k=8, n=16)


def test_training_bdwp_masks_come_from_the_same_dense_weights():
    graph = mlp(8, 16, 16, values=True)
    step = graph.training("bdwp", sparsity=S)
    dense = graph.values["fc1.weight"]
    forward, backward = step.values["fc1.weight"], step.values["fc1.weight.T"]
    assert np.array_equal(forward, np.where(prune(dense, S, -2), dense, 0))
    assert np.array_equal(backward, np.where(prune(dense, S, -1), dense, 0).T)
    assert not np.array_equal(forward != 0, backward.T != 0)
    assert np.array_equal(step.values["fc1.weight.master"], dense)


def test_training_sr_ste_multiplies_back_by_the_forward_weights():
    step = mlp(8, 16, 16, values=True).training("sr-ste", sparsity=S)
    assert np.array_equal(step.values["fc1.weight.T"], step.values["fc1.weight"].T)
    assert names(step, Phase.SELECT) == ["fc1.select_ff"]


@pytest.mark.parametrize("method", ["dense", "sdgp"])
def test_training_dense_weights_keep_their_values(method):
    graph = mlp(8, 16, 16, values=True)
    step = graph.training(method, sparsity=S)
    for name, dense in graph.values.items():
        assert np.array_equal(step.values[name], dense)


def test_training_selections_name_their_axis():
    step = mlp(8, 16, 32).training("bdwp", sparsity=S)
    forward, backward = (step.tensors[f"fc1.weight.next.{p}"] for p in ("ff", "bp"))
    assert (forward.shape, forward.sparsity) == ((16, 32), NofM(2, 8, axis=-2))
    assert (backward.shape, backward.sparsity) == ((32, 16), NofM(2, 8, axis=-2))
    assert nnz_of(step, forward.name) == nnz_of(step, "fc1.weight") == 128
    assert nnz_of(step, backward.name) == nnz_of(step, "fc1.weight.T") == 128


@pytest.mark.parametrize("method", ["bdwp", "sdgp"])
def test_training_features_fewer_than_a_group_run_bp_dense(method):
    step = conv_net().training(method, sparsity=S)
    assert step.tensors["c.weight.T"].sparsity == Dense()
    assert step_op(step, "c.bp").inputs[1] == "c.weight.T"
    note = "BP runs dense, since a group is longer than the output features: c"
    assert note in step.notes
    assert not {"c.select_bp"} & set(names(step, Phase.SELECT))


def test_training_method_without_sparse_weights_is_dense_training():
    graph = conv_net()
    assert graph.training("bdwp") == graph.training("dense")


# --- work ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet9", "resnet18", "vgg19", "mobilenet-v1", "vit-b16"])
def test_training_dense_macs_are_three_times_forward_less_first_bp(name):
    graph = build(name)
    first = next(graph.gemm_ops)
    assert graph.training("dense").macs == 3 * graph.macs - first.macs


def effectual(step, name):
    return sum(op.gemm.m * nnz_of(step, op.inputs[1]) for op in step.gemm_ops if name in op.name)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (2, 8), (1, 8), (2, 16)])
def test_training_effectual_macs_meet_the_published_bounds(n, m):
    graph = mlp(16, 32, 64)
    dense = effectual(graph.training("dense"), "fc1.")
    bdwp = effectual(graph.training("bdwp", sparsity=NofM(n, m)), "fc1.")
    assert dense * (2 * n + m) == bdwp * 3 * m  # 3 / (2 N/M + 1)
    # SR-STE skips in FF only: its BP has the same MACs as BDWP's but takes dense time.
    step = graph.training("sr-ste", sparsity=NofM(n, m))
    bp = step_op(step, "fc1.bp").macs
    timed = effectual(step, "fc1.ff") + bp + effectual(step, "fc1.wu")
    assert dense * (2 * m + n) == timed * 3 * m  # 3 / (2 + N/M)
    sdgp = graph.training("sdgp", sparsity=NofM(n, m))
    gradient = step_op(sdgp, "fc1.bp")
    assert gradient.gemm.m * nnz_of(sdgp, gradient.inputs[1]) * m == gradient.macs * n


@pytest.mark.parametrize("name", ["resnet50", "mobilenet-v2", "bert-base", "opt-6.7b"])
@pytest.mark.parametrize("method", list(Method))
def test_training_every_weight_is_updated_once(name, method):
    graph = build(name).sparsify(S)
    step = graph.training(method)
    weights = [n for n, s in graph.tensors.items() if s.parameter]
    updated = [op.inputs[1].removesuffix(".master") for op in step.ops if op.phase == "update"]
    assert sorted(updated) == sorted(weights)
    made = {op.output for op in step.ops}
    read = {name for op in step.ops for name in op.inputs}
    idle = {
        n for n in made - read if not n.removesuffix(".ff").removesuffix(".bp").endswith(".next")
    }
    assert idle == set()  # every gradient is read by somebody


def test_a_step_grows_with_layers_and_not_with_the_batch():
    small, large = (build("resnet50", batch=n).sparsify(S).training("bdwp") for n in (1, 64))
    assert [op.name for op in small.ops] == [op.name for op in large.ops]
    assert large.values == {}


# --- vector operators and fused work ---------------------------------------------------------


def test_relu_gradient_is_fused_into_the_product_that_makes_it():
    bp = step_op(conv_net().training("dense"), "c.bp")
    assert bp.post == ("Relu.grad",)
    assert bp.inputs == ("c.out.pre.grad", "c.weight.T", "b.out")


def test_relu_gradient_behind_a_view_is_an_operator():
    step = conv_net().training("dense")
    op = step_op(step, "c.post_bp")
    assert step_op(step, "flatten.bp").post == ()
    assert (op.kind, op.source, op.phase) == (OpKind.ELEMENTWISE, "Relu.grad", Phase.BP)
    assert op.inputs == ("c.out.grad", "c.out")


def test_relu_gradient_of_a_shared_gradient_is_an_operator():
    step = build("resnet9").training("dense")
    assert step_op(step, "res1.1.post_bp").inputs == ("res1.add.out.grad", "res1.1.out")
    total = step_op(step, "pool2.sum_bp")
    assert total.inputs == ("res1.add.out.grad", "pool2.out.grad_1")


def test_relu_gradient_of_a_gradient_somebody_read_is_an_operator():
    net = GraphBuilder()
    x = net.tensor("x", (4, 8))
    a, b = net.linear("a", x, 8, post=("Relu",)), net.linear("b", x, 8)
    net.vector("sub", OpKind.ELEMENTWISE, (a, b), "Sub")
    step = net.build("difference").training("dense")
    assert step_op(step, "loss").post == ()
    assert step_op(step, "sub.bp_1").inputs == ("sub.out.grad",)
    assert step_op(step, "a.post_bp").inputs == ("sub.out.grad", "a.out")


def test_fused_work_behind_an_operator_that_saves_its_output_is_split():
    net = GraphBuilder()
    x = net.conv("a", net.tensor("x", (1, 4, 4, 8)), 8, 3)
    net.vector("pool", OpKind.POOL, (x,), "MaxPool", shape=(1, 2, 2, 8), post=("Relu",))
    step = net.build("pooled").training("dense")
    assert step_op(step, "pool.post.bp").inputs == ("pool.out.grad", "pool.out")
    assert step_op(step, "pool.bp").inputs == ("pool.out.pre.grad", "a.out", "pool.out.pre")


def test_view_passes_its_gradient_to_its_first_input_alone():
    net = GraphBuilder()
    x = net.tensor("x", (4, 8))
    a, b = net.linear("a", x, 8), net.linear("b", x, 8)
    net.vector("view", OpKind.RESHAPE, (a, b), "View", shape=(8, 4))
    assert names(net.build("view").training("dense"), Phase.WU) == ["a.wu"]


def test_residual_gradient_is_copied_and_summed_where_paths_meet():
    step = build("resnet18").training("dense")
    block = "layer1.0"
    # The sum's ReLU gradient is fused into the operator that adds the next block's gradients.
    total = step_op(step, f"{block}.add.sum_bp")
    assert total.post == ("Relu.grad",)
    assert total.inputs[-1] == f"{block}.add.out"
    assert step_op(step, f"{block}.conv2.bp").inputs[0] == total.output
    assert total.output in step_op(step, "maxpool.sum_bp").inputs
    assert f"{block}.add.bp" not in names(step, Phase.BP)


def test_sum_of_three_gradients_counts_two_additions():
    step = build("bert-base").training("dense")
    total = step_op(step, "encoder.layer.0.norm.sum_bp")
    assert len(total.inputs) == 4  # residual, query, key and value
    assert total.passes == 3


def test_fused_work_that_needs_its_input_is_saved_and_split():
    net = GraphBuilder()
    x = net.linear("a", net.tensor("x", (4, 8)), 16, post=("Gelu",))
    net.linear("b", x, 4)
    step = net.build("gelu").training("dense")
    product, after = step_op(step, "a.ff"), step_op(step, "a.post.ff")
    assert (product.output, product.post) == ("a.out.pre", ())
    assert (after.inputs, after.output, after.source) == (("a.out.pre",), "a.out", "Gelu")
    back = step_op(step, "a.post.bp")
    assert (back.inputs, back.output) == (("a.out.grad", "a.out.pre"), "a.out.pre.grad")


def test_fused_chain_of_constants_is_one_function_backwards():
    net = GraphBuilder()
    x = net.linear("a", net.tensor("x", (4, 8)), 16, post=("Add", "Clip", "Mul", "Div"))
    net.linear("b", x, 4)
    back = step_op(net.build("swish").training("dense"), "a.post.bp")
    assert (back.source, back.post) == ("Div.grad", ("Mul.grad", "Clip.grad", "Add.grad"))
    assert back.inputs == ("a.out.grad", "a.out.pre")


def test_fused_bias_has_no_gradient_of_its_own():
    net = GraphBuilder()
    x = net.linear("a", net.tensor("x", (4, 8)), 16, post=("Add", "Relu"))
    net.linear("b", x, 4, post=("Add",))
    step = net.build("bias").training("dense")
    assert step_op(step, "b.bp").post == ("Relu.grad",)
    assert step_op(step, "loss").post == ()


def test_fused_gradient_reads_a_saved_tensor_once():
    bp = step_op(build("resnet18").training("dense"), "maxpool.bp")
    assert bp.inputs == ("maxpool.out.grad", "conv1.out", "maxpool.out")
    assert bp.post == ("Relu.grad",)


E_, N_, P_ = OpKind.ELEMENTWISE, OpKind.NORM, OpKind.POOL
SHAPES = {"x": (4, 8), "y": (4, 8), "row": (8,), "gamma": (8,)}


def rule(kind, source, inputs, index=0, **options):
    specs = {
        name: TensorSpec(
            name=name, dims=("d",) * len(shape), shape=shape, parameter=name == "gamma"
        )
        for name, shape in {**SHAPES, "out": options.pop("out", (4, 8))}.items()
    }
    op = Op(name="op", kind=kind, inputs=inputs, output="out", source=source, **options)
    found = vector_gradient(op, index, specs)
    return found and (found.kind, found.source, found.saved, found.passes)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (rule(E_, "Add", ("x", "y")), None),
        (rule(E_, "Add", ("x", "row"), 1), (N_, "ReduceSum", (), 1)),
        (rule(E_, "Sub", ("x", "y")), None),
        (rule(E_, "Sub", ("x", "y"), 1), (E_, "Sub.grad", (), 1)),
        (rule(E_, "Mul", ("x", "y")), (E_, "Mul.grad", ("y",), 1)),
        (rule(E_, "Mul", ("x", "y"), 1), (E_, "Mul.grad", ("x",), 1)),
        (rule(E_, "Mul", ("x",)), (E_, "Mul.grad", (), 1)),
        (rule(E_, "Div", ("x",)), (E_, "Div.grad", (), 1)),
        (rule(E_, "Div", ("x", "y")), (E_, "Div.grad", ("x", "y"), 1)),
        (rule(E_, "Relu", ("x",)), (E_, "Relu.grad", ("out",), 1)),
        (rule(E_, "Gelu", ("x",)), (E_, "Gelu.grad", ("x",), 1)),
        (rule(E_, "RotaryEmbedding", ("x",)), (E_, "RotaryEmbedding.grad", (), 1)),
        (rule(N_, "LayerNorm", ("x",), passes=2), (N_, "LayerNorm.grad", ("x",), 2)),
        (rule(N_, "ReduceMean", ("x",)), (N_, "ReduceMean.grad", (), 1)),
        (rule(N_, "ReduceMax", ("x",)), (N_, "ReduceMax.grad", ("x", "out"), 1)),
        (
            rule(N_, "BatchNormalization", ("x", "gamma")),
            (N_, "BatchNormalization.grad", ("gamma",), 1),
        ),
        (
            rule(OpKind.SOFTMAX, "Softmax", ("x",), passes=3),
            (OpKind.SOFTMAX, "Softmax.grad", ("out",), 2),
        ),
        (rule(P_, "MaxPool", ("x",), passes=3), (P_, "MaxPool.grad", ("x", "out"), 3)),
        (rule(P_, "AveragePool", ("x",)), (P_, "AveragePool.grad", (), 1)),
        (rule(OpKind.MOVE, "Gather", ("x",)), (OpKind.MOVE, "Gather.grad", (), 1)),
        (rule(OpKind.MOVE, "Resize", ("x",)), (N_, "Resize.grad", (), 1)),
        (rule(OpKind.RESHAPE, "Flatten", ("x",)), (OpKind.RESHAPE, "Flatten.grad", (), 1)),
        (rule(E_, "Add", ("x", "row"), out=(1, 4, 8)), (OpKind.RESHAPE, "Reshape", (), 1)),
    ],
)
def test_vector_gradient_reads_what_it_needs(made, expected):
    assert made == expected


def test_vector_gradient_of_a_product_is_refused():
    op = Op(name="op", kind=OpKind.GEMM, inputs=("x", "y"), output="z", gemm=Gemm(m=1, k=1, n=1))
    with pytest.raises(ValueError, match="Op 'op': a gemm is no vector operator"):
        vector_gradient(op, 0, {})


def test_vector_operator_of_two_activations_has_a_gradient_for_each():
    graph = vectors(
        ("s", E_, ("fc.out",), "Sigmoid", {}), ("mul", E_, ("fc.out", "s.out"), "Mul", {})
    )
    step = graph.training("dense")
    assert step_op(step, "mul.bp_0").inputs == ("mul.out.grad", "s.out")
    assert step_op(step, "mul.bp_1").inputs == ("mul.out.grad", "fc.out")
    assert step_op(step, "fc.sum_bp").inputs == ("fc.out.grad_0", "fc.out.grad_1")


def test_shape_arithmetic_needs_no_gradient():
    graph = vectors(
        ("shape", OpKind.RESHAPE, ("fc.out",), "Shape", {"shape": (2,)}),
        ("size", E_, ("shape.out",), "Floor", {}),
        ("out", OpKind.RESHAPE, ("fc.out", "size.out"), "Reshape", {"shape": (8, 4)}),
    )
    assert names(graph.training("dense"), Phase.BP) == ["loss", "out.bp"]


# --- notes -----------------------------------------------------------------------------------


def test_training_notes_name_method_and_optimiser():
    step = mlp(8, 8).training("dense", optimizer=SGD(momentum=0))
    assert step.notes[0] == (
        "One training step, method dense, SGD(learning_rate=0.1, momentum=0.0, "
        "weight_decay=0.0005), loss on 'fc0.out'"
    )


def test_training_optimiser_is_part_of_the_digest():
    graph = mlp(8, 8)
    digests = {
        graph.training("dense", optimizer=o).digest()
        for o in (SGD(), SGD(momentum=0), SGD(weight_decay=0), SGD(learning_rate=1))
    }
    assert len(digests) == 4
    assert graph.training("dense").digest() == graph.training(Method.DENSE).digest()


def test_training_layers_off_the_loss_are_named():
    net = GraphBuilder()
    x = net.tensor("x", (4, 8))
    net.linear("aside", x, 8)
    net.linear("main", x, 8)
    step = net.build("two").training("dense")
    assert "Not trained, since the last output does not depend on them: aside" in step.notes
    assert names(step, Phase.WU) == ["main.wu"]


def test_training_constants_are_kept_and_named():
    graph = mlp(8, 8)
    bias = TensorSpec(name="bias", dims=("n",), shape=(8,), bits=32, parameter=True)
    op = replace(graph.ops[0], inputs=(*graph.ops[0].inputs, "bias"))
    graph = replace(graph, ops=(op,), tensors={**graph.tensors, "bias": bias})
    step = graph.training("dense")
    assert "Biases and other constants keep their values: bias" in step.notes
    assert step_op(step, "fc0.wu").inputs == ("x", "fc0.out.grad")


# --- bad input -------------------------------------------------------------------------------


def test_training_unknown_method_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="Unknown training method 'sgd'; known: dense, sr-ste, sdgp, bdwp"
    ):
        mlp(8, 8).training("sgd")


@pytest.mark.parametrize("method", ["sr-ste", "sdgp", "bdwp"])
@pytest.mark.parametrize(
    "sparsity", [Unstructured(0.25), Balanced(8, 0.25), NofM(tuple([2] * 16), 8)]
)
def test_training_weights_that_are_not_n_of_m_are_refused(method, sparsity):
    with pytest.raises(ValueError, match=rf"Weight 'fc1.weight' is .*, but method {method} trains"):
        mlp(8, 16, 16).training(method, sparsity=sparsity)


def test_training_dense_method_takes_any_sparsity():
    graph = mlp(8, 16, 16)
    assert graph.sparsify(Unstructured(0.25)).training("dense") == graph.training("dense")


def test_training_pruned_values_are_refused():
    graph = mlp(8, 16, 16, values=True).sparsify(S)
    with pytest.raises(ValueError, match=r"Weight 'fc1.weight' holds values pruned to 2:8, but"):
        graph.training("bdwp")


def test_training_sparsity_given_twice_is_refused():
    graph = mlp(8, 16, 16).sparsify(S)
    with pytest.raises(ValueError, match=r"Workload 'mlp' is sparse already \(weight 'fc1.weight'"):
        graph.training("bdwp", sparsity=S)


def test_training_decode_is_refused():
    graph = build("llama2-7b", prefill=8, decode=2)
    with pytest.raises(ValueError, match=r"Op 'decode.embed_tokens' runs 2 times: training needs"):
        graph.training("dense")


def test_training_prefill_trains():
    graph = build("llama2-7b", prefill=8)
    step = graph.training("bdwp", sparsity=S)
    assert len(names(step, Phase.UPDATE)) == 32 * 7 + 1


def test_training_unknown_operator_is_named_with_its_pass():
    graph = vectors(("x1", OpKind.OPAQUE, ("fc.out",), "LSTM", {}))
    message = r"Op 'x1' \(LSTM\) has no gradient: training needs one in its bp pass"
    with pytest.raises(ValueError, match=message):
        graph.training("dense")


@pytest.mark.parametrize("source", ["ArgMax", "Floor", "QuantizeLinear"])
def test_training_operator_without_gradient_is_named_with_its_pass(source):
    graph = vectors(("op", OpKind.NORM, ("fc.out",), source, {}))
    message = rf"Op 'op' \({source}\) has no gradient: training needs one in its bp pass"
    with pytest.raises(ValueError, match=message):
        graph.training("dense")


def test_training_fused_work_without_gradient_is_refused():
    net = GraphBuilder()
    net.linear("a", net.tensor("x", (4, 8)), 16, post=("Add", "Round"))
    with pytest.raises(ValueError, match=r"^Op 'a' \(Round\) has no gradient"):
        net.build("round").training("dense")


def test_training_says_where_method_and_sparsity_do_not_go_together():
    """A sparsity that method dense drops, and a sparse method without sparse weights, are noted."""
    graph = build("resnet9")
    dropped = "Dense in spite of 2:8, since method dense prunes nothing"
    none = "No weight is sparse, so method sdgp trains as method dense does"
    assert dropped in graph.training("dense", sparsity=S).notes
    assert none in graph.training("sdgp").notes
    for step in (graph.training("dense"), graph.training("sdgp", sparsity=S)):
        assert not {dropped, none} & set(step.notes)


def test_training_argmax_off_the_gradients_path_is_kept():
    net = GraphBuilder()
    x = net.tensor("x", (4, 8))
    top = net.vector("top", OpKind.NORM, (x,), "ArgMax")
    net.add("add", net.linear("fc", x, 8), top)
    assert names(net.build("path").training("dense"), Phase.WU) == ["fc.wu"]


def test_training_a_training_step_is_refused():
    step = mlp(8, 8).training("dense")
    with pytest.raises(ValueError, match=r"Workload 'mlp' is a training step already: op 'fc0.ff'"):
        training(step, "dense")


def test_training_without_weights_is_refused():
    net = GraphBuilder()
    net.vector("relu", OpKind.ELEMENTWISE, (net.tensor("x", (4, 8)),), "Relu")
    with pytest.raises(ValueError, match="'none': its last output depends on no weight to train"):
        net.build("none").training("dense")
    with pytest.raises(ValueError, match="'empty': its last output depends on no weight to train"):
        GraphBuilder().build("empty").training("dense")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1}, "SGD learning_rate must be a finite number of at least 0, not -1"),
        ({"weight_decay": float("nan")}, "SGD weight_decay must be a finite number"),
        ({"momentum": 1}, "a momentum below 1, not 0.1 and 1"),
        ({"learning_rate": 0}, "SGD needs a learning_rate above 0"),
    ],
)
def test_sgd_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SGD(**options)


def test_sgd_without_momentum_and_decay_is_legal():
    assert SGD(momentum=0, weight_decay=0) == SGD(momentum=0.0, weight_decay=0.0)


def test_op_window_use_without_window_is_refused():
    with pytest.raises(ValueError, match="Op 'a': window_use scatter needs a window"):
        Op(
            name="a",
            kind=OpKind.GEMM,
            inputs=("x", "w"),
            output="y",
            gemm=Gemm(m=1, k=1, n=1),
            window_use=WindowUse.SCATTER,
        )
