"""Designs: exact candidates, a proved choice, reasons that add up, one door for all of `place`."""

import json
from dataclasses import replace
from functools import partial
from itertools import product

import pandas as pd
import pytest

import sparseloom as sl
from cost_models.fpga import fpga_resources
from mapping.placer import InfeasiblePlacement
from sparseloom.cli import invoke
from sparseloom.designs import DESIGNS, load_design
from sparseloom.designs.figures import draw_front, front_svg
from sparseloom.designs.reasons import saved
from sparseloom.schema import CAUSES
from sparseloom.sweeps.evaluate import causes
from sparseloom.sweeps.points import nested
from sparseloom.tables import design_tables

SPEC = """\
problem: design
device: vcu1525
workloads: [{topology}]
sparsities: [dense, 2:4]
archs:
  - base: nm-tiny
    parameters:
      rows: [2, 4, 8]
      cols: [2, 4]
      vector_lanes: [1, 4]
reference: {{base: nm-tiny, parameters: {{rows: 4}}}}
budget:
  caps: {{lut: 0.02}}
"""


@pytest.fixture
def text(topology):
    """Return a design of twelve candidates that are simulated in milliseconds."""
    return SPEC.format(topology=topology)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return `sl.place` on a store of its own, so that points are simulated once a session."""
    return partial(sl.place, store=tmp_path_factory.mktemp("store") / "points.db")


@pytest.fixture
def path(text, tmp_path, monkeypatch):
    """Return the design's file in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


GRID = """\
problem: design
device: vcu1525
workloads: [{topology}]
sparsities: [dense, unstructured:0.5]
archs:
  - base: grid-tiny
    parameters: {{rows: [2, 3], chunk: [8, 16], fifo_depth: [1, 2], skip: [weights]}}
reference: grid-tiny
budget:
  caps: {{lut: 0.0165}}
"""

CHAINS = """\
problem: design
device: u280
workloads: [{source: mistral-7b, options: {decode: 1}}]
archs:
  - base: flightllm-u280
    parameters:
      cores: [1, 2, 3]
      hbm.channels_per_core: [8, 10]
      mv_columns: [32, 64]
      mm_tokens: [32]
reference: flightllm-u280
budget:
  caps: {lut: 0.85}
"""


def machine(**parameters):
    """Return a candidate's machine and what it takes of LUTs."""
    arch = sl.arch("nm-tiny", **parameters)
    return arch, fpga_resources(arch).lut


def values(found):
    """Return every combination of the parameters that a design varies."""
    names = list(found.candidates[0].parameters)
    options = [dict.fromkeys(m.parameters[name] for m in found.candidates[:-1]) for name in names]
    return [dict(zip(names, chosen, strict=True)) for chosen in product(*options)]


def brute_force(found, base, graphs):
    """Return cycles of every combination of parameters that fits, by its machine's digest."""
    names = list(found.candidates[0].parameters)
    options = [dict.fromkeys(m.parameters[name] for m in found.candidates[:-1]) for name in names]
    fitting = {}
    for chosen in product(*options):
        arch = sl.arch(base, **nested(dict(zip(names, chosen, strict=True))))
        if fpga_resources(arch).lut <= found.budget.limits["LUT"]:
            fitting[arch.digest()] = sum(sl.simulate(graph, arch).cycles for graph in graphs)
    return fitting


@pytest.mark.parametrize("base", ["grid-tiny", "flightllm-u280"])
def test_machines_of_other_kinds_are_chosen_like_by_brute_force(path, topology, place, base):
    """The choice is the fastest of all combinations that fit, each simulated on its own."""
    if base == "grid-tiny":
        graph = sl.load(topology)
        path.write_text(GRID.format(topology=topology))
        graphs = [graph, graph.sparsify(sl.Unstructured(0.5))]
    else:
        path.write_text(CHAINS)
        graphs = [sl.load("mistral-7b", decode=1)]
    found = place(path)
    fitting = brute_force(found, base, graphs)
    (chosen,) = found.machines
    assert 0 < len(fitting) < len(found.candidates) - 1
    assert fitting[chosen.arch.digest()] == found.choice.cycles == min(fitting.values())
    assert (found.choice.gap, found.choice.bound) == (0, found.choice.cycles)
    assert sum(found.saved.values()) == found.reference.cycles - found.choice.cycles


def test_candidates_that_were_not_synthesised_are_counted_with_their_part(path, topology, place):
    """A part without figures takes its machines out of the choice; a reference with one is none."""
    text = GRID.format(topology=topology).replace("rows: [2, 3], chunk: [8, 16]", "rows: [2]")
    path.write_text(text.replace("fifo_depth: [1, 2]", "fifo_depth: [2, 9]"))
    found = place(path)
    reason = "No FIFO with fifo_depth 9 and 1 chunks seen was synthesised"
    assert found.failures == {reason: 1}
    assert found.notes[-1] == f"1 candidate without a result: {reason}"
    path.write_text(
        text.replace("grid-tiny\nbudget", "{base: grid-tiny, parameters: {fifo_depth: 9}}\nbudget")
    )
    with pytest.raises(ValueError, match=f"The reference of small has no result: {reason}"):
        place(path)


def test_choice_is_the_fastest_of_the_machines_that_fit(path, topology, place):
    """Simulating every machine on its own finds the same cycles and the same best one."""
    found = place(path)
    graph = sl.load(topology)
    graphs = (graph, graph.sparsify(sl.NofM(2, 4)))
    limit = int(1_182_240 * 0.02)
    cycles = {}
    for rows in (2, 4, 8):
        for cols in (2, 4):
            for lanes in (1, 4):
                arch, lut = machine(rows=rows, cols=cols, vector_lanes=lanes)
                total = sum(sl.simulate(g, arch).cycles for g in graphs)
                cycles[arch.digest()] = (total, lut <= limit)
    ours = {m.arch.digest(): (m.cycles, not m.lacks) for m in found.candidates}
    assert ours == cycles
    assert len({fits for _, fits in cycles.values()}) == 2
    assert found.choice.cycles == min(total for total, fits in cycles.values() if fits)
    assert (found.choice.gap, found.choice.bound) == (0, found.choice.cycles)


def test_reasons_add_up_to_the_difference(path, place):
    """Cycles saved by cause sum to the reference's less the choice's, and the sentence has them."""
    found = place(path)
    assert sum(found.saved.values()) == found.reference.cycles - found.choice.cycles
    assert len(found.saved) > 1
    for cause, cycles in found.saved.items():
        assert f"{CAUSES[cause]} {abs(cycles):,}" in found.sentences[1]
    (chosen,) = found.machines
    for machine in (chosen, found.reference):
        for job, point in machine.points.items():
            assert sum(causes(point).values()) == machine.candidate.cycles[job]


def test_a_choice_that_is_the_reference_saves_nothing(path, text, place):
    """With only the reference to choose from there is nothing to explain."""
    start, end = text.index("      rows"), text.index("reference")
    path.write_text(text[:start] + "      rows: [4]\n" + text[end:])
    found = place(path)
    assert (found.choice.machines, found.saved) == ((found.reference.name,), {})
    assert len(found.sentences) == 2
    assert saved(found.choice, found.machines, found.reference) == {}
    assert len(design_tables(found.to_json())) == 2


def test_limits_as_of_the_reference(path, text, place):
    """A resource may be limited to what the reference takes, and a note says so."""
    path.write_text(text.replace("caps: {lut: 0.02}", "as_reference: [lut, dsp]"))
    found = place(path)
    takes = found.reference.candidate.takes
    assert found.budget.limits["LUT"] == takes["LUT"] > 0
    assert found.choice.used["DSP"] <= takes["DSP"]
    assert found.choice.cycles <= found.reference.cycles
    assert found.notes[1].startswith("LUT may be as much as the reference takes")


def test_a_parameter_may_be_none(path, text, place):
    """A unit is left out by null, and is what the machine has not."""
    trainer = text.replace("base: nm-tiny", "base: sat-tiny", 1)
    path.write_text(trainer.replace("vector_lanes: [1, 4]", "training: null"))
    found = place(path)
    assert all(machine.arch.training is None for machine in found.candidates[:-1])


def test_several_machines_share_the_workloads(path, text, place):
    """With two machines allowed the last one is done earlier than the best single one."""
    path.write_text(text.replace("lut: 0.02", "lut: 0.04"))
    one = place(path)
    path.write_text(text.replace("lut: 0.02", "lut: 0.04") + "machines: 2\n")
    two = place(path)
    assert len(two.machines) == 2
    assert two.choice.cycles < one.choice.cycles
    assert set(two.choice.assignment.values()) == {m.name for m in two.machines}


def test_a_rerun_computes_nothing(path, monkeypatch):
    """With a store a second run takes every candidate from it, and finds the same."""
    first = sl.place(path, store="points.db")

    def no_more(points):
        raise AssertionError(points)

    monkeypatch.setattr("sparseloom.sweeps.run.evaluate", no_more)
    again = sl.place(path, store="points.db")
    assert again.to_json() == first.to_json()


def test_candidates_that_fail_are_counted_with_their_reason(path, text, place):
    """An impossible machine is no candidate; a reference that fails is an error."""
    path.write_text(text.replace("rows: [2, 4, 8]", "rows: [0, 4]"))
    found = place(path)
    reason = "arch: NMArray rows must be at least 1, not 0"
    assert found.failures == {reason: 4}
    assert found.notes[-1] == f"4 candidates without a result: {reason}"
    assert len(found.candidates) == 4
    path.write_text(text.replace("rows: [2, 4, 8]", "rows: [0]"))
    with pytest.raises(ValueError, match=f"No candidate of .* has a result: {reason}"):
        place(path)
    path.write_text(text.replace("parameters: {rows: 4}", "parameters: {rows: 0}"))
    with pytest.raises(ValueError, match="NMArray rows must be at least 1, not 0"):
        place(path)


def test_nothing_fits_names_resource_demand_and_limit(path, text, place):
    """The nearest candidate's shortage is named."""
    path.write_text(text.replace("lut: 0.02", "lut: 0.0001"))
    sentence = (
        r"Even the nearest candidate does not fit on vcu1525: LUT of '.*': needs [\d,]+, has 118, "
    )
    with pytest.raises(InfeasiblePlacement, match=sentence):
        place(path)


@pytest.mark.parametrize(
    ("limit", "name"),
    [("bandwidth_bytes_per_s: 1e6", r"bandwidth \(B/s\)"), ("power_w: 1e-9", r"power \(W\)")],
)
def test_bandwidth_and_power_are_limits(path, text, limit, name, place):
    """Both are budgets like resources."""
    path.write_text(text.replace("caps: {lut: 0.02}", limit))
    with pytest.raises(InfeasiblePlacement, match=rf"{name} of '.*': needs "):
        place(path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("device: vcu1525", "device: vcu", r"small\.yaml, line 2: Unknown device 'vcu'; known: "),
        ("reference:", "reverence:", r"unknown key 'reverence'; .* \(did you mean 'reference'\?\)"),
        ("lut: 0.02", "lut: 2", r"line 13: Cap lut must be above 0 and at most 1, not 2"),
        ("caps: {lut: 0.02}", "as_reference: [led]", r"line 13: budget\.as_reference\.0 is 'led'"),
        ("caps: {lut: 0.02}", "power_w: 0", r"line 13: Budget power_w must be above 0, not 0"),
        ("{rows: 4}", "{rows: [4, 8]}", r"The reference is one machine"),
        ("budget:", "machines: 0\nbudget:", r"A design has at least 1 of machines, not 0"),
        ("rows: [2, 4, 8]", "rows: []", r"line 8: archs\.0\.parameters\.rows has no values"),
        ("[dense, 2:4]", "[]", r"A sweep needs at least one entry in sparsities"),
        ("{rows: 4}", "{clock_hz: 5}", r"Cycles of different clocks do not compare; .* 5e-06 MHz"),
        (
            "reference: {base: nm-tiny, parameters: {rows: 4}}",
            "reference: flex-tiny",
            r"The reference of small has no result: .* pe_grid and dsp_chain .*, not of a FlexDpe",
        ),
        (
            "[dense, 2:4]",
            "[9:8]",
            r"small\.yaml, line 4: N:M sparsity needs 0 <= N <= M .*, not 9:8",
        ),
        ("base: nm-tiny\n", "base: nm-tyny\n", r"line 6: Unknown arch 'nm-tyny'"),
        ("reference: {base: nm-tiny", "reference: {base: nm", r"line 11: Unknown arch 'nm'"),
        ("problem: design", "problem: dsign", r"must be one of slots, sites, design, not 'dsign'"),
    ],
)
def test_mistakes_are_one_sentence(path, text, old, new, sentence):
    """What is wrong in a design's file is named with its line and key."""
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=sentence):
        sl.place(path)


def test_a_design_on_another_device(path):
    """The device given wins over the file's; a design has one already."""
    asked = load_design(path, device="u280")
    assert asked.table().name == "u280"
    with pytest.raises(ValueError, match="A design has its device already"):
        sl.place(asked, device="u250")
    with pytest.raises(ValueError, match="A store and jobs go with a design"):
        sl.place("systolic32", store="x.db")


def test_command_prints_tables_and_writes_files(path, capsys):
    """The table has choice and reference; files hold the same document and every candidate."""
    assert invoke(["place", str(path), "--out", "out"]) == 0
    printed = capsys.readouterr().out
    for part in ("gap 0.00% (optimal) over 12 candidates", "Pareto front", "Cycles saved", "note:"):
        assert part in printed
    assert invoke(["place", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert json.loads((path.parent / "out" / "design.json").read_text()) == document
    assert (document["placed"], document["status"], document["gap"]) == (1, "optimal", 0)
    assert document["objective"] == document["bound"] == document["machines"][0]["cycles"]
    frame = pd.read_csv(path.parent / "out" / "candidates.csv")
    assert len(frame) == 12
    assert frame[frame.chosen].cycles.tolist() == [document["objective"]]
    assert sorted(set(frame.rows)) == [2, 4, 8]
    assert sum(document["saved_by_cause"].values()) == (
        document["reference"]["cycles"] - document["objective"]
    )


def test_front_is_drawn_the_same_every_time(path, place):
    """The picture is deterministic, shows the choice, and refuses a limit there is none of."""
    found = place(path)
    assert front_svg(found) == front_svg(found)
    other = replace(found, machines=(found.reference,))
    assert front_svg(found) != front_svg(other)
    with pytest.raises(ValueError, match="Unknown limit 'gold'; known: DSP, BRAM, URAM, LUT"):
        draw_front(found, "gold")


def test_front_holds_what_nothing_beats(path, place):
    """Even the nearest candidate off the front is beaten by one on it in all that counts."""
    found = place(path)

    def figures(machine):
        return (machine.cycles, machine.total("energy_j"), *machine.candidate.takes.values())

    front = [figures(machine) for machine in found.front]
    for candidate in found.candidates:
        beaten = any(
            theirs != figures(candidate)
            and all(a <= b for a, b in zip(theirs, figures(candidate), strict=True))
            for theirs in map(figures, found.candidates)
        )
        assert beaten == (figures(candidate) not in front)


@pytest.mark.long
@pytest.mark.parametrize("name", ["grid-design", "flight-design"])
def test_built_in_designs_fit_where_their_references_do_not(name):
    """The choice is proved, fits, and its cycles differ from the reference's by the causes told."""
    found = sl.place(name)
    (chosen,) = found.machines
    assert (found.choice.gap, chosen.lacks, found.failures) == (0, (), {})
    assert any(shortage.resource.startswith("LUT of") for shortage in found.reference.lacks)
    assert sum(found.saved.values()) == found.reference.cycles - found.choice.cycles
    assert any(not machine.lacks for machine in found.front)


def test_built_in_designs_are_listed(capsys):
    """`list placements` has the designs with their summaries."""
    assert invoke(["list", "placements", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["placements"]
    assert {row["name"] for row in rows} >= set(DESIGNS) | {"rapidlayout", "systolic32"}
    assert all(row["summary"] for row in rows)
