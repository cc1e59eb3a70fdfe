"""LLM runs on a DspChain through the facade and the command line."""

import json

import pytest

import sparseloom as sl
from cost_models import roofline
from mapping import simulate_graph
from sparseloom.runs import run
from workloads.zoo.decoder import decoder

ARCH = "flightllm-vhk158"
SIZE = {"layers": 2, "width": 256, "heads": 8, "hidden": 704, "vocabulary": 1000}


@pytest.fixture(scope="module")
def document():
    """Return the document of a published run."""
    return run("llama2-7b", arch=ARCH, prefill=128, decode=20).to_json()


def test_run_prints_the_fields_of_an_llm(command):
    """--json holds seconds, rate, bandwidth, instruction bytes and energy."""
    code, out, _ = command(
        "run", "llama2-7b", "--arch", ARCH, "--prefill", 128, "--decode", 20, "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert found["tokens_per_s"] == pytest.approx(20 / found["decode_s"])
    assert found["seconds"] == pytest.approx(found["prefill_s"] + found["decode_s"])
    assert 0.3 < found["bandwidth_utilisation"] < found["bandwidth_utilisation_uncorrected"] < 0.7
    assert found["instruction_bytes"] < found["instruction_bytes_naive"]
    assert found["energy_j"] > 0


def test_roofline_rates_are_those_of_the_reported_times():
    """Products a second are over times with `sustained`, as the run's seconds are."""
    result = sl.simulate(decoder("tiny", "llama2-7b", **SIZE, decode=2), sl.arch(ARCH))
    rows = {row["name"]: row for row in result.per_op}
    for point in roofline(result):
        row = rows[point.name]
        seconds = result.seconds * row["cycles"] / result.cycles
        assert point.effectual_macs_per_s == pytest.approx(row["macs_effectual"] / seconds)
    assert roofline(result)


def test_uncorrected_times_differ_by_sustained_alone(document):
    """Both figures are in the document, with the parameter between them."""
    for phase in ("prefill", "decode"):
        raw = document[f"{phase}_uncorrected_s"]
        assert document[f"{phase}_s"] == pytest.approx(raw / document["sustained"])


def test_published_compression_is_named_and_can_be_declined(document):
    """Without --sparsity the result says what was left out; with dense nothing is."""
    assert document["sparsity"] == "published compression"
    assert any("keep 70 % of their weights" in note for note in document["notes"])
    dense = run("llama2-7b", arch=ARCH, sparsity="dense", prefill=128).to_json()
    assert dense["sparsity"] == "dense"
    assert dense["macs_effectual"] == dense["macs_dense"]
    assert dense["prefill_s"] > document["prefill_s"]


def test_modules_of_a_phase_are_reported(document):
    """Busy time of LD ST MM MV MISC SYS by phase; none is busier than the phase is long."""
    for phase, modules in document["modules"].items():
        assert list(modules) == ["LD", "MISC", "MM", "MV", "ST", "SYS"]
        assert max(m["seconds"] for m in modules.values()) <= document[f"{phase}_s"]
    assert document["modules"]["decode"]["MM"]["cycles"] == 0


def test_sparsity_is_compared_with_dense_on_the_same_machine(command):
    """--sparsity and --baseline work as on every machine."""
    code, out, err = command(
        *("run", "opt-6.7b", "--arch", "flightllm-u280", "--prefill", 128),
        *("--sparsity", "4:16", "--baseline", "dense", "--json"),
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert 2 < found["speedup"] < 4
    assert found["baseline"] == "dense"


def test_a_run_writes_a_report(tmp_path, command):
    """The report draws an LLM run too."""
    code, _, _ = command("run", "llama2-7b", "--arch", ARCH, "--decode", 4, "--out", tmp_path / "r")
    assert code == 0
    assert "flightllm-vhk158" in (tmp_path / "r" / "report.html").read_text()


def test_explain_says_what_bounds_an_llm(command):
    """explain works without rival dataflows."""
    code, out, _ = command("explain", "llama2-7b", "--arch", ARCH, "--decode", 2, "--json")
    assert code == 0
    assert json.loads(out)["causes"]


def test_list_shows_the_presets_as_models_only(command):
    """No RTL of the whole machine is claimed."""
    _, out, _ = command("list", "archs", "--json")
    rows = {row["name"]: row for row in json.loads(out)["archs"]}
    for name in ("flightllm-vhk158", "flightllm-u280"):
        assert rows[name]["proof"] == "model only"
        assert "sustained" in rows[name]["assumed"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "llama2-7b", "--arch", ARCH, "--sparsity", "3:16"), "keeps 3 of 16"),
        (("run", "llama2-7b", "--arch", ARCH, "--prefill", 3000), "the machine holds 2048"),
        (("run", "resnet18", "--arch", ARCH), "runs decoder LLMs with phases prefill and decode"),
        (("run", "llama2-7b", "--arch", ARCH, "--batch", 2), "batch must be 1, not 2"),
        (
            ("run", "llama2-7b", "--arch", ARCH, "--phase", "train"),
            "needs an arch with `training` units",
        ),
        (("run", "llama2-7b", "--arch", ARCH, "--memory", "ideal"), "memory modelled, not ideal"),
        (("cosim", "--arch", ARCH), "flightllm-vhk158: a dsp_chain is a model only and has no RTL"),
    ],
)
def test_bad_input_is_one_sentence(command, arguments, sentence):
    """Exit code 2 and a sentence that names what is wrong."""
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_python_surface_runs_and_prices_a_decoder():
    """sl.simulate and sl.price take the machine; sl.map has nothing to choose."""
    machine = sl.arch(ARCH, decode_bucket=4)
    assert isinstance(machine, sl.DspChain)
    graph = decoder("tiny", "opt-6.7b", **SIZE, prefill=30, decode=5)
    result = sl.simulate(graph, machine)
    cost = sl.price(result)
    assert cost.energy_j > 0
    assert {c for c, _, _ in result.counts} <= {c for c, _, _ in cost.breakdown}
    assert "hbm2" not in cost.table
    assert cost.prices["dram", "read", "full"].pj == 6.25
    with pytest.raises(ValueError, match="compiles decoders one way"):
        sl.map(graph, machine)
    with pytest.raises(ValueError, match="runs the graph of a decoder, not a schedule"):
        sl.simulate(sl.map(sl.gemm(4, 4, 4), "systolic"), machine)
    with pytest.raises(ValueError, match="Unknown mapper 'luck'"):
        simulate_graph(graph, machine, mapper="luck")


def test_progress_is_told_of_every_operator():
    """on_op is called with the operators of the graph, in order."""
    graph = decoder("tiny", "llama2-7b", **SIZE, prefill=30)
    seen = []
    run(graph, arch=sl.arch(ARCH), on_op=seen.append)
    assert seen == [op.name for op in graph.ops]


def test_equal_runs_have_equal_results():
    """The same inputs give the same digest; another machine another."""
    graph = decoder("tiny", "llama2-7b", **SIZE, prefill=30, decode=5)
    results = [sl.simulate(graph, sl.arch(ARCH, always_on_chip=on)) for on in (True, True, False)]
    assert results[0] == results[1]
    assert results[0] != results[2]
