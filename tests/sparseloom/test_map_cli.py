"""`sparseloom map`: whole-graph cost, bound and gap, and every operator's choice."""

import json

import pytest

import sparseloom as sl
from mapping import MAPPERS, Objective
from sparseloom.cli import invoke

FIELDS = [
    "workload", "arch", "sparsity", "mapper", "objective", "unit", "cost", "bound", "gap",
    "considered", "seconds", "ops", "notes",
]  # fmt: skip
OP_FIELDS = ["name", "kind", "repeat", "dataflow", "nm", "tile", "order", "cost", "bound"]


@pytest.fixture
def command(capsys):
    def execute(*arguments):
        code = invoke(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return execute


@pytest.mark.parametrize("mapper", list(MAPPERS))
def test_map_json_is_complete_and_its_operators_sum_to_the_whole(command, topology, mapper):
    code, out, err = command(
        "map", str(topology), "--arch", "nm-tiny", "--mapper", mapper, "--json"
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert list(document) == FIELDS
    assert (document["mapper"], document["objective"], document["unit"]) == (
        mapper, "cycles", "cycles",
    )  # fmt: skip
    assert all(list(op) == OP_FIELDS for op in document["ops"])
    assert sum(op["cost"] for op in document["ops"]) == document["cost"]
    assert sum(op["bound"] for op in document["ops"]) == document["bound"] <= document["cost"]
    assert document["gap"] == (document["cost"] - document["bound"]) / document["cost"]
    assert document["considered"] > 0 < document["seconds"]
    assert document["cost"] >= sl.simulate(sl.load(topology), "nm-tiny").cycles
    for op in document["ops"]:
        assert op["dataflow"] in ("os", "ws", "is")
        assert sorted(op["order"]) == ["k", "m", "n", "u"]
        assert op["tile"].keys() == {"units", "m", "k", "n"}


@pytest.mark.parametrize("objective", ["energy", "edp", "dram_bytes"])
def test_map_takes_objectives_with_their_units(command, topology, objective):
    code, out, _ = command(
        "map", str(topology), "--arch", "nm-tiny", "--objective", objective, "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["unit"] == {"energy": "J", "edp": "J s", "dram_bytes": "B"}[objective]
    assert document["gap"] == 0 < document["cost"]


def test_map_of_a_training_step_maps_every_pass(command):
    arguments = ("--phase", "train", "--image", "32", "--mapper", "greedy", "--json")
    code, out, _ = command("map", "resnet9", "--arch", "sat-vcu1525", *arguments)
    assert code == 0
    names = [op["name"] for op in json.loads(out)["ops"]]
    assert any(name.endswith(".bp") for name in names)
    assert any(name.endswith(".update") for name in names)


def test_map_of_a_closed_form_machine_is_its_model(command, topology):
    code, out, _ = command("map", str(topology), "--arch", "stc-like", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["gap"] == 0
    assert document["cost"] == sl.simulate(sl.load(topology), "stc-like").cycles


def test_map_of_a_grid_proves_the_blocks_of_every_objective(command):
    """Each objective's mapping is the best under it, and tiles are the largest blocks."""
    found = {}
    for objective in Objective:
        arguments = ("--image", "64", "--objective", objective.value, "--json")
        code, out, err = command("map", "resnet18", "--arch", "sparten-like", *arguments)
        document = json.loads(out)
        assert (code, err, document["gap"]) == (0, "", 0)
        products = [op for op in document["ops"] if op["tile"]]
        assert {op["order"] for op in products} <= {"umnk", "unmk"}
        assert len(products) == 21 < document["considered"]
        found[objective] = document["cost"]
    graph = sl.load("resnet18", image=64)
    fast, frugal = (sl.simulate(graph, "sparten-like", objective=o) for o in ("cycles", "energy"))
    assert fast.cycles == found[Objective.CYCLES] < frugal.cycles
    energies = [sl.price(result).energy_j for result in (frugal, fast)]
    assert energies[0] == pytest.approx(found[Objective.ENERGY], rel=1e-12, abs=0)
    assert energies[0] < 0.99 * energies[1]


def test_map_prints_headline_and_table(command, topology):
    code, out, err = command("map", str(topology), "--arch", "nm-tiny", "--top", "2")
    assert (code, err) == (0, "")
    assert "proved optimal in its space" in out
    assert "costliest 2 of 3 operators" in out
    code, out, _ = command("map", str(topology), "--arch", "nm-tiny", "--mapper", "greedy")
    assert code == 0
    assert ", gap " in out


def test_map_keeps_proofs_in_the_folder_named_by_the_environment(
    command, topology, tmp_path, monkeypatch
):
    monkeypatch.setenv("SPARSELOOM_CACHE_DIR", str(tmp_path / "kept"))
    documents = []
    for _ in range(2):
        code, out, _ = command("map", str(topology), "--arch", "nm-tiny", "--json")
        assert code == 0
        documents.append({k: v for k, v in json.loads(out).items() if k != "seconds"})
    assert documents[0] == documents[1]
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_cache_folder_that_cannot_be_written_is_one_sentence_and_no_more(
    command, topology, tmp_path, monkeypatch
):
    """The document is the one without a folder; the sentence comes on stderr, once a run."""
    _, plain, _ = command("map", str(topology), "--arch", "nm-tiny", "--json")
    blocked = tmp_path / "blocked"
    blocked.write_text("mine")
    monkeypatch.setenv("SPARSELOOM_CACHE_DIR", str(blocked))
    for _ in range(2):
        code, out, err = command("map", str(topology), "--arch", "nm-tiny", "--json")
        assert (code, err.count("\n")) == (0, 1)
        assert err.startswith(f"sparseloom: Cache folder {str(blocked)!r} cannot be written: ")
        documents = [json.loads(text) | {"seconds": 0} for text in (plain, out)]
        assert documents[0] == documents[1]
    assert blocked.read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--mapper", "magic", "Unknown mapper 'magic'; known: exhaustive, integer, greedy"),
        ("--objective", "area", "Unknown objective 'area'; known: cycles, energy, edp, dram_bytes"),
    ],
)
@pytest.mark.parametrize("name", ["map", "run"])
def test_unknown_choices_are_refused_in_one_sentence(
    command, topology, name, option, value, sentence
):
    code, out, err = command(name, str(topology), "--arch", "nm-tiny", option, value)
    assert (code, out) == (2, "")
    assert sentence in err


def test_run_is_mapped_by_the_mapper_and_objective_asked_for(command, topology):
    code, out, _ = command(
        "run", str(topology), "--arch", "nm-tiny", "--mapper", "greedy", "--objective", "energy",
        "--json",
    )  # fmt: skip
    assert code == 0
    mapping = json.loads(out)["mapping"]
    assert (mapping["mapper"], mapping["objective"], mapping["unit"]) == ("greedy", "energy", "J")
    assert mapping["cost"] == pytest.approx(json.loads(out)["energy_j"], rel=1e-12, abs=0)


def test_map_fuse_names_the_chains_and_the_cost_without_them(command):
    """The larger space: never worse, its own bound, and the same chains in a run."""
    arguments = ("resnet18", "--arch", "sat-vcu1525", "--image", "32", "--fuse")
    code, out, _ = command("map", *arguments, "--json")
    assert code == 0
    document = json.loads(out)
    fused = document["fused"]
    assert document["bound"] == document["cost"] < fused["unfused"]
    assert ["conv1", "maxpool"] in fused["chains"]
    code, out, _ = command("run", *arguments, "--json")
    assert code == 0
    assert json.loads(out)["cycles"] == document["cost"]
    code, out, _ = command("map", *arguments)
    assert "conv1 -> maxpool" in out
    assert f"unfused: {fused['unfused']:,} cycles" in out


def test_map_fuse_without_memory_has_no_chains(command, topology):
    code, out, _ = command(
        "map", str(topology), "--arch", "nm-tiny", "--memory", "ideal", "--fuse", "--json"
    )
    document = json.loads(out)
    assert (code, document["fused"]) == (0, {"chains": [], "unfused": document["cost"]})


def test_fuse_on_a_machine_that_cannot_is_one_sentence(command, topology):
    code, _, err = command("run", str(topology), "--arch", "stc-like", "--fuse")
    assert (code, err.strip().rpartition(": ")[2]) == (
        2, "TensorCore does not fuse operators; NMArray does",
    )  # fmt: skip
