"""Published figures beside ours: errors, verdicts, registry, and what the command prints."""

import json

import pytest

from sparseloom import tables
from sparseloom.cli import invoke
from sparseloom.reproduce import SECTIONS, reproduce, sat
from sparseloom.reproduce.row import Row
from sparseloom.studies import BDWP, NETWORKS


def row(published, ours, **fields):
    return Row(what="it", published=published, ours=ours, unit="x", source="here", **fields)


@pytest.fixture(scope="module")
def scale_sim():
    return reproduce(["scale-sim"])[0]


@pytest.mark.parametrize(
    ("published", "ours", "error", "matches"),
    [(2.0, 2.0, 0, True), (2.0, 1.92, -0.04, True), (2.0, 2.2, 0.1, False), (4, 3, -0.25, False)],
)
def test_error_is_relative_to_the_published_figure(published, ours, error, matches):
    """The error has the published figure below the line, and 5 % is allowed."""
    found = row(published, ours)
    assert found.error == pytest.approx(error)
    assert found.matches is matches


def test_a_row_may_ask_for_equality():
    """Tolerance 0 lets nothing through."""
    assert row(1000, 1000, tolerance=0).matches
    assert not row(1000, 1001, tolerance=0).matches


def test_unknown_section_lists_the_known():
    """A wrong name is told what there is."""
    with pytest.raises(ValueError, match=f"Unknown section 'sta'; known: {', '.join(SECTIONS)}"):
        reproduce(["scale-sim", "sta"])


def test_unknown_section_is_bad_input(capsys):
    """The command line ends with code 2 and one sentence."""
    assert invoke(["reproduce", "nope"]) == 2
    assert capsys.readouterr().err == (
        f"sparseloom: Unknown section 'nope'; known: {', '.join(SECTIONS)}\n"
    )


def test_scale_sim_agrees_to_the_cycle(scale_sim):
    """Every printed or computed count of SCALE-Sim is ours."""
    cycles = [r for r in scale_sim.rows if r.unit == "cycles"]
    assert len(cycles) == 13
    assert all(r.error == 0 and r.tolerance == 0 for r in cycles)
    assert cycles[0].published == cycles[0].ours == 112283


def test_scale_sim_mapping_efficiency(scale_sim):
    """AlexNet's 363 x 96 weights in 12 x 3 folds of 32 x 32."""
    (efficiency,) = (r for r in scale_sim.rows if r.unit == "%")
    assert efficiency.ours == 363 * 96 / (12 * 3 * 32 * 32)
    assert efficiency.matches


def test_sections_run_once_and_report_steps():
    """A section named twice runs once, and calls back after every step."""
    seen = []
    found = reproduce(["scale-sim", "scale-sim"], on_step=seen.append)
    assert [section.name for section in found] == ["scale-sim"]
    assert len(seen) == len(set(seen)) == 5


def test_command_prints_json(capsys):
    """One object, every row with its error."""
    assert invoke(["reproduce", "scale-sim", "--json"]) == 0
    (section,) = json.loads(capsys.readouterr().out)["sections"]
    assert {row["error"] for row in section["rows"] if row["unit"] == "cycles"} == {0}
    assert {"what", "published", "ours", "source", "note", "matches"} <= set(section["rows"][0])


def test_table_says_off_where_a_figure_does_not_match(scale_sim, capsys):
    """A figure that misses its tolerance is marked, one that meets it is not."""
    from dataclasses import replace

    from rich.console import Console

    rows = (row(1.75, 2.5, note="because"), row(1.75, 1.75))
    Console(width=110).print(tables.reproduction_table(replace(scale_sim, rows=rows)))
    wrong, right = [line for line in capsys.readouterr().out.splitlines() if "1.75x" in line]
    assert "+42.9%" in wrong
    assert "off" in wrong
    assert "because" in wrong
    assert "off" not in right


@pytest.fixture(scope="module")
def small():
    """Return the SAT section of one network at batch 1, every tolerance missed."""
    seen = []
    return sat.section(seen.append, networks=NETWORKS[:1], batch=1, tolerance=0.0), seen


def test_sat_off_by_more_than_allowed_shows_the_sensitivity(small):
    """An average that misses is explained by the assumption that comes closest."""
    section, seen = small
    (settings,) = (t for t in section.tables if "one assumption changed" in t.title)
    averages = {f"{name} ({label})": average for name, label, average, _ in settings.rows}
    closest = min(averages, key=lambda key: abs(averages[key] / 1.75 - 1))
    assert not section.rows[0].matches
    assert closest in section.rows[0].note
    assert str(NETWORKS[0]) in seen
    assert "vector lanes" in seen


def test_command_prints_tables_and_sentences(small, monkeypatch, capsys):
    """What the section found is on the page: the average, every network, every sentence."""
    monkeypatch.setitem(SECTIONS, "sat", lambda _on_step: small[0])
    assert invoke(["reproduce", "sat"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    average = small[0].rows[0]
    assert f"1.75x {average.ours:.2f}x {average.error:+.1%} off" in page
    assert all(sentence in page for sentence in small[0].sentences)
    for table in small[0].tables:
        assert table.title in page
        assert all(row[0] in page for row in table.rows)


def test_sat_within_the_tolerance_varies_nothing():
    """A match needs no explanation."""
    section = sat.section(lambda _name: None, networks=NETWORKS[:1], batch=1, tolerance=1.0)
    assert section.rows[0].matches
    assert len(section.tables) == 3


def test_sat_rows_carry_published_bounds_and_averages(small):
    """The average leads; derived bounds follow with their formulas."""
    section, _ = small
    assert [r.published for r in section.rows] == [1.75, 1.50, 2.00, 1.33]
    assert section.rows[0].what.endswith(str(BDWP))
    assert all(r.source.startswith("derived") for r in section.rows[1:])
    assert all(abs(r.error) < 0.05 for r in section.rows[1:])
