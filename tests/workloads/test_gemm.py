import numpy as np
import pytest

from workloads.gemm import gemm_graph
from workloads.pruning import mask_of, nnz_of
from workloads.sparsity import Dense, Explicit, NofM, Unstructured


def test_gemm_graph_default_is_dense():
    graph = gemm_graph(3, 4, 5)
    assert graph.macs == 60
    assert graph.tensors["weight"].shape == (4, 5)
    assert graph.tensors["activation"].shape == (3, 4)
    assert nnz_of(graph, "weight") == 20


def test_gemm_graph_groups_lead_every_shape():
    graph = gemm_graph(3, 4, 5, groups=2)
    assert graph.macs == 120
    assert [graph.tensors[n].shape for n in ("activation", "weight", "output")] == [
        (2, 3, 4),
        (2, 4, 5),
        (2, 3, 5),
    ]


def test_gemm_graph_masks_follow_each_operands_reduction():
    graph = gemm_graph(6, 8, 5, weight=NofM(1, 4), activation=NofM(2, 4))
    assert (mask_of(graph, "weight").reshape(2, 4, 5).sum(axis=1) == 1).all()
    assert (mask_of(graph, "activation").reshape(6, 2, 4).sum(axis=2) == 2).all()


def test_gemm_graph_explicit_masks_are_used_as_they_are():
    weight, act = np.eye(4, 5), np.ones((3, 4))
    graph = gemm_graph(3, 4, 5, weight=Explicit(weight), activation=Explicit(act))
    assert np.array_equal(mask_of(graph, "weight"), weight)
    assert nnz_of(graph, "activation") == 12


def test_gemm_graph_short_reduction_runs_dense_with_a_note():
    graph = gemm_graph(3, 4, 5, weight=NofM(2, 8))
    assert graph.tensors["weight"].sparsity == Dense()
    assert graph.notes == (
        "Dense in spite of 2:8, since the reduction is shorter than one group: weight",
    )


def test_gemm_graph_digest_tells_sparsities_apart():
    digests = {
        gemm_graph(8, 8, 8, weight=s).digest()
        for s in (Dense(), NofM(2, 4), NofM(4, 8), Unstructured(0.5), Explicit(np.ones((8, 8))))
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gemm_graph(0, 4, 5), "GEMM m must be a whole number from 1 up, not 0"),
        (lambda: gemm_graph(3, 1.5, 5), "GEMM k must be a whole number from 1 up, not 1.5"),
        (lambda: gemm_graph(3, 4, "a"), "GEMM n must be a whole number from 1 up, not 'a'"),
        (lambda: gemm_graph(3, 4, 5).sparsify("2:4"), r"A sparsity is a value such .*, not str"),
        (lambda: gemm_graph(3, 4, 5, weight="2:4"), r"GEMM weight: A sparsity is .*, not str"),
        (
            lambda: gemm_graph(3, 4, 5, activation=np.ones((3, 4))),
            r"GEMM activation: A sparsity is .*, not ndarray",
        ),
        (
            lambda: gemm_graph(3, 4, 5, weight=Explicit(np.ones((5, 4)))),
            r"GEMM weight: Explicit mask has shape \(5, 4\), but its tensor has shape \(4, 5\)",
        ),
        (
            lambda: gemm_graph(3, 4, 5, activation=Explicit(np.ones((4, 5)))),
            r"GEMM activation: Explicit mask has shape \(4, 5\)",
        ),
    ],
)
def test_gemm_graph_operands_that_do_not_fit_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
