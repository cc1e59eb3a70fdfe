from dataclasses import fields, is_dataclass

import pytest

from simulator.arch import Dataflow, MemoryMode, NMArray
from simulator.arch.load import PRESETS, load_arch, read_arch_file

TRAINING = {
    "sore": {"lanes": 1, "max_n": 1, "max_m": 8},
    "wuve": {"lanes": 1, "adder_latency": 1, "multiplier_latency": 1},
}


def keys_of(spec, prefix=""):
    for field in fields(spec):
        value = getattr(spec, field.name)
        if value is None:
            continue  # a unit this machine has not, or a choice left to the mapper
        if is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("name", PRESETS)
def test_preset_gives_a_source_for_every_number(name):
    arch = load_arch(name)
    settings = {"memory"}  # how to run it, not what it is
    assert set(keys_of(arch)) - settings == set(read_arch_file(name).sources)


def test_sat_preset_is_the_array_usually_quoted_for_sat():
    arch = load_arch("sat-vcu1525")
    assert (arch.rows, arch.cols, arch.max_m, arch.clock_hz) == (32, 32, 16, 200_000_000)


def test_override_of_a_nested_field_keeps_its_siblings():
    arch = load_arch("systolic", dram={"latency_cycles": 7}, dataflow="os", memory="ideal")
    assert arch.dram.latency_cycles == 7
    assert arch.dram.bandwidth_bytes_per_s == load_arch("systolic").dram.bandwidth_bytes_per_s
    assert (arch.dataflow, arch.memory) == (Dataflow.OS, MemoryMode.IDEAL)


def test_parameters_pass_through_unchanged():
    arch = load_arch("nm-tiny")
    assert load_arch(arch) == arch
    assert isinstance(load_arch(arch, rows=2), NMArray)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"rowz": 3}, r"^systolic: unknown key 'rowz'; known: rows, cols, max_m"),
        (
            {"training": {**TRAINING, "selector": 1}},
            r"unknown key 'training\.selector'; known: sore, wuve, pregenerate",
        ),
        (
            {"training": {**TRAINING, "sore": {**TRAINING["sore"], "width": 1}}},
            r"unknown key 'training\.sore\.width'; known: lanes, max_n",
        ),
        ({"dram": {"bw": 3}}, r"unknown key 'dram\.bw'; known: bandwidth_bytes_per_s, latency"),
        ({"rows": "x"}, r"^systolic: rows is 'x'; it must be a whole number"),
        ({"rows": 2.5}, r"rows is 2\.5; it must be a whole number$"),
        ({"rows": 0}, r"rows must be at least 1, not 0"),
        ({"dataflow": "xs"}, r"dataflow is 'xs'; it must be os, ws, is or null"),
        ({"memory": "magic"}, r"memory is 'magic'; it must be modelled, ideal or steady"),
        (
            {"dram": {"bandwidth_bytes_per_s": -5}},
            r"_per_s must be at least 1, not -5",
        ),
        ({"dram": {"latency_cycles": -1}}, r"latency_cycles must be at least 0, not -1"),
        ({"act_buffer": {"capacity_bytes": 0}}, r"capacity_bytes must be at least 1, not 0"),
        ({"max_m": 65}, r"max_m must be at most 64, not 65"),
        ({"macs_per_pe": 2}, r"macs_per_pe must be at most max_m = 1, not 2"),
    ],
)
def test_bad_override_is_named_with_what_is_allowed(overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_arch("systolic", **overrides)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "base: sat-vcu1525\nparameters:\n  rows: -2\n",
            r"a\.yaml, line 3: NMArray rows must be",
        ),
        ("base: sat-vcu1525\nparameters:\n  rowz: 2\n", r"a\.yaml, line 3: unknown key 'rowz'"),
        ("base: sat\n", r"a\.yaml, line 1: unknown base 'sat'; known: .*nm-tiny"),
        ("machine: tpu\n", r"a\.yaml, line 1: unknown machine 'tpu'; known: nm_array"),
        ("colour: red\n", r"a\.yaml, line 1: unknown key 'colour'; known: machine"),
        ("machine: nm_array\nparameters: {rows: 2}\n", r"a\.yaml: key 'cols' is missing"),
        ("a: [1\nb: }", r"a\.yaml, line 2: not valid YAML"),
        ("- 1\n", r"a\.yaml: a machine file is a mapping with keys machine"),
        ("", r"a\.yaml: the file is empty; a machine file is a mapping"),
        ("summary: mine\n", r"a\.yaml: key 'base' is missing .* or 'machine' \(nm_array, "),
        ("base: systolic\nparameters: 3\n", r"a\.yaml, line 2: parameters is a mapping"),
        (
            "base: systolic\nparameters:\n  rowz: 2\n",
            r"line 3: unknown key 'rowz'; known: rows, .* \(did you mean 'rows'\?\)$",
        ),
        ("base: sistolic\n", r"unknown base 'sistolic'; .* \(did you mean 'systolic'\?\)$"),
        ("base: systolic\nbase: nm-tiny\n", r"line 2: .* key 'base' stands on line 1 too"),
        ("base: systolic\nsummary: 2026-19-39\n", r"a\.yaml: not valid YAML: month must be"),
        ("!!python/object/apply:os.system ['true']", r"a\.yaml, line 1: not valid YAML"),
        ("machine: [1]\n", r"a\.yaml, line 1: unknown machine"),
        ("base: sat-vcu1525\nparameters:\n  dram: 5\n", r"a\.yaml, line 3: dram is 5"),
    ],
)
def test_bad_machine_file_is_named_with_line_and_key(tmp_path, text, sentence):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_arch(path)


@pytest.mark.parametrize("number", ["19.2e9", "192e+8", "19_200_000_000", hex(19_200_000_000)])
def test_numbers_may_be_written_with_an_exponent(tmp_path, number):
    """YAML 1.1 would read 19.2e9 as a text; here it is the whole number it says."""
    path = tmp_path / "a.yaml"
    path.write_text(f"base: systolic\nparameters: {{dram: {{bandwidth_bytes_per_s: {number}}}}}\n")
    found = load_arch(path)
    assert found == load_arch("systolic", dram={"bandwidth_bytes_per_s": 19_200_000_000})
    assert type(found.dram.bandwidth_bytes_per_s) is int


def test_a_fraction_where_a_whole_number_is_wanted_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("base: systolic\nparameters:\n  rows: 1.5e0\n")
    with pytest.raises(ValueError, match=r"line 3: rows is 1\.5; it must be a whole number"):
        load_arch(path)


def test_a_folder_is_no_machine_file(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(ValueError, match=r"a\.yaml' is a folder, not a file"):
        load_arch(tmp_path / "a.yaml")


def test_an_arch_is_a_name_a_file_or_parameters():
    with pytest.raises(ValueError, match=r"An arch is a preset's name, .* not 3"):
        load_arch(3)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown arch 'sta'; known presets: .*nm-tiny, .*sat-"):
        load_arch("sta")


def test_missing_machine_file_is_named():
    with pytest.raises(ValueError, match=r"File 'no/such\.yaml' does not exist"):
        load_arch("no/such.yaml")
