"""The command line: output, exit codes and one clear sentence for every bad input."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from simulator.arch.load import PRESETS
from sparseloom import cli
from sparseloom.cli import invoke


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes a machine file: nm-tiny with dotted keys changed."""

    def write(**changes):
        content = {"base": "nm-tiny", "parameters": changes}
        path = tmp_path / "machine.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def _refused(answer, *parts):
    """Check that bad input ended in exit code 2 and one sentence that holds every part."""
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    assert err.startswith("sparseloom: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_run_json_prints_one_object_and_writes_nothing(command, topology, tmp_path):
    code, out, err = command(
        "run", topology, "--arch", "nm-tiny", "--sparsity", "2:8", "--baseline", "dense", "--json"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["workload"] == "three"
    assert document["baseline_cycles"] / document["cycles"] == document["speedup"]
    assert list(tmp_path.iterdir()) == []


def test_run_tables_show_numbers_notes_and_files(command, topology, tmp_path):
    code, out, err = command(
        "run", topology, "--arch", "nm-tiny", "--sparsity", "2:8", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    assert f"{document['cycles']:,}" in out
    assert "second" in out
    assert "note: Dense in spite of 2:8" in out
    assert "report.html" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "result.json"]


def test_run_batch_scales_dense_macs(command):
    macs = [
        json.loads(command("run", "resnet9", "--arch", "systolic", "--batch", b, "--json")[1])[
            "macs_dense"
        ]
        for b in (1, 3)
    ]
    assert macs[1] == 3 * macs[0]


def test_run_memory_ideal_gives_scale_sim_folds(command, topology):
    code, out, _ = command("run", topology, "--arch", "systolic", "--memory", "ideal", "--json")
    assert code == 0
    by_flow = {"os": [], "ws": [], "is": []}
    for m, n, k in ((64, 48, 40), (64, 96, 48), (8, 16, 96)):
        by_flow["os"].append(-(-m // 32) * -(-n // 32) * (32 + 32 + k - 2))
        by_flow["ws"].append(-(-k // 32) * -(-n // 32) * (2 * 32 + 32 + m - 2))
        by_flow["is"].append(-(-k // 32) * -(-m // 32) * (2 * 32 + 32 + n - 2))
    best = sum(min(folds) for folds in zip(*by_flow.values(), strict=True))
    assert json.loads(out)["cycles"] == best


def test_explain_says_why_in_words(command, topology):
    code, out, err = command("explain", topology, "--arch", "nm-tiny", "--sparsity", "2:8")
    assert (code, err) == (0, "")
    assert "of a possible" in out
    assert "roofline's ridge" in out


def test_explain_json_names_rivals_and_losses(command, topology):
    code, out, _ = command("explain", topology, "--arch", "nm-tiny", "--sparsity", "2:8", "--json")
    assert code == 0
    ops = {op["name"]: op for op in json.loads(out)["ops"]}
    assert {flow for flow, _ in ops["second"]["rivals"]} == {"os", "ws", "is"}
    assert ops["second"]["density"] == 0.25
    assert ops["second"]["lost"]


def test_list_shows_every_table(command):
    code, out, _ = command("list", "--json")
    assert code == 0
    tables = json.loads(out)
    assert [row["name"] for row in tables["archs"]] == list(PRESETS)
    assert {"os", "ws", "is"} == {row["name"] for row in tables["dataflows"]}
    assert "llama2-7b" in {row["name"] for row in tables["zoo"]}
    assert "exhaustive" in {row["name"] for row in tables["mappers"]}
    assert all(row["sources"] for row in tables["archs"])


def test_list_one_table_prints_it_alone(command):
    code, out, _ = command("list", "sparsities")
    assert code == 0
    assert "balanced:B:D" in out
    assert "sat-vcu1525" not in out


def test_report_rebuilds_the_page(command, sparse_run, tmp_path):
    sparse_run.write(tmp_path / "out")
    (tmp_path / "out" / "report.html").unlink()
    code, out, _ = command("report", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["report"] == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "report.html").is_file()


def test_rtl_writes_verilog_that_carries_the_digest(command, tmp_path):
    code, out, _ = command("rtl", "--arch", "nm-tiny", "--out", tmp_path / "out", "--json")
    assert code == 0
    answer = json.loads(out)
    verilog = next(file for file in answer["files"] if file.endswith(".v"))
    assert answer["digest"] in (tmp_path / verilog).read_text()


@pytest.mark.parametrize(
    ("preset", "sentence"),
    [
        ("sat-vcu1525", "dram.bandwidth_bytes_per_s must be a power of two"),
        ("flightllm-u280", "cores must be 1, not 3"),
    ],
)
def test_rtl_of_a_whole_machine_that_cannot_be_built_is_refused(
    command, tmp_path, preset, sentence
):
    """Before anything is written."""
    code, _, err = command("rtl", "--arch", preset, "--machine", "--out", tmp_path / "no")
    assert code == 2
    assert f"The RTL machine: {sentence}" in err
    assert not (tmp_path / "no").exists()


def test_rtl_of_a_board_is_its_units_and_a_note(command, tmp_path):
    """A machine that is a model only as a whole exports the units of a core, at its parameters."""
    board = tmp_path / "board.yaml"
    board.write_text(
        "base: flightllm-vhk158\nparameters: {mv_columns: 2, mm_columns: 1, misc_lanes: 2}\n"
    )
    code, out, _ = command("rtl", "--arch", board, "--out", tmp_path / "out")
    assert code == 0
    why = f"note: {board} as a whole is a model only. The RTL machine: cores must be 1, not 4"
    assert out.splitlines()[0] == why
    files = {path.name.rpartition("_")[0]: path for path in (tmp_path / "out").glob("*.json")}
    assert sorted(files) == ["dequantiser", "mpe", "special"]
    parameters = {n: json.loads(file.read_text())["parameters"] for n, file in files.items()}
    assert (parameters["mpe"]["vpus"], parameters["special"]["lanes"]) == (1, 2)
    code, _, err = command("rtl", "--arch", board, "--machine", "--out", tmp_path / "no")
    assert (code, (tmp_path / "no").exists()) == (2, False)
    assert "cores must be 1, not 4" in err


def test_cosim_agreement_exits_zero(command, machine):
    path = machine(rows=2, cols=2, max_m=4)
    code, out, _ = command("cosim", "--arch", path, "--points", 2, "--json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["points"], answer["agrees"], answer["mismatches"]) == (2, True, [])
    assert answer["cycles"] > 0


TRAINING = {
    "sore": {"lanes": 1, "max_n": 2, "max_m": 8},
    "wuve": {"lanes": 1, "adder_latency": 1, "multiplier_latency": 1},
}


def test_rtl_and_cosim_cover_the_units_of_training(command, machine):
    """Verilog of array, SORE and WUVE is written, and points of all three are played."""
    path = machine(rows=2, cols=2, training=TRAINING)
    code, out, _ = command("rtl", "--arch", path, "--out", "verilog", "--json")
    answer = json.loads(out)
    assert code == 0
    assert [name.rpartition("_")[0] for name in answer["modules"]] == ["nm_array", "sore", "wuve"]
    assert len(answer["files"]) == 6
    code, out, _ = command("cosim", "--arch", path, "--points", 5, "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"], answer["points"]) == (0, True, 5)
    assert answer["points_by_unit"] == {"nm_array": 2, "sore": 2, "wuve": 1}


def test_cosim_disagreement_is_shown_and_exits_one(command, monkeypatch):
    import rtl.cosim

    found = rtl.cosim.CosimReport(
        points_by_unit={"nm_array": 1}, cycles=9, mismatches=("Point 0: cycle 3, not 4",)
    )
    monkeypatch.setattr(rtl.cosim, "cosimulate", lambda *_args, **_kwargs: found)
    code, out, _ = command("cosim", "--arch", "nm-tiny", "--points", 1)
    assert code == 1
    assert "differ on 1 points (nm_array 1)" in out
    assert "Point 0: cycle 3, not 4" in out


# Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing.onnx", "missing.csv"])
def test_missing_workload_file_is_named(command, name):
    _refused(command("run", name, "--arch", "nm-tiny"), name)


def test_unknown_workload_lists_the_zoo(command):
    _refused(command("run", "resnet19", "--arch", "nm-tiny"), "'resnet19'", "resnet18", ".onnx")


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x07\x12", b"not a model", bytes(range(256)) * 64], ids=range(4)
)
def test_hostile_onnx_is_refused(command, tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    _refused(command("run", path, "--arch", "nm-tiny", "--out", tmp_path / "out"), "model.onnx")
    assert not (tmp_path / "out").exists()


def test_truncated_onnx_is_refused(command, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 64], [0.5] * 4096)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    whole = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [weight])
    ).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    _refused(command("run", path, "--arch", "nm-tiny"), "cut.onnx")
    assert onnx.load_from_string(whole).graph.name == "g"


def test_unknown_arch_lists_presets(command, topology):
    _refused(command("run", topology, "--arch", "tpu"), "'tpu'", *PRESETS)


def test_missing_arch_file_is_named(command, topology):
    _refused(command("run", topology, "--arch", "none.yaml"), "none.yaml", "does not exist")


def test_arch_is_required(command, topology):
    _refused(command("run", topology), "--arch")


def test_arch_file_unknown_key_names_line_and_known_keys(command, machine, topology):
    _refused(
        command("run", topology, "--arch", machine(rowz=4)), "machine.yaml, line", "rowz", "rows"
    )


def test_arch_file_unknown_base_lists_presets(command, tmp_path, topology):
    (tmp_path / "m.yaml").write_text("base: nm-huge\n")
    _refused(command("run", topology, "--arch", "m.yaml"), "m.yaml, line 1", "nm-huge", "nm-tiny")


def test_arch_file_that_is_not_yaml_is_refused(command, tmp_path, topology):
    (tmp_path / "m.yaml").write_text("parameters: [1, {\n")
    _refused(command("run", topology, "--arch", "m.yaml"), "m.yaml", "not valid YAML")


def test_arch_file_does_not_run_code(command, tmp_path, topology):
    (tmp_path / "m.yaml").write_text("machine: !!python/object/apply:os.mkdir [made]\n")
    _refused(command("run", topology, "--arch", "m.yaml"), "m.yaml")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"rows": 0}, ("rows", "at least 1", "0")),
        ({"rows": "many"}, ("rows", "many")),
        ({"max_m": 0}, ("max_m", "at least 1", "0")),
        ({"macs_per_pe": 9}, ("macs_per_pe", "max_m = 8", "9")),
        ({"dram": {"bandwidth_bytes_per_s": -5}}, ("bandwidth_bytes_per_s", "at least 1", "-5")),
        ({"dram": {"latency_cycles": -1}}, ("latency_cycles", "at least 0", "-1")),
        ({"act_buffer": {"capacity_bytes": 0}}, ("capacity_bytes", "at least 1", "0")),
        ({"dataflow": "rs"}, ("dataflow", "rs", "os")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arch_file_impossible_parameter_names_key_found_and_allowed(
    command, machine, topology, changes, parts
):
    _refused(command("run", topology, "--arch", machine(**changes)), "machine.yaml", *parts)


def test_layer_that_fits_no_buffer_names_layer_buffer_need_and_size(command, machine, tmp_path):
    path = machine(weight_buffer={"capacity_bytes": 3})
    answer = command("run", "resnet9", "--arch", path, "--out", tmp_path / "out")
    _refused(answer, "conv1", "weight_buffer", "bytes", "3")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sparsity", ["9:8", "-1:8", "0:0", "2:-8", "x:8"])
def test_impossible_nm_sparsity_is_refused(command, topology, sparsity):
    _refused(command("run", topology, "--arch", "nm-tiny", f"--sparsity={sparsity}"), sparsity)


@pytest.mark.parametrize("sparsity", ["random", "unstructured:1.5", "block:4:0.5", ""])
def test_impossible_sparsity_is_refused(command, topology, sparsity):
    _refused(command("run", topology, "--arch", "nm-tiny", "--sparsity", sparsity))


@pytest.mark.parametrize("row", ["bad, 0, 4, 4,", "bad, 4, -1, 4,", "bad, 4, x, 4,", "bad, 4,"])
def test_topology_with_impossible_sizes_names_file_and_line(command, tmp_path, row):
    (tmp_path / "net.csv").write_text(f"Layer, M, N, K,\n{row}\n")
    _refused(command("run", "net.csv", "--arch", "nm-tiny"), "net.csv", "line 2")


@pytest.mark.parametrize("option", ["--batch", "--prefill", "--image"])
def test_option_the_source_does_not_take_is_named(command, topology, option):
    _refused(command("run", topology, "--arch", "nm-tiny", option, 2), option.strip("-"))


@pytest.mark.parametrize("shape", ["x", "x=", "x=0x3", "=1x2", "x=1x-2"])
def test_malformed_input_shape_is_refused(command, shape):
    answer = command("run", "model.onnx", "--arch", "nm-tiny", "--input", shape)
    _refused(answer, "NAME=1x3x48x320", repr(shape))


def test_zero_batch_is_refused(command):
    _refused(command("run", "resnet9", "--arch", "nm-tiny", "--batch", 0), "batch", "at least 1")


def test_unknown_memory_mode_lists_the_known(command, topology):
    answer = command("run", topology, "--arch", "nm-tiny", "--memory", "magic")
    _refused(answer, "magic", "modelled", "ideal", "steady")


def test_unknown_baseline_lists_the_known(command, topology):
    answer = command("run", topology, "--arch", "nm-tiny", "--baseline", "gpu")
    _refused(answer, "'gpu'", "dense")


def test_out_that_is_a_file_is_refused(command, topology, tmp_path):
    (tmp_path / "out").write_text("mine")
    _refused(command("run", topology, "--arch", "nm-tiny", "--out", "out"), "out", "is a file")
    assert (tmp_path / "out").read_text() == "mine"


def test_impossible_out_is_refused_before_any_work(command, monkeypatch, tmp_path):
    _break(monkeypatch, AssertionError("the workload was loaded"))
    (tmp_path / "out").write_text("mine")
    _refused(command("run", "resnet9", "--arch", "nm-tiny", "--out", "out"), "is a file")


def test_out_under_a_file_is_refused(command, topology, tmp_path):
    (tmp_path / "file").write_text("mine")
    _refused(command("run", topology, "--arch", "nm-tiny", "--out", "file/out"), "file' is a file")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["fly"], "fly"),
        (["run"], "WORKLOAD"),
        (["run", "resnet9", "--arch"], "--arch"),
        (["run", "resnet9", "--arch", "nm-tiny", "--speed", "9"], "--speed"),
        (["run", "resnet9", "--arch", "nm-tiny", "--batch", "two"], "--batch"),
        (["list", "birds"], "archs, zoo"),
        (["report", "nowhere"], "nowhere"),
        (["rtl", "--arch", "nm-tiny"], "--out"),
        (["rtl", "--arch", "nope", "--out", "x"], "nope"),
        (["cosim", "--arch", "nm-tiny", "--points", "0"], "--points"),
        (["cosim", "--arch", "nm-tiny", "--engine", "spice"], "spice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_one_sentence(command, arguments, part):
    _refused(command(*arguments), part)


# Failures that are not the user's -----------------------------------------------------------


def _break(monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("sparseloom.runs.load", fail)


def test_internal_failure_is_a_sentence_with_a_hint_and_exit_one(command, monkeypatch):
    _break(monkeypatch, KeyError("lost"))
    code, out, err = command("run", "resnet9", "--arch", "nm-tiny")
    assert (code, out) == (1, "")
    assert "internal failure, KeyError: 'lost'" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_value_error_of_a_library_is_an_internal_failure(command, monkeypatch):
    monkeypatch.setattr("sparseloom.runs.load", lambda *_a, **_k: int("seven"))
    code, _, err = command("run", "resnet9", "--arch", "nm-tiny")
    assert code == 1
    assert "internal failure, ValueError" in err


def test_debug_shows_the_traceback(command, monkeypatch):
    _break(monkeypatch, KeyError("lost"))
    code, _, err = command("run", "resnet9", "--arch", "nm-tiny", "--debug")
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert "--debug" not in err.splitlines()[-1]


def test_interrupt_is_a_sentence(command, monkeypatch):
    _break(monkeypatch, KeyboardInterrupt())
    code, _, err = command("run", "resnet9", "--arch", "nm-tiny")
    assert (code, err) == (130, "sparseloom: interrupted\n")


def test_failure_while_writing_leaves_nothing(command, monkeypatch, topology, tmp_path):
    def full(_document):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparseloom.report.render", full)
    code, _, err = command("run", topology, "--arch", "nm-tiny", "--out", tmp_path / "out")
    assert code == 1
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


# The process --------------------------------------------------------------------------------


def test_module_runs_as_a_program_with_exit_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sparseloom", "run", "resnet9", "--arch", "nope"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("sparseloom: Unknown arch 'nope'")


def test_help_without_arguments(command):
    code, out, _ = command()
    assert code == 0
    assert all(name in out for name in ("run", "list", "explain", "rtl", "cosim", "report"))


def test_progress_is_silent_when_stderr_is_no_terminal(capsys):
    from sparseloom.progress import progress

    with progress("work", total=3) as step:
        step("one")
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_waits_then_shows_that_work_goes_on(monkeypatch):
    """Quick work shows nothing; long work shows itself, with or without finished items."""
    import io
    import time

    from sparseloom import progress as module

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(cli.sys, "stderr", screen)
    monkeypatch.setattr(module, "PATIENCE_S", 3600.0)
    with module.progress("work", total=2) as step:
        step("quick")
    assert screen.getvalue() == ""
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    with module.progress("work") as step:
        give_up = time.monotonic() + 20
        while "work" not in screen.getvalue() and time.monotonic() < give_up:
            time.sleep(0.01)
        step("slow")
    assert "slow" in screen.getvalue()


def test_run_record_needs_an_onnx_model_and_a_file(capsys, tmp_path):
    """`--record` belongs to ONNX models."""
    assert invoke(["run", "resnet9", "--arch", "nm-tiny", "--record", str(tmp_path / "x.png")]) == 2
    assert "resnet9 has no option 'record'" in capsys.readouterr().err


def test_training_beside_a_baseline_writes_its_report(command):
    """Selections have no dense counterpart: their cells stay empty."""
    step = ("--phase", "train", "--sparsity", "2:8", "--baseline", "dense", "--batch", "2")
    code, out, _ = command("run", "resnet9", "--arch", "sat-vcu1525", *step, "--out", "out")
    assert code == 0
    assert "wrote" in out
    assert command("report", "out")[0] == 0


def test_numbers_of_a_machine_file_name_the_file_as_their_source(command, machine):
    path = machine(rows=2)
    _, out, _ = command("run", "resnet9", "--arch", path, "--json")
    sources = json.loads(out)["arch_sources"]
    assert sources["rows"] == f"set in {path}"
    assert sources["cols"] == "choice: small"


def test_workloads_too_large_to_count_are_refused(command):
    code, _, err = command("run", "resnet18", "--arch", "nm-tiny", "--batch", 99999999999)
    assert code == 2
    assert "multiply-accumulates; counts stay exact up to" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("run", "box", "--arch", "nm-tiny"), ("Unknown workload 'box', a folder", "resnet9")),
        (("run", "box.onnx", "--arch", "nm-tiny"), ("'box.onnx' is a folder, not a file",)),
        (("run", "box.csv", "--arch", "nm-tiny"), ("'box.csv' is a folder, not a file",)),
        (("run", "resnet9", "--arch", "box"), ("Unknown arch 'box', a folder", "nm-tiny")),
        (("run", "resnet9", "--arch", "box.yaml"), ("'box.yaml' is a folder, not a file",)),
        (("place", "box"), ("Unknown placement 'box', a folder", "rapidlayout")),
        (("place", "box.yaml"), ("'box.yaml' is a folder, not a file",)),
        (("sweep", "box.yaml", "--store", "s.db"), ("'box.yaml' is a folder, not a file",)),
    ],
)
def test_folder_where_a_file_belongs_is_called_a_folder(command, tmp_path, arguments, parts):
    """Nothing that is there is said to be missing."""
    for name in ("box", "box.onnx", "box.csv", "box.yaml"):
        (tmp_path / name).mkdir()
    _refused(command(*arguments), *parts)


def test_unknown_device_of_a_placement_is_one_sentence(command):
    """The device is named before the placement is read."""
    code, _, err = command("place", "rapidlayout", "--device", "u999")
    assert (code, err.partition(";")[0]) == (2, "sparseloom: Unknown device 'u999'")


def test_output_folder_that_cannot_be_written_is_named_as_given(command, topology, monkeypatch):
    """No name of a temporary file reaches the user, and nothing is left behind."""

    def refuse(*_arguments, **options):
        raise PermissionError(13, "Permission denied", str(options["dir"] / ".out.tmp"))

    for module, name in (("sparseloom.outputs", "mkdtemp"), ("rtl.export", "mkstemp")):
        monkeypatch.setattr(f"{module}.tempfile.{name}", refuse)
    monkeypatch.setattr("rtl.export.verilog_text", lambda _unit: "")
    for line in (("run", topology), ("rtl",)):
        answer = command(*line, "--arch", "nm-tiny", "--out", "out")
        _refused(answer, "'out' cannot be written: Permission denied")
        assert ".tmp" not in answer[2]


def test_rtl_into_a_file_is_refused_before_the_work(command, tmp_path):
    """The sentence is that of every other output folder."""
    (tmp_path / "file").write_text("")
    answer = command("rtl", "--arch", "nm-tiny", "--out", tmp_path / "file" / "inner")
    _refused(answer, "cannot be", "file' is a file")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cosim", "--arch", "stc-like"), "stc-like: a tensor_core is a model only and has no RTL"),
        (
            ("rtl", "--arch", "grid-tiny", "--out", "out", "--machine"),
            "Only an nm_array and a dsp_chain have a whole machine; grid-tiny is a pe_grid",
        ),
    ],
)
def test_machines_are_called_as_the_user_calls_them(command, arguments, sentence):
    """Presets and the kinds of machine files, no names of classes."""
    _refused(command(*arguments), sentence)


COMMANDS = ("run", "map", "explain", "list", "place", "rtl", "cosim", "sweep", "report")


@pytest.mark.parametrize("name", ["", "reproduce", *COMMANDS])
def test_help_fits_its_page_and_says_what_values_are(command, monkeypatch, name):
    """At most 100 columns however wide the window; values in words, first sentences whole."""
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = command(*([name] if name else []), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    options = re.findall(r"^  (--[a-z-]+)( \S+)?", out, re.M)
    assert options
    for _, value in options:
        assert not re.search(r"<(str|int|float|path|list)", value)
    if not name:
        assert "..." not in out.partition("Commands:")[2]


def test_explain_takes_what_run_takes(command, topology):
    """Options of a workload are the same wherever one is given."""
    pages = {name: command(name, "--help")[1] for name in ("run", "map", "explain")}
    taken = {name: set(re.findall(r"^  (--[a-z-]+)", page, re.M)) for name, page in pages.items()}
    only_chosen = {"--mapper", "--objective", "--fuse"}
    assert taken["run"] - {"--out", "--baseline"} == taken["map"] == taken["explain"] | only_chosen


def test_help_of_reproduce_lists_every_section_on_a_line(command):
    """What can be reproduced is known before it runs."""
    from sparseloom.reproduce import SECTIONS

    assert list(cli.REPRODUCED) == list(SECTIONS)
    code, out, _ = command("reproduce", "--help")
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    for name, what in cli.REPRODUCED.items():
        assert any(line.startswith(name) and line.endswith(what) for line in lines)


def test_sparsity_that_keeps_no_weight_says_so(command, topology):
    """Nothing is left to multiply, which hardly anybody wants."""
    code, out, _ = command("run", topology, "--arch", "nm-tiny", "--sparsity", "0:8")
    assert code == 0
    assert "note: No weight is left under 0:8: second, third" in out


def test_largest_part_of_a_run_counts_idle_multipliers_apart(command, topology):
    """Cycles with the array at work are not all multiplying."""
    _, out, _ = command("explain", topology, "--arch", "nm-tiny", "--json")
    first = json.loads(out)["sentences"][0]
    assert "is array work, " in first
    assert first.endswith("% of the multipliers on effectual products.")


def test_operators_table_keeps_its_numbers_on_a_narrow_terminal(sparse_run, capsys):
    """Long names wrap; no figure is cut off."""
    from rich.console import Console

    from sparseloom.tables import ops_table

    document = sparse_run.to_json()
    document["ops"][0]["name"] = "model.layers.0.self_attention.projection_of_queries"
    Console(width=80).print(ops_table(document, 3))
    page = capsys.readouterr().out
    assert "…" not in page
    assert all(f"{op['cycles']:,}" in page for op in document["ops"])
