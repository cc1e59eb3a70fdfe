"""Batch norms for training, and unions of graphs: nothing but what is asked for changes."""

import pytest

from sparseloom.runs import run
from workloads.graph import OpKind
from workloads.passes import union
from workloads.training import unfold_batch_norms
from workloads.zoo import BATCH_NORMED, ZOO, build


@pytest.fixture(scope="module")
def folded():
    return build("resnet9", batch=2)


@pytest.fixture(scope="module")
def unfolded(folded):
    return unfold_batch_norms(folded)


def test_every_convolution_gets_a_norm_in_front_of_its_fused_work(folded, unfolded):
    """The norm takes over output and ReLU; the product yields a tensor of the same shape."""
    ops = {op.name: op for op in unfolded.ops}
    for op in folded.ops:
        if op.window is None:
            assert ops[op.name] == op
            continue
        product, norm = ops[op.name], ops[f"{op.name}.norm"]
        assert (norm.kind, norm.passes, norm.inputs) == (OpKind.NORM, 2, (product.output,))
        assert (norm.output, norm.post, product.post) == (op.output, op.post, ())
        assert unfolded.tensors[product.output].shape == folded.tensors[op.output].shape
    assert unfolded.macs == folded.macs


def test_norm_names_avoid_those_taken(folded):
    """Unfolding twice still yields distinct names."""
    twice = unfold_batch_norms(unfold_batch_norms(folded))
    assert {"conv1.norm", "conv1.norm_"} <= {op.name for op in twice.ops}


def test_gradient_of_a_norm_reads_its_input_again_and_keeps_the_relu_fused(unfolded):
    """BP of a norm saves the input, in as many passes; the ReLU's gradient costs no operator."""
    step = unfolded.training("dense")
    ops = {op.name: op for op in step.ops}
    back = ops["conv2.norm.bp"]
    assert back.kind is OpKind.NORM
    assert back.passes == 2
    assert ops["conv2.ff"].output in back.inputs
    assert not [name for name in ops if name.endswith(".post.ff")]
    assert "Relu.grad" in ops["conv2.bp"].post
    # Somebody else needs these two gradients as they are: a residual addition copies them.
    assert [n for n in ops if n.endswith(".post_bp")] == [
        "res2.1.norm.post_bp",
        "res1.1.norm.post_bp",
    ]


def test_unfolding_is_noted(unfolded):
    """The reader of a result learns that batch norms are there."""
    assert "Trains with batch norms behind 8 convolutions" in unfolded.notes[-1]


def test_only_convolutional_networks_train_with_batch_norms():
    """Every name is one of the zoo's, and no transformer is among them."""
    assert set(ZOO) >= BATCH_NORMED
    assert not {"vit-b16", "bert-base", "opt-6.7b", "llama2-7b"} & BATCH_NORMED


def test_run_trains_with_batch_norms_and_infers_without():
    """The command's training step has them, its inference has not."""
    trained = run("resnet9", arch="sat-vcu1525", phase="train")
    inferred = run("resnet9", arch="sat-vcu1525")
    assert "conv1.norm.ff" in trained.result.per_op["name"]
    assert "norm" not in inferred.result.per_op["kind"]


def test_union_renames_and_keeps_everything(folded, unfolded):
    """Operators follow each other, tensors of one graph never meet those of another."""
    both = union({"a": folded, "b": unfolded}, "both")
    assert [op.name for op in both.ops] == [
        *(f"a/{op.name}" for op in folded.ops),
        *(f"b/{op.name}" for op in unfolded.ops),
    ]
    assert both.macs == folded.macs + unfolded.macs
    assert len(both.tensors) == len(folded.tensors) + len(unfolded.tensors)
    assert all(name == spec.name for name, spec in both.tensors.items())
