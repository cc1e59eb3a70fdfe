"""Bad input of every kind is exit code 2 and one sentence; nothing is left half-written."""

import pytest

TOPOLOGY = "Layer name, M, N, K,\nfirst, 64, 48, 40,\n"
SWEEP = "workloads: [resnet9]\narchs: [{base: nm-tiny, parameters: {%s}}]\n"
SLOTS = "problem: slots\ndevice: u280\nunits: [{name: a, %s}]\n"
DESIGN = (
    "problem: design\ndevice: u280\nworkloads: [resnet9]\narchs: [nm-tiny]\nreference: nm-tiny\n"
)

MACHINES = {
    "base: nm-tiny\nparameters: {rows: 1e30}\n": "line 2: rows is 10000000000000",
    "base: nm-tiny\nparameters: {clock_hz: .nan}\n": "line 2: clock_hz is nan; it must be a whole",
    "base: nm-tiny\nparameters: {clock_hz: .inf}\n": "line 2: clock_hz is inf; it must be a whole",
    "base: nm-tiny\nparameters: {dram: {bandwidth_bytes_per_s: 1e300}}\n": "at most 1,125,899,9",
    "base: flightllm-tiny\nparameters: {sustained: .nan}\n": "sustained must be above 0",
    "base: flightllm-tiny\nparameters: {weight_bits: 4}\n": "a list such as [4], each 3, 4, 5 or 8",
    "base: flightllm-tiny\nparameters: {weight_bits: [7]}\n": "must be 3, 4, 5 or 8, not 7",
    "base: nm-tiny\nparameters: {rows: yes}\n": "line 2: rows is true; it must be a whole number",
    "base: nm-tiny\nparameters: {rows: 3, rows: 4}\n": "key 'parameters.rows' stands on line 2 too",
    "base: {a: 1}\n": "line 1: unknown base {'a': 1}",
    "1: 2\n": "line 1: unknown key 1",
    "base: nm-tiny\nparameters: {1: 2}\n": "line 2: unknown key '1'; known: rows",
    "? [1, 2]\n: 3\n": "line 1: not valid YAML: found unhashable key",
    "a: &a [*a]\n": "not valid YAML: maximum recursion depth exceeded",
    "base: nm-tiny\n---\nbase: sat-tiny\n": "line 2: not valid YAML: but found another document",
    "base: nm-tiny\nparameters: {rows: {value: 3}}\n": "line 2: rows is {'value': 3}; it must be",
    b"\xff\xfe\x00": "not valid YAML: 'utf-8' codec can't decode byte",
    b"\x89PNG\r\n\x1a\n\x00\x00": "not valid YAML: 'utf-8' codec can't decode byte",
    "": "the file is empty; a machine file is a mapping",
}
SWEEPS = {
    SWEEP
    % "rows: {start: 1, stop: 1e12, step: 1}": "line 2: archs.0.parameters.rows has more than",
    SWEEP % "rows: {start: 1, stop: .inf, step: 1}": "line 2: the range from 1 to inf by 1 has no",
    SWEEP % "rows: {start: .nan, stop: 3, step: 1}": "line 2: the range from nan to 3 by 1 has no",
    SWEEP % "rows: {start: 3, stop: 1, factor: 2}": "line 2: the range from 3 to 1 by 2 has no end",
    SWEEP % "rowz: 3": "line 2: unknown parameter 'rowz'; known: rows, cols",
    SWEEP % "rows.x: 3": "line 2: unknown parameter 'rows.x'; known: rows, cols",
    SWEEP % "dram.latency: 3": "(did you mean 'latency_cycles'?)",
    SWEEP % ".: 3": "line 2: unknown parameter '.'; known: rows, cols",
    SWEEP % "rows: 3"
    + "constraints: [{metric: cycles, at_most: .nan}]\n": "line 3: constraints.0.at_",
    SWEEP % "rows: 3"
    + "sampler: {kind: random, points: 1e30}\n": "line 3: sampler.points is 1000000",
    SWEEP % "rows: 3"
    + "sparsities: dense\n": "line 3: sparsities is 'dense'; it must be a list of",
    "workloads: [[1]]\narchs: [nm-tiny]\n": "workloads.0 is [1]; it must be a mapping (source, opt",
    "workloads: [resnet9]\narchs: [3]\n": "line 2: archs.0 is 3; it must be a mapping (base, param",
}
PLACEMENTS = {
    SLOTS % "dsp: 1e30": "line 3: units.0.dsp is 1000000",
    SLOTS % "dsp: -3": "dsp must be at least 0, not -3",
    SLOTS % "count: 1e9": "line 3: Unit 'a': count and grid must be 1 to 10,000 units",
    SLOTS % "grid: [1e5, 1e5]": "line 3: Unit 'a': count and grid must be 1 to 10,000 units",
    SLOTS % "grid: 4": "line 3: units.0.grid is 4; it must be a list of 2 whole numbers or null",
    DESIGN + "budget: {power_w: .nan}\n": "line 6: Budget power_w must be above 0, not nan",
    DESIGN.replace(
        "reference: nm-tiny", "reference: 3"
    ): "line 5: reference is 3; it must be a map",
    "problem: [slots]\n": "key 'problem' must be one of slots, sites, design, not ['slots']",
}
DECODER = "like: llama2-7b\nlayers: %s\nwidth: %s\nheads: 8\nhidden: 704\nvocabulary: 1000\n"
DECODERS = {
    DECODER % (2, "1e20"): "counts stay exact up to",
    DECODER % (2000000, 256): "line 2: layers must be at most 10,000, not 2000000",
    DECODER % (".nan", 256): "line 2: layers must be a whole number of at least 1, not nan",
}
TOPOLOGIES = {
    TOPOLOGY.replace("48", "nan"): "line 2, column N: found 'nan', allowed is a whole number",
    TOPOLOGY.replace("64", "-64"): "line 2, column M: found '-64', allowed is a whole number",
    TOPOLOGY.replace("64", "9" * 30): "line 2, column M: found '9999",
    b"\x80\x81": "is not a topology in CSV text",
}
FILES = [
    *(("m.yaml", text, ("run", "t.csv", "--arch", "m.yaml"), MACHINES[text]) for text in MACHINES),
    *(("s.yaml", text, ("sweep", "s.yaml", "--store", "s.db"), SWEEPS[text]) for text in SWEEPS),
    *(("p.yaml", text, ("place", "p.yaml"), PLACEMENTS[text]) for text in PLACEMENTS),
    *(("d.yaml", x, ("run", "d.yaml", "--arch", "nm-tiny"), DECODERS[x]) for x in DECODERS),
    *(("b.csv", x, ("run", "b.csv", "--arch", "nm-tiny"), TOPOLOGIES[x]) for x in TOPOLOGIES),
]
LINES = {
    "run t.csv --arch nm-tiny --sparsity unstructured:nan": "Unknown sparsity 'unstructured:nan'",
    "run t.csv --arch nm-tiny --sparsity unstructured:1e400": "Density must lie between 0 and 1",
    "run t.csv --arch nm-tiny --sparsity block:0x4:0.5": "Block shape must be two sizes",
    "run t.csv --arch nm-tiny --out t.csv": "t.csv' is a file",
    "run t.csv --arch nm-tiny --out t.csv/inner": "is a file",
    "run t.csv --arch folder": "Unknown arch 'folder', a folder",
    "run t.csv --arch nm-tiny --memory=": "it must be modelled, ideal or steady",
    "run folder --arch nm-tiny": "Unknown workload 'folder', a folder",
    "run llama2-7b --arch nm-tiny --decode 99999999": "option decode must be at most 1,048,576, no",
    "sweep s.yaml --store folder": "'folder' is a folder; a store is a file",
    "sweep s.yaml --store none/s.db": "its folder does not exist",
    "place p.yaml --time-limit nan": "Invalid value for '--time-limit'",
    "report folder": "'folder/result.json' does not exist",
    "report t.csv": "'t.csv' is not valid JSON",
}


def refused(answer, sentence):
    """Assert exit code 2 and one line on stderr alone, which has the sentence."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert err.startswith("sparseloom: ")
    assert len(err) < 600


@pytest.fixture
def place(tmp_path):
    """Return a folder with a file of every kind that is well-formed."""
    (tmp_path / "t.csv").write_text(TOPOLOGY)
    (tmp_path / "s.yaml").write_text(SWEEP % "rows: 2")
    (tmp_path / "p.yaml").write_text(SLOTS % "dsp: 1")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(("name", "content", "arguments", "sentence"), FILES)
def test_a_bad_file_is_one_sentence(command, place, name, content, arguments, sentence):
    """Wrong types, numbers out of all bounds, binary and empty files; nothing is written."""
    (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(place.rglob("*"))
    refused(command(*arguments), sentence)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("line", LINES)
def test_a_bad_option_is_one_sentence(command, place, line):
    """Values that no option takes, folders for files and files for folders."""
    before = sorted(place.rglob("*"))
    refused(command(*line.split()), LINES[line])
    assert sorted(place.rglob("*")) == before


def test_a_sweep_without_a_good_point_fails_however_it_is_printed(command, place):
    """Exit code 1 with and without --json."""
    (place / "s.yaml").write_text((SWEEP % "rows: 2").replace("resnet9", "resnet99"))
    for options in ((), ("--json",)):
        code, out, _ = command("sweep", "s.yaml", "--store", "s.db", *options)
        assert code == 1
        assert "resnet99" not in out


def test_names_in_any_script_are_run_and_drawn(command, place):
    """Letters that no font at hand has are no reason for a warning."""
    (place / "n.csv").write_text(TOPOLOGY.replace("first", "\u5c42\u4e00 \u00e9"), encoding="utf-8")
    code, _, err = command("run", "n.csv", "--arch", "nm-tiny", "--out", "out", "--json")
    assert (code, err) == (0, "")
    assert "\u5c42\u4e00 \u00e9" in (place / "out" / "report.html").read_text(encoding="utf-8")


def test_too_little_memory_is_one_sentence(command, place, monkeypatch):
    """What the machine cannot hold is a failure that says so."""

    def full(*_arguments, **_settings):
        raise MemoryError("Unable to allocate 37.3 GiB")

    monkeypatch.setattr("sparseloom.runs.simulate_graph", full)
    code, out, err = command("run", "t.csv", "--arch", "nm-tiny")
    assert (code, out) == (1, "")
    assert err == "sparseloom: Out of memory: Unable to allocate 37.3 GiB\n"
