"""Explanations: the decomposition is exact, rivals are real, sentences name causes."""

import json
from dataclasses import replace

import pytest

from sparseloom.explanation import _bought, alike, explain
from sparseloom.runs import run


@pytest.fixture(scope="module")
def story(vision_run):
    return explain(vision_run)


def test_explanation_lost_cycles_are_what_did_not_shrink(vision_run, story):
    result, dense = vision_run.result, vision_run.baseline.result
    kept = story.density * dense.cycles
    lost = sum(cycles for _, cycles in story.lost)
    # Causes that shrank by more than the density are not listed, so this is a lower bound.
    assert lost >= result.cycles - kept - len(story.lost)


def test_explanation_operator_losses_bound_its_shortfall(vision_run, story):
    dense = {str(r["name"]): int(r["cycles"]) for r in vision_run.baseline.result.per_op}
    sparse = [op for op in story.ops if op.density is not None and op.density < 1]
    assert sparse
    for op in sparse:
        lost = sum(cycles for _, cycles in op.lost)
        assert lost >= op.cycles - op.density * dense[op.name] - 6
        assert op.speedup == dense[op.name] / op.cycles


def test_explanation_best_rival_is_the_chosen_dataflow(story):
    mapped = [op for op in story.ops if op.dataflow]
    assert mapped
    for op in mapped:
        flow, cycles = op.rivals[0]
        assert cycles == op.cycles
        assert flow == op.dataflow or dict(op.rivals)[op.dataflow] == cycles
        assert {name for name, _ in op.rivals} == {"os", "ws", "is"}


def test_explanation_shares_and_roofs_are_physical(story):
    assert sum(op.share for op in story.ops) == pytest.approx(1.0)
    for op in story.ops:
        assert op.of_roof is None or 0 < op.of_roof <= 1


def test_explanation_sentences_name_speedup_and_cause(vision_run, story):
    assert f"{vision_run.speedup:.2f}x of a possible" in story.sentences[-1]
    conv = next(op for op in story.ops if op.name == "conv2")
    assert "25.0% of the products kept" in conv.sentence
    pool = next(op for op in story.ops if op.kind == "pool")
    assert "weight sparsity does not touch it" in pool.sentence


@pytest.mark.parametrize(
    ("speedup", "told"),
    [(1.9, "1.90x of a possible 2.00x"), (2.1, "2.10x, more than the 2.00x of")],
)
def test_explanation_never_calls_more_than_it_saw_impossible(speedup, told):
    """Work beside the products may shrink too; then theirs is no bound."""
    assert told in _bought(speedup, 0.5, (), 100)


def test_explanation_without_baseline_speaks_of_no_speedup(topology):
    told = explain(run(topology, arch="nm-tiny"))
    assert told.speedup is None
    assert told.lost == ()
    assert all(op.speedup is None for op in told.ops)


def test_explanation_bound_dataflow_has_one_rival(topology):
    from sparseloom.api import arch

    told = explain(run(topology, arch=arch("nm-tiny", dataflow="ws")))
    assert {name for op in told.ops for name, _ in op.rivals} == {"ws"}


def test_explanation_is_plain_json(story):
    assert json.loads(json.dumps(story.to_json()))["workload"] == "resnet9"


def test_equal_layers_are_gathered_and_no_cycle_is_lost(story):
    """Layers whose stories are the same in all but their number share an entry, others do not."""
    one = story.ops[1]
    names = [f"decode.layers.{n}.mlp" for n in (0, 1, 2, 5)] + [
        "decode.layers.0.norm",
        "head",
        "x2",
    ]
    same = [replace(one, name=name) for name in names]
    other = replace(one, name="decode.layers.3.mlp", cycles=one.cycles + 1)
    found = alike([*same, other])
    assert [group.name for group in found] == [
        "decode.layers.0-2,5.mlp",
        "decode.layers.0.norm",
        "head",
        "x2",
        "decode.layers.3.mlp",
    ]
    assert [group.members for group in found] == [4, 1, 1, 1, 1]
    assert sum(group.cycles for group in found) == 7 * one.cycles + other.cycles
    assert found[0].story == same[0]
    groups = alike(story.ops)
    assert sum(group.cycles for group in groups) == sum(op.cycles for op in story.ops)
    assert sum(group.members for group in groups) == len(story.ops)
