import pytest

from workloads.graph import Gemm, Op, OpKind, TensorSpec, WorkloadGraph
from workloads.passes import fuse_post


def graph_of(*steps, sizes=None):
    """A product `p` of x and w, then steps of (name, source, inputs); c is a constant row."""
    tensors = {
        "x": TensorSpec(name="x", dims=("m", "k"), shape=(2, 3)),
        "w": TensorSpec(name="w", dims=("k", "n"), shape=(3, 4), parameter=True),
        "c": TensorSpec(name="c", dims=("n",), shape=(4,), parameter=True),
        "z": TensorSpec(name="z", dims=("m", "n"), shape=(2, 4)),
    }
    ops = [Op(name="p", kind=OpKind.GEMM, inputs=("x", "w"), output="p", gemm=Gemm(m=2, k=3, n=4))]
    for name, source, inputs in steps:
        kind = OpKind.MOVE if source == "Transpose" else OpKind.ELEMENTWISE
        ops.append(Op(name=name, kind=kind, inputs=inputs, output=name, source=source))
    for op in ops:
        shape = (sizes or {}).get(op.name, (2, 4))
        tensors[op.output] = TensorSpec(name=op.output, dims=("m", "n"), shape=shape)
    return WorkloadGraph(name="t", ops=tuple(ops), tensors=tensors)


def fused(graph):
    after = fuse_post(graph)
    first = after.ops[0]
    assert after.macs == graph.macs
    return first.post, first.output, [op.name for op in after.ops[1:]]


def test_fuse_relu_moves_into_post():
    graph = graph_of(("r", "Relu", ("p",)), ("t", "Transpose", ("r",)))
    assert fused(graph) == (("Relu",), "r", ["t"])


def test_fuse_chain_with_constants_reads_them_after_its_operands():
    graph = graph_of(("s", "Mul", ("p", "c")), ("b", "Add", ("s", "c")), ("r", "Relu", ("b",)))
    after = fuse_post(graph)
    (op,) = after.ops
    assert op.post == ("Mul", "Add", "Relu")
    assert op.inputs == ("x", "w", "c")
    assert set(after.tensors) == {"x", "w", "c", "z", "r"}


def test_fuse_branch_that_joins_again_is_one_run():
    graph = graph_of(
        ("a", "Add", ("p",)),
        ("k", "Clip", ("a",)),
        ("m", "Mul", ("p", "k")),
        ("d", "Div", ("m",)),
    )
    assert fused(graph) == (("Add", "Clip", "Mul", "Div"), "d", [])


def test_fuse_stops_where_another_reader_needs_the_value():
    graph = graph_of(
        ("r", "Relu", ("p",)),
        ("s", "Sigmoid", ("r",)),
        ("t", "Transpose", ("r",)),
    )
    assert fused(graph) == (("Relu",), "r", ["s", "t"])


def test_fuse_nothing_when_the_product_itself_has_another_reader():
    graph = graph_of(("r", "Relu", ("p",)), ("t", "Transpose", ("p",)))
    assert fused(graph) == ((), "p", ["r", "t"])


def test_fuse_leaves_a_residual_addition_alone():
    graph = graph_of(("a", "Add", ("p", "z")), ("r", "Relu", ("a",)))
    assert fused(graph) == ((), "p", ["a", "r"])


def test_fuse_leaves_a_size_change_alone():
    graph = graph_of(("a", "Add", ("p", "c")), sizes={"a": (6, 4)})
    assert fused(graph) == ((), "p", ["a"])


def test_fuse_twice_changes_nothing_more():
    graph = fuse_post(graph_of(("r", "Relu", ("p",)), ("t", "Transpose", ("r",))))
    assert fuse_post(graph).digest() == graph.digest()


@pytest.mark.parametrize("steps", [(), (("t", "Transpose", ("p",)),)])
def test_fuse_without_elementwise_work_is_the_same_graph(steps):
    graph = graph_of(*steps)
    assert fuse_post(graph).digest() == graph.digest()
