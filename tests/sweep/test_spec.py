"""Sweep files: short forms, ranges and one clear sentence for every mistake."""

import re
from dataclasses import replace

import pytest

from sparseloom.sweeps.points import Space, nested, sampled
from sparseloom.sweeps.spec import EXAMPLE, read_spec

VALID = """\
workloads: [resnet9]
sparsities: [dense, "2:8"]
archs:
  - base: nm-tiny
    parameters:
      rows: [2, 4]
      clock_hz: {start: 100, stop: 300, step: 100}
      dram.latency_cycles: 5
"""


def write(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_short_forms_and_ranges_are_written_out(tmp_path):
    spec = read_spec(write(tmp_path, VALID))
    assert spec.workloads[0].source == "resnet9"
    assert spec.archs[0].parameters == {
        "rows": (2, 4),
        "clock_hz": (100, 200, 300),
        "dram.latency_cycles": (5,),
    }
    grown = VALID.replace("step: 100", "factor: 2")
    assert read_spec(write(tmp_path, grown)).archs[0].parameters["clock_hz"] == (100, 200)


def test_a_pattern_needs_no_quotes(tmp_path):
    """YAML 1.1 would read 2:8 as the number 128 to the base 60."""
    assert read_spec(write(tmp_path, VALID.replace('"2:8"', "2:8"))).sparsities == ("dense", "2:8")


def test_points_are_the_whole_product_once_each(tmp_path):
    space = Space.of(read_spec(write(tmp_path, VALID)))
    points = [space.point(index) for index in sampled(space)]
    assert len(space) == len(points) == 2 * 3 * 2
    assert len({point.key() for point in points}) == len(points)
    assert nested(points[0].parameters)["dram"] == {"latency_cycles": 5}


def test_example_is_a_valid_sweep(tmp_path):
    assert len(Space.of(read_spec(write(tmp_path, EXAMPLE)))) == 72


@pytest.mark.parametrize("kind", ["random", "latin-hypercube"])
def test_samples_are_drawn_from_the_seed_and_spread(tmp_path, kind):
    def drawn(seed, points=8):
        text = VALID + f"sampler: {{kind: {kind}, points: {points}, seed: {seed}}}\n"
        return list(sampled(Space.of(read_spec(write(tmp_path, text)))))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(3))) == len(drawn(3)) <= 8
    assert all(0 <= index < 12 for index in drawn(4))
    assert len(drawn(5, points=100)) <= 12


def test_latin_hypercube_takes_every_value_of_every_dimension(tmp_path):
    text = VALID + "sampler: {kind: latin-hypercube, points: 6, seed: 0}\n"
    space = Space.of(read_spec(write(tmp_path, text)))
    points = [space.point(index) for index in sampled(space)]
    assert {point.parameters["clock_hz"] for point in points} == {100, 200, 300}
    assert {point.parameters["rows"] for point in points} == {2, 4}
    assert {point.sparsity for point in points} == {"dense", "2:8"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("rows: [2, 4]", "rows: []"), "line 6: archs.0.parameters.rows has no values"),
        (("step: 100", "stride: 100"), "line 7: a range is {start, stop, step}"),
        (("step: 100", "step: 0"), "line 7: the range from 100 to 300 by 0 has no end"),
        (("step: 100", "factor: 1"), "line 7: the range from 100 to 300 by 1 has no end"),
        (('"2:8"', "28"), "line 2: sparsities.1 is 28; it must be a text"),
        (("workloads: [resnet9]", "workloads: resnet9"), "line 1: workloads is a list"),
        (("workloads: [resnet9]", "workloads: []"), "needs at least one entry in workloads"),
        (("workloads: [resnet9]", "work: [resnet9]"), "line 1: unknown key 'work'"),
        (("workloads: [resnet9]", "name: x"), "key 'workloads' is missing"),
        (("base: nm-tiny", "bse: nm-tiny"), "line 4: unknown key 'archs.0.bse'"),
        (("rows: [2, 4]", "rows: [2, [4]]"), "line 6: archs.0.parameters.rows.1 is [4]"),
        (("archs:", "objectives: [speed]\narchs:"), "line 3: Unknown entry of objectives 'speed'"),
        (("archs:", "mapper: best\narchs:"), "line 3: Unknown mapper 'best'; known: exhaustive"),
        (
            ("archs:", "minimise: area\narchs:"),
            "line 3: minimise: Unknown objective 'area'; known: cycles, energy, edp, dram_bytes",
        ),
        (("archs:", "sampler: {kind: random}\narchs:"), "line 3: Sampler random needs points"),
        (("archs:", "sampler: {points: 3}\narchs:"), "Sampler grid takes no points"),
        (("archs:", "sampler: {kind: luck}\narchs:"), "line 3: sampler.kind is 'luck'"),
        (("archs:", "constraints: [{metric: cycles}]\narchs:"), "either at_most or at_least"),
        (("archs:", "constraints: [{metric: x, at_most: 1}]\narchs:"), "Unknown metric 'x'"),
        (("archs:", "- a\narchs:"), "not valid YAML"),
        (('"2:8"', "9:8"), "line 2: N:M sparsity needs 0 <= N <= M and M >= 1, not 9:8"),
        (('"2:8"', "often"), "line 2: Unknown sparsity 'often'"),
        (("base: nm-tiny", "base: sat-xyz"), "line 4: Unknown arch 'sat-xyz'; known presets"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_key(tmp_path, change, sentence):
    assert change[0] in VALID
    path = write(tmp_path, VALID.replace(*change))
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)


def test_machines_that_do_not_exist_are_refused_before_anything_runs(tmp_path):
    spec = read_spec(write(tmp_path, VALID))
    spec = replace(spec, archs=(replace(spec.archs[0], base="sat-xyz"),))
    with pytest.raises(ValueError, match="Unknown arch 'sat-xyz'; known presets"):
        Space.of(spec)


def test_files_that_are_missing_or_no_mapping_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"File '.*none\.yaml' does not exist"):
        read_spec(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="a sweep is a mapping with workloads and archs"):
        read_spec(write(tmp_path, "- 1\n"))
