import numpy as np
import pytest

from workloads.graph import Gemm, Op, OpKind, TensorSpec, WorkloadGraph
from workloads.patterns import Diagonal
from workloads.pruning import mask_of, nnz_of, prune, reduction_axis, runs_dense, sparsify
from workloads.quantize import quantize
from workloads.sparsity import (
    Balanced,
    Block,
    Dense,
    Explicit,
    NofM,
    Positional,
    Unstructured,
)
from workloads.zoo import build


def layers(*weights, values=None):
    """A chain of products with the weights' shapes, named fc0, fc1, ..."""
    tensors = {"x": TensorSpec(name="x", dims=("m", "k"), shape=(4, weights[0][0]))}
    ops = []
    for i, (k, n) in enumerate(weights):
        tensors[f"w{i}"] = TensorSpec(name=f"w{i}", dims=("k", "n"), shape=(k, n), parameter=True)
        tensors[f"y{i}"] = TensorSpec(name=f"y{i}", dims=("m", "n"), shape=(4, n))
        ops.append(
            Op(
                name=f"fc{i}",
                kind=OpKind.GEMM,
                inputs=(f"y{i - 1}" if i else "x", f"w{i}"),
                output=f"y{i}",
                gemm=Gemm(m=4, k=k, n=n),
            )
        )
    return WorkloadGraph(name="chain", ops=tuple(ops), tensors=tensors, values=values or {})


def test_prune_ties_keep_the_lower_index():
    values = np.array([[1.0], [-1.0], [1.0], [1.0]])
    assert prune(values, NofM(2, 4))[:, 0].tolist() == [True, True, False, False]


def test_prune_all_zero_group_still_keeps_n_positions():
    assert prune(np.zeros((4, 1)), NofM(2, 4))[:, 0].tolist() == [True, True, False, False]


def test_prune_fixed_structures_ignore_magnitudes():
    values = np.zeros((3, 3))
    assert np.array_equal(prune(values, Positional(Diagonal())), np.eye(3, dtype=bool))
    assert np.array_equal(prune(values, Explicit(np.eye(3))), np.eye(3, dtype=bool))
    assert prune(values, Dense()).all()


def test_prune_many_rows_cross_chunks_exactly():
    values = np.random.default_rng(0).normal(size=(2048, 4100)).astype(np.float32)
    mask = prune(values, NofM(2, 8))
    groups = np.abs(values).reshape(-1, 8, 4100)
    kept = mask.reshape(groups.shape)
    smallest = np.where(kept, groups, np.inf).min(axis=1)
    largest_dropped = np.where(kept, -np.inf, groups).max(axis=1)
    assert (kept.sum(axis=1) == 2).all()
    assert (smallest >= largest_dropped).all()


def test_prune_not_finite_is_refused():
    with pytest.raises(ValueError, match="Only finite values can be pruned by magnitude"):
        prune(np.array([[np.nan]]), NofM(1, 1))


def test_sparsify_first_layer_stays_dense_and_says_so():
    graph = sparsify(layers((8, 4), (8, 4)), NofM(2, 4))
    assert graph.tensors["w0"].sparsity == Dense()
    assert graph.tensors["w1"].sparsity == NofM(2, 4)
    assert graph.notes == (
        "Dense in spite of 2:4, since the first layer stays dense unless asked otherwise: fc0",
    )


def test_sparsify_first_layer_asked_for_is_sparse():
    graph = layers((8, 4), (8, 4)).sparsify(NofM(2, 4), first_layer=True)
    assert graph.tensors["w0"].sparsity == NofM(2, 4)
    assert graph.notes == ()


@pytest.mark.parametrize("sparsity", [NofM(2, 8), Balanced(8, 0.25)])
def test_sparsify_reduction_shorter_than_a_group_stays_dense(sparsity):
    graph = sparsify(layers((8, 7), (7, 8), (8, 4)), sparsity)
    assert graph.tensors["w1"].sparsity == Dense()
    assert graph.tensors["w2"].sparsity == sparsity
    assert graph.notes[1].endswith(f"shorter than one group of {sparsity}: fc1")


def test_sparsify_notes_group_operators_by_reason():
    graph = sparsify(build("bert-base"), NofM(2, 4))
    assert graph.notes[1] == (
        "Dense in spite of 2:4, since both operands are activations: "
        "encoder.layer.0.attention.scores, encoder.layer.0.attention.context, "
        "encoder.layer.1.attention.scores and 21 more"
    )
    assert len(graph.notes) == 2


def test_sparsify_shared_weight_is_treated_once():
    graph = sparsify(build("llama2-7b", prefill=4, decode=2), NofM(2, 4))
    first = "model.layers.0.self_attn.q_proj.weight"
    assert graph.tensors[first].sparsity == Dense()
    assert graph.notes[-2].endswith(
        "prefill.model.layers.0.self_attn.q_proj, decode.model.layers.0.self_attn.q_proj"
    )
    sparse = {n for n, spec in graph.tensors.items() if spec.sparsity == NofM(2, 4)}
    assert sparse == {n for n, spec in graph.tensors.items() if spec.parameter} - {first}


def test_sparsify_values_are_pruned_and_stay_float32():
    rng = np.random.default_rng(0)
    values = {f"w{i}": rng.normal(size=(8, 6)).astype(np.float32) for i in range(2)}
    graph = sparsify(layers((8, 6), (8, 6), values=values), NofM(1, 4))
    assert np.array_equal(graph.values["w0"], values["w0"])
    kept = graph.values["w1"] != 0
    assert graph.values["w1"].dtype == np.float32
    assert np.array_equal(kept, prune(values["w1"], NofM(1, 4)))
    assert np.array_equal(graph.values["w1"][kept], values["w1"][kept])


def test_sparsify_dense_changes_nothing():
    graph = layers((8, 4))
    assert sparsify(graph, Dense()) is graph


def test_sparsify_structure_that_does_not_fit_names_the_weight():
    with pytest.raises(ValueError, match=r"Weight 'w1': Explicit mask has shape \(2, 2\)"):
        sparsify(layers((8, 4), (8, 4)), Explicit(np.ones((2, 2))))


@pytest.mark.parametrize(
    "sparsity", [NofM(2, 4), Unstructured(0.3), Block((4, 4), 0.5), Balanced(4, 0.5)]
)
def test_mask_of_sampled_weight_has_nnz_of_nonzeros(sparsity):
    graph = sparsify(build("resnet9"), sparsity)
    for op in graph.gemm_ops:
        mask = mask_of(graph, op.inputs[1], seed=3)
        assert mask.shape == graph.tensors[op.inputs[1]].shape
        assert int(mask.sum()) == nnz_of(graph, op.inputs[1])


def test_mask_of_depends_on_seed_and_name_not_on_order():
    graph = sparsify(layers((8, 4), (8, 4), (8, 4)), Unstructured(0.5), first_layer=True)
    one, two = mask_of(graph, "w1", seed=0), mask_of(graph, "w2", seed=0)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, mask_of(graph, "w1", seed=1))
    assert np.array_equal(one, mask_of(graph, "w1", seed=0))


def test_nnz_of_values_counts_int8_codes():
    values = np.array([[100.0, 0.1], [0.0, 1.0]], dtype=np.float32)
    graph = layers((2, 2), values={"w0": values})
    assert np.count_nonzero(values) == 3
    assert nnz_of(graph, "w0") == 2 == np.count_nonzero(quantize(values)[0])
    assert mask_of(graph, "w0").tolist() == [[True, False], [False, True]]
    assert nnz_of(graph, "w0", bits=16) == np.count_nonzero(values)
    assert mask_of(graph, "w0", bits=16).tolist() == (values != 0).tolist()


def test_reduction_axis_of_both_operands():
    graph = build("bert-base")
    scores = next(op for op in graph.ops if op.name.endswith("scores"))
    assert [reduction_axis(graph, name) for name in scores.inputs] == [-1, -2]


def test_runs_dense_looks_along_the_structures_own_axis():
    assert runs_dense(NofM(1, 4, -1), (8, 3))
    assert not runs_dense(NofM(1, 4), (8, 3))
    assert not runs_dense(Unstructured(0.1), (1, 1))


def test_mask_of_unknown_tensor_is_refused():
    with pytest.raises(ValueError, match="Workload 'chain' has no tensor 'w9'"):
        mask_of(layers((8, 4)), "w9")


def test_sparsify_that_leaves_no_weight_names_the_operators():
    """A group of which none is kept is legal and noted."""
    graph = sparsify(layers((8, 4), (8, 4)), NofM(0, 4))
    assert graph.notes[-1] == "No weight is left under 0:4: fc1"
