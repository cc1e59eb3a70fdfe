"""report.html: self-contained, escaped, reproducible; figures say what they show."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from sparseloom.figures import FIGURES, draw
from sparseloom.report import read_document, render, report_file
from sparseloom.runs import run


@pytest.fixture(scope="module")
def doc(vision_run):
    return vision_run.to_json()


@pytest.fixture(scope="module")
def page(doc):
    return render(doc)


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for key, value in attrs if key in ("src", "href", "srcset")]


def test_report_is_self_contained(page):
    links = _Links()
    links.feed(page)
    assert len(links.found) == len(FIGURES)
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links.found)
    assert not {"script", "link", "iframe", "object"} & set(links.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_report_states_headlines_notes_and_provenance(page, doc):
    assert f"{doc['speedup']:.2f}×" in page
    assert f"{doc['cycles']:,}" in page
    assert all(op["name"] in page for op in doc["ops"])
    assert all(doc["digests"][key] in page for key in ("workload_digest", "schedule_digest"))
    assert "first layer stays dense" in page
    assert "assumed" in page


def test_report_of_the_same_document_is_the_same_bytes(page, doc):
    assert render(doc) == page


def test_report_escapes_names_from_files(sparse_run):
    hostile = sparse_run.to_json()
    hostile["workload"] = "<script>alert(1)</script>"
    hostile["ops"][0]["name"] = "<img src=x onerror=alert(2)>"
    hostile["notes"] = ["<b>bold</b>"]
    hostile["unsupported"] = {"<i>LSTM</i>": 2}
    text = render(hostile)
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert "<b>bold" not in text
    assert "&lt;i&gt;LSTM&lt;/i&gt; (2)" in text


def test_report_without_baseline_leaves_comparisons_out(topology):
    text = render(run(topology, arch="nm-tiny").to_json())
    assert "speed-up" not in text
    assert "(baseline)" not in text


def test_report_file_rebuilds_the_page_of_a_folder(sparse_run, tmp_path):
    _, report = sparse_run.write(tmp_path)
    before = report.read_text()
    report.unlink()
    assert report_file(tmp_path) == report.absolute()
    assert report.read_text() == before
    assert report_file(tmp_path / "result.json").read_text() == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", r"is not the result of a run \(schema 2\)"),
        ('{"schema": 99}', r"is not the result of a run \(schema 2\)"),
        ('{"schema": 2}', "key 'workload' is missing or of the wrong type"),
    ],
)
def test_read_document_wrong_content_is_refused(tmp_path, text, sentence):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"result\.json'.* {sentence}"):
        read_document(path)


def test_report_file_incomplete_operators_are_refused(sparse_run, tmp_path):
    broken = sparse_run.to_json()
    del broken["ops"][0]["cycles"]
    (tmp_path / "result.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="is not a complete result: 'cycles'"):
        report_file(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_read_document_missing_file_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"does not exist; give a result\.json, its folder or a sweep"
    ):
        read_document(tmp_path / "none")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_labels_its_axes_with_units(doc, name):
    (axes,) = FIGURES[name][1](doc).axes
    label = axes.get_xlabel()
    assert re.search(r"cycles|\(times\)|J\)|a byte", label), label
    if name == "roofline":
        assert "(GMAC/s)" in axes.get_ylabel()


def test_cycles_figure_bars_sum_to_the_cycles(doc):
    (axes,) = FIGURES["cycles"][1](doc).axes
    total = sum(bar.get_width() for bar in axes.patches)
    assert total == pytest.approx(doc["cycles"], rel=1e-12)
    assert axes.get_xlim()[0] == 0


def test_cycles_figure_pools_what_it_does_not_show(doc):
    many = {**doc, "ops": [{**doc["ops"][1], "name": f"op{i}", "cycles": 1 + i} for i in range(99)]}
    (axes,) = FIGURES["cycles"][1](many).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(labels) == 41
    assert labels[-1] == "59 other operators"


def test_energy_figure_bars_sum_to_both_energies(doc):
    (axes,) = FIGURES["energy"][1](doc).axes
    unit = {"m": 1e-3, "µ": 1e-6, "n": 1e-9}[axes.get_xlabel()[-3]]
    total = sum(bar.get_width() for bar in axes.patches) * unit
    assert total == pytest.approx(doc["energy_j"] + doc["baseline_energy_j"], rel=1e-9)


def test_drawn_figures_are_svg(doc):
    for figure in draw({**doc, "ops": doc["ops"][:3]}):
        svg = base64.b64decode(figure["url"].split(",")[1])
        assert b"<svg" in svg
        assert figure["caption"].endswith(".")


def test_report_of_a_training_step_names_method_and_passes():
    """Cycles of every pass stand under those of the step, the dense step's beside them."""
    options = {"sparsity": "2:8", "baseline": "dense", "phase": "train", "batch": 1}
    document = run("resnet9", arch="sat-vcu1525", **options).to_json()
    page = render(document)
    assert "One training step, method bdwp." in page
    assert list(document["passes"]) == ["ff", "bp", "wu", "update", "select"]
    for name, spent in document["passes"].items():
        (row,) = re.findall(rf"<td>of which {name}</td><td>([\d,]*)</td><td>([\d,]*)</td>", page)
        before = spent.get("baseline_cycles")
        assert row == (f"{spent['cycles']:,}", "" if before is None else f"{before:,}")


def test_report_tells_idle_multipliers_from_working_ones(page, doc):
    """The share in the sentence is that of the figure: effectual products over array time."""
    (cycles,) = (part["cycles"] for part in doc["bottlenecks"] if part["cause"] == "compute")
    share = doc["macs_effectual"] / (doc["peak_macs_per_cycle"] * cycles)
    assert f"array work, {share:.1%} of the multipliers on effectual products" in page
