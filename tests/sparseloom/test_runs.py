"""Runs and their documents: what they hold, how the parts sum, what they refuse."""

import json
import math

import pytest

from sparseloom.document import document
from sparseloom.runs import run
from workloads.sparsity import NofM


def test_run_document_has_the_promised_keys(sparse_run):
    keys = [
        "workload",
        "arch",
        "sparsity",
        "cycles",
        "seconds",
        "energy_j",
        "macs_dense",
        "macs_effectual",
        "utilisation",
        "bottleneck",
        "ops",
        "digests",
        "notes",
        "unsupported",
        "baseline_cycles",
        "speedup",
        "baseline_energy_j",
        "arch_parameters",
    ]
    doc = sparse_run.to_json()
    assert set(keys) <= set(doc)
    assert doc["arch"] == "nm-tiny"
    assert doc["sparsity"] == "2:8"
    assert all({"name", "kind", "cycles"} <= set(op) for op in doc["ops"])


def test_run_document_survives_json(sparse_run):
    doc = sparse_run.to_json()
    assert json.loads(json.dumps(doc, allow_nan=False)) == doc


def test_run_document_sums_reconcile(vision_run):
    doc = vision_run.to_json()
    assert sum(op["cycles"] for op in doc["ops"]) == doc["cycles"]
    assert sum(cause["cycles"] for cause in doc["bottlenecks"]) == doc["cycles"]
    assert sum(op["baseline_cycles"] for op in doc["ops"]) == doc["baseline_cycles"]
    events = math.fsum(event["energy_j"] for event in doc["energy"]["events"])
    assert events == pytest.approx(doc["energy_j"], rel=1e-12, abs=0)
    parts = math.fsum(doc["energy"]["by_component_j"].values())
    assert parts == pytest.approx(doc["energy_j"], rel=1e-12, abs=0)
    assert doc["speedup"] == doc["baseline_cycles"] / doc["cycles"]


def test_run_event_energies_are_count_times_price(sparse_run):
    for event in sparse_run.to_json()["energy"]["events"]:
        assert event["energy_j"] == pytest.approx(event["count"] * event["pj_each"] * 1e-12)
        assert event["source"]


def test_run_twice_gives_the_same_document(sparse_run, topology):
    again = run(topology, arch="nm-tiny", sparsity="2:8", baseline="dense")
    assert again.to_json() == sparse_run.to_json()


def test_run_without_baseline_has_no_baseline_keys(topology):
    done = run(topology, arch="nm-tiny")
    assert done.speedup is None
    assert not [key for key in document(done) if key.startswith("baseline") or key == "speedup"]


def test_run_takes_a_sparsity_object(sparse_run, topology):
    assert run(topology, arch="nm-tiny", sparsity=NofM(2, 8)).result == sparse_run.result


def test_run_baseline_of_a_dense_run_has_speedup_one(topology):
    done = run(topology, arch="nm-tiny", baseline="dense")
    assert done.speedup == 1.0


def test_run_first_layer_option_makes_every_layer_sparse(topology, sparse_run):
    every = run(topology, arch="nm-tiny", sparsity="2:8", first_layer=True)
    assert 4 * every.result.macs_effectual == every.result.macs_dense
    assert sparse_run.result.macs_effectual > every.result.macs_effectual
    assert any("first layer" in note for note in sparse_run.result.notes)


def test_run_ideal_memory_is_never_slower(topology, sparse_run):
    ideal = run(topology, arch="nm-tiny", sparsity="2:8", memory="ideal")
    assert ideal.result.cycles < sparse_run.result.cycles


def test_run_llm_states_seconds_by_phase_and_token_rate():
    done = run("opt-6.7b", arch="sat-vcu1525", prefill=16, decode=3, batch=2)
    doc = done.to_json()
    assert doc["prefill_s"] + doc["decode_s"] == pytest.approx(doc["seconds"], rel=1e-12)
    assert doc["tokens_per_s"] == 3 * 2 / doc["decode_s"]


def test_run_llm_prefill_alone_has_no_token_rate():
    doc = run("opt-6.7b", arch="sat-vcu1525", prefill=16).to_json()
    assert doc["prefill_s"] == pytest.approx(doc["seconds"], rel=1e-12)
    assert "decode_s" not in doc
    assert "tokens_per_s" not in doc


def test_run_unknown_baseline_lists_the_known(topology):
    with pytest.raises(ValueError, match="Unknown baseline 'magic'; known: dense"):
        run(topology, arch="nm-tiny", baseline="magic")


def test_run_machine_object_is_called_custom(topology):
    from sparseloom.api import arch

    doc = run(topology, arch=arch("nm-tiny", rows=2)).to_json()
    assert doc["arch"] == "custom"
    assert doc["arch_parameters"]["rows"] == 2
    assert doc["arch_sources"] == {}
