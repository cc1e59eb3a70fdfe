"""`place` on the command line, its files and its picture."""

import json
from dataclasses import replace

import pytest

import sparseloom as sl
from mapping.placer import load_problem
from sparseloom.cli import invoke
from sparseloom.floorplan import floorplan_svg
from sparseloom.tables import _length

SMALL = """\
problem: slots
device: u280
grid: {columns: 2}
units:
  - {name: tile, grid: [2, 3], chains: [{length: 90, count: 10}], lut: 1000}
  - {name: buffer, uram: 90, slr: 0}
meshes:
  - {unit: tile, across_bits: 64, along_bits: 32}
nets:
  - {source: buffer, sink: tile_*_0, bits: 128}
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Return the path of a small placement file in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def run(capsys, *arguments):
    """Return exit code, stdout and stderr of a command line."""
    code = invoke([str(argument) for argument in arguments])
    text = capsys.readouterr()
    return code, text.out, text.err


def test_place_json_has_the_promised_fields(capsys, spec, tmp_path):
    """--json prints one object with count, cost, bound, gap and status, and writes nothing."""
    code, out, err = run(capsys, "place", spec, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["placed"], answer["status"], answer["gap"]) == (7, "optimal", 0)
    assert answer["objective"] == answer["bound"] > 0
    assert answer["device"] == "u280"
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_place_device_option_wins(capsys, spec):
    """--device replaces the device of the file."""
    _, out, _ = run(capsys, "place", spec, "--device", "u250", "--json")
    answer = json.loads(out)
    assert (answer["device"], len(answer["crossing_wires"])) == ("u250", 3)


def test_place_solvers_agree(capsys, spec):
    """Both solvers report the same optimum under their own names."""
    answers = [
        json.loads(run(capsys, "place", spec, "--solver", name, "--json")[1])
        for name in ("highs", "cbc")
    ]
    assert [answer["solver"] for answer in answers] == ["highs", "cbc"]
    assert answers[0]["objective"] == answers[1]["objective"]


def test_place_table_and_files(capsys, spec, tmp_path):
    """Without --json a table; with --out the placement and its picture."""
    code, out, _ = run(capsys, "place", spec, "--out", tmp_path / "out")
    assert code == 0
    for text in (
        "tile units placed",
        "buffer units placed",
        "proved lower bound",
        "0.00% (optimal)",
        "wires from SLR 0 to 1",
    ):
        assert text in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "floorplan.svg",
        "placement.json",
    ]
    document = json.loads((tmp_path / "out" / "placement.json").read_text())
    assert set(document["slots"]) == {
        *(f"tile_{r}_{c}" for r in (0, 1) for c in range(3)),
        "buffer",
    }
    chain = document["spots"]["tile_0_0"][0]
    assert (chain["resource"], chain["length"], chain["first"]) == ("dsp", 90, 0)


def test_floorplan_is_drawn_the_same_every_time(spec):
    """The picture is SVG, deterministic, and shows where units are."""
    problem = load_problem(spec)
    placement = sl.place(problem)
    text = floorplan_svg(problem, placement)
    assert text == floorplan_svg(problem, placement)
    assert "<svg" in text
    moved = {**placement.slots, "buffer": (2, 0, 0)}
    assert floorplan_svg(problem, replace(placement, slots=moved)) != text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("nothing",), ("'nothing'", "systolic32, flight-design, grid-design, sat-design")),
        (("none.yaml",), ("none.yaml", "does not exist")),
        (
            ("rapidlayout", "--device", "u999"),
            ("sparseloom: Unknown device 'u999'", "u250, u280, vhk158, vu11p, vu9p, vcu1525"),
        ),
        ((".", "--store", "s.db"), ("Unknown placement '.'", "sat-design", "or give a .yaml")),
        (("systolic32", "--jobs", "2"), ("A store and jobs go with a design",)),
        (("rapidlayout", "--device", "vu9p"), ("the order of columns is known", "vu9p")),
        (("rapidlayout", "--solver", "gurobi"), ("gurobi", "highs")),
    ],
)
def test_place_bad_input_is_one_sentence(capsys, spec, arguments, parts):
    """Bad input ends in exit code 2 and says what is allowed."""
    code, out, err = run(capsys, "place", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("sparseloom: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_place_infeasible_says_what_is_short(capsys, spec):
    """An impossible placement names resource, demand, limit and gap, and exits 2."""
    spec.write_text(SMALL.replace("uram: 90", "uram: 9000"))
    code, out, err = run(capsys, "place", spec, "--json")
    assert (code, out) == (2, "")
    assert "small does not fit on u280" in err
    assert "URAM of all slots: needs 9,000, has 960, 8,040 too few" in err


def test_place_out_that_is_a_file_is_refused_before_the_work(capsys, spec):
    """A folder that cannot be is refused at once."""
    code, _, err = run(capsys, "place", "systolic32", "--out", spec)
    assert code == 2
    assert "is a file" in err


def test_list_shows_devices_and_placements(capsys):
    """Device tables come with granularity and sources, placements with summaries."""
    _, out, _ = run(capsys, "list", "--json")
    tables = json.loads(out)
    assert {row["name"] for row in tables["devices"]} >= {"u280", "vu11p"}
    assert all(row["sources"] and row["granularity"] for row in tables["devices"])
    assert [row["name"] for row in tables["placements"]] == [
        "rapidlayout",
        "systolic32",
        "flight-design",
        "grid-design",
        "sat-design",
    ]


def test_wire_lengths_have_no_exponent():
    """Millions have their digits, small lengths what they need behind the point."""
    assert [_length(v) for v in (3_717_734.4, 9952.0, 0.5)] == ["3,717,734", "9,952", "0.5"]
