"""LLM runs on a DspChain through the facade and the command line."""

import json

import pytest
from onnx_decoders import Writer
from onnx_models import saved

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


def test_a_compression_of_ones_own_is_named_as_the_machines(tmp_path):
    """Only what a preset has is called published; a file that changes no part of it has it too."""
    machine = tmp_path / "mine.yaml"
    labels = {}
    for change in ("compression: {kept_percent: 60}", "mm_tokens: 64"):
        machine.write_text(f"base: {ARCH}\nparameters: {{{change}}}\n")
        found = run("llama2-7b", arch=machine, prefill=128).to_json()
        labels[found["sparsity"]] = found["notes"][0]
    own = "Machine's own compression of llama2-7b: q_proj and k_proj keep 60 % of their weights"
    assert labels["machine's own compression"].startswith(own)
    assert labels["published compression"].startswith("Published compression of llama2-7b")


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


def test_explain_says_the_same_of_equal_layers_once(command):
    """An LLM's rows are its kinds of operators, with the layers they stand for."""
    code, out, _ = command("explain", "llama2-7b", "--arch", ARCH, "--decode", 2, "--top", 30)
    assert code == 0
    assert "dataflows" not in out  # a machine of programs has no rivals to show
    assert "busiest 291 of 291 operators" in out
    assert out.count(" decode.model.layers.0-31.mlp.down") == 1
    assert "32 x" in out


def test_explain_says_what_every_switch_is_worth(command, tmp_path):
    """Optimisations that the machine uses are switched off one by one; others are not listed."""
    (tmp_path / "mine.yaml").write_text(MINE)
    machine = tmp_path / "machine.yaml"
    machine.write_text(f"base: {ARCH}\nparameters: {{compression: {{model: mine}}}}\n")
    arguments = (tmp_path / "mine.yaml", "--prefill", 256, "--decode", 2, "--json")
    _, out, _ = command("explain", *arguments, "--arch", machine)
    story = json.loads(out)
    worth = {part["name"]: part["worth"] for part in story["optimisations"]}
    assert list(worth) == [
        "always-on-chip decode",
        "weights below 8 bits",
        "block-sparse attention",
    ]
    assert min(worth.values()) > 1
    assert story["sparsity"] == "machine's own compression"
    assert any("2 of 4 bits; the head has 4 bits." in line for line in story["sentences"])
    channels = "core 0 in 0 to 7, core 1 in 8 to 15, core 2 in 16 to 23, core 3 in 24 to 31"
    assert any(channels in line for line in story["sentences"])
    plain = tmp_path / "plain.yaml"
    plain.write_text(
        f"base: {ARCH}\nparameters:\n  always_on_chip: false\n  compression: null\n"
        "  weight_bits: [8]\n  head_bits: 8\n"
    )
    _, out, _ = command("explain", *arguments, "--arch", plain)
    assert json.loads(out)["optimisations"] == []


def test_widths_and_attention_of_any_decoder_are_set_in_the_machine(tmp_path):
    """A machine file gives every layer its width and a model of any name its attention."""
    shape = tmp_path / "mine.yaml"
    shape.write_text(MINE)
    machine = tmp_path / "machine.yaml"
    machine.write_text(
        f"base: {ARCH}\nparameters:\n  weight_bits: [3, 5]\n"
        "  compression: {model: mine, projections: [v_proj], kept_percent: 50}\n"
    )
    mixed, four = (run(shape, arch=a, prefill=256, decode=2).to_json() for a in (machine, ARCH))
    assert mixed["weight_bits"] == [3, 5]
    assert four["weight_bits"] == [4, 4]
    assert (mixed["attention_percent"], four["attention_percent"]) == (30, 100)
    rows = {d["arch"]: {op["name"]: op for op in d["ops"]} for d in (mixed, four)}
    for layer, narrower in ((0, True), (1, False)):
        name = f"decode.model.layers.{layer}.self_attn.q_proj"
        read = [rows[str(a)][name]["dram_read_bytes"] for a in (machine, ARCH)]
        assert (read[0] < read[1]) == narrower
    v_proj = rows[str(machine)]["decode.model.layers.0.self_attn.v_proj"]
    assert (v_proj["nm"], v_proj["macs_effectual"] * 2) == ("8:16", v_proj["macs_dense"])


MINE = """
like: llama2-7b
layers: 2
width: 512
heads: 8
kv_heads: 4
hidden: 704
vocabulary: 1000
"""


LARGE = """
like: llama2-7b
layers: 40
width: 5120
heads: 40
hidden: 13824
vocabulary: 32000
"""


def test_a_decoder_by_shape_runs_from_its_file(tmp_path, command):
    """`run mine.yaml` is the run of the same sizes from Python, on both kinds of machine."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    sizes = {"layers": 2, "width": 512, "heads": 8, "kv_heads": 4, "hidden": 704}
    for arch in (ARCH, "sat-vcu1525"):
        lengths = ("--prefill", 20, "--decode", 5)
        code, out, err = command("run", path, "--arch", arch, *lengths, "--json")
        assert (code, err) == (0, "")
        graph = decoder("mine", "llama2-7b", **sizes, vocabulary=1000, prefill=20, decode=5)
        assert json.loads(out)["cycles"] == sl.simulate(graph, sl.arch(arch)).cycles


def test_an_onnx_decoder_runs_at_lengths_it_was_not_exported_with(tmp_path, command):
    """`run decoder.onnx` is the decoder in it; its zeros are skipped, and the note says it."""
    path = saved(Writer(kept=4).model(), tmp_path, "mine.onnx")
    lengths = ("--prefill", 40, "--decode", 5, "--json")
    for arch in (ARCH, "sat-vcu1525"):
        code, out, err = command("run", path, "--arch", arch, *lengths)
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["macs_dense"] == sl.load(path, prefill=40, decode=5).macs
        assert any("Decoder recognised in the ONNX graph" in note for note in found["notes"])
        assert found["macs_effectual"] < found["macs_dense"]
        if arch == ARCH:
            kept = {op["nm"] for op in found["ops"] if op["kind"] == "gemm"}
            assert all(nm.startswith("4") for nm in kept)


def test_list_says_how_much_of_the_presets_has_rtl(command):
    """Boards have RTL of their units, the one small core has RTL of all of it."""
    _, out, _ = command("list", "archs", "--json")
    rows = {row["name"]: row for row in json.loads(out)["archs"]}
    for name in ("flightllm-vhk158", "flightllm-u280"):
        assert rows[name]["proof"] == "RTL of units"
        assert "sustained" in rows[name]["assumed"]
    assert rows["flightllm-tiny"]["proof"] == "RTL of a core"


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
        (
            ("run", "uneven.yaml", "--arch", ARCH),
            "uneven.yaml, line 6: 3 kv_heads do not divide 8 heads",
        ),
        (("run", "none.yaml", "--arch", ARCH), "does not exist"),
        (("run", "13b.yaml", "--arch", "u280.yaml"), "the HBM holds 8589934592 B"),
        (("run", "empty.onnx", "--arch", ARCH), "say how many tokens of each"),
        (("run", "empty.onnx", "--arch", ARCH, "--prefill", 4), "empty.onnx: it has no layers"),
        (("cosim", "--arch", ARCH), "RTL of a dsp_chain is a whole core, of `rtl --machine`"),
    ],
)
def test_bad_input_is_one_sentence(command, tmp_path, arguments, sentence):
    """Exit code 2 and a sentence that names what is wrong."""
    (tmp_path / "uneven.yaml").write_text(MINE.replace("kv_heads: 4", "kv_heads: 3"))
    (tmp_path / "13b.yaml").write_text(LARGE)
    (tmp_path / "u280.yaml").write_text("base: flightllm-u280\nparameters: {weight_bits: [8]}\n")
    saved(Writer(layers=0).model(), tmp_path, "empty.onnx")
    files = [tmp_path / a if str(a).endswith((".yaml", ".onnx")) else a for a in arguments]
    code, out, err = command(*files)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_python_surface_runs_and_prices_a_decoder():
    """sl.simulate and sl.price take the machine, and sl.map costs what is simulated."""
    machine = sl.arch(ARCH, decode_bucket=4)
    assert isinstance(machine, sl.DspChain)
    graph = decoder("tiny", "opt-6.7b", **SIZE, prefill=30, decode=5)
    result = sl.simulate(graph, machine)
    cost = sl.price(result)
    assert cost.energy_j > 0
    assert {c for c, _, _ in result.counts} <= {c for c, _, _ in cost.breakdown}
    assert "hbm2" not in cost.table
    assert cost.prices["dram", "read", "full"].pj == 6.25
    mapped = sl.map(graph, machine, mapper="greedy")
    assert (mapped.mapper, mapped.cost) == ("greedy", result.cycles)
    with pytest.raises(ValueError, match="runs the graph of a decoder, not a schedule"):
        sl.simulate(mapped, machine)
    for call in (sl.map, simulate_graph):
        with pytest.raises(ValueError, match=r"^Unknown mapper 'luck'; known: exhaustive, integer"):
            call(graph, machine, mapper="luck")
        with pytest.raises(ValueError, match=r"^Unknown objective 'area'; known: cycles, energy"):
            call(graph, machine, objective="area")
        with pytest.raises(ValueError, match=r"^DspChain does not fuse operators; NMArray does"):
            call(graph, machine, fuse=True)


LENGTHS = [(30, 5), (0, 20), (130, 0)]


@pytest.mark.parametrize(("prefill", "decode"), LENGTHS)
def test_map_costs_what_run_simulates(command, tmp_path, prefill, decode):
    """Cycles, energy and bytes of `map` are those of `run`, operator by operator."""
    (tmp_path / "mine.yaml").write_text(MINE)
    source = (tmp_path / "mine.yaml", "--arch", ARCH, "--prefill", prefill, "--decode", decode)
    _, out, _ = command("run", *source, "--json")
    ran = json.loads(out)
    of = {
        "cycles": [op["cycles"] for op in ran["ops"]],
        "dram_bytes": [op["dram_read_bytes"] + op["dram_write_bytes"] for op in ran["ops"]],
        "energy": None,
    }
    for objective, rows in of.items():
        code, out, err = command("map", *source, "--objective", objective, "--json")
        assert (code, err) == (0, "")
        mapped = json.loads(out)
        assert [op["name"] for op in mapped["ops"]] == [op["name"] for op in ran["ops"]]
        assert rows is None or [op["cost"] for op in mapped["ops"]] == rows
        assert (mapped["bound"], mapped["gap"]) == (mapped["cost"], 0)
        assert mapped["considered"] == len(mapped["ops"])
        assert any(note.startswith("The compiler of a DspChain has") for note in mapped["notes"])
    assert mapped["cost"] == pytest.approx(ran["energy_j"], rel=1e-12, abs=0)


def test_map_names_tile_width_and_loads_of_every_product(command):
    """The published compression applies as in a run; the table shows mode, N and bits."""
    source = ("llama2-7b", "--arch", "flightllm-vhk158", "--prefill", 128, "--decode", 16)
    code, out, _ = command("map", *source, "--json")
    document = json.loads(out)
    assert (code, document["sparsity"]) == (0, "published compression")
    ops = {op["name"]: op for op in document["ops"]}
    query = ops["prefill.model.layers.0.self_attn.q_proj"]
    machine = sl.arch("flightllm-vhk158")
    assert (query["dataflow"], query["nm"], query["bits"]) == (
        "mm",
        "16+8:16",
        machine.layer_bits(0),
    )
    assert query["tile"] == {"units": 1, "m": 128, "k": 4096, "n": machine.mm_tile_columns}
    head = ops["decode.lm_head"]
    assert (head["dataflow"], head["repeat"], head["tile"]["m"]) == ("mv", 16, 1)
    assert (head["bits"], head["loads"] % 16) == (machine.head_bits, 0)
    assert ops["decode.model.norm"]["tile"] is None
    code, out, _ = command("map", *source, "--objective", "energy", "--top", 1)
    assert code == 0
    assert "mv 16:16 4-bit" in out


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
