"""Stores that are no stores, of another layout, or damaged are refused with the way out."""

import builtins
import json
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from sparseloom.cli import invoke
from sparseloom.sweeps import sweep
from sparseloom.sweeps.store import open_store
from sparseloom.sweeps.summary import summarise


@pytest.fixture
def store(small, tmp_path):
    path = tmp_path / "s.db"
    sweep(small, path)
    return path


def test_store_of_another_layout_is_refused_with_the_way_out(small, store):
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE meta SET value = '0' WHERE key = 'schema'")
    sentence = r"has layout 0, written by sparseloom .*; this version has layout 2: export it"
    with pytest.raises(ValueError, match=sentence):
        sweep(small, store)
    with pytest.raises(ValueError, match=sentence), open_store(store):
        pass


def test_other_files_are_refused_and_left_alone(small, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a store")
    with pytest.raises(ValueError, match="is not the store of a sweep"):
        sweep(small, text)
    assert text.read_text() == "not a store"
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (x)")
    with pytest.raises(ValueError, match="is an SQLite file, but not the store of a sweep"):
        sweep(small, other)
    with sqlite3.connect(other) as connection:
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert names == [("things",)]


def test_damaged_store_is_one_sentence(small, store):
    data = bytearray(store.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    store.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"Store '.*' cannot be read or written"):
        sweep(small, store)


def test_store_in_a_folder_that_does_not_exist_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="its folder does not exist"):
        sweep(small, tmp_path / "none" / "s.db")
    sentence = "does not exist; `sparseloom sweep` makes one"
    with pytest.raises(ValueError, match=sentence), open_store(tmp_path / "s.db"):
        pass


def test_a_store_is_made_once_whoever_opens_it_first(tmp_path):
    """Opened by several at the same moment, none meets a file half made or a lock."""
    together = threading.Barrier(4)

    def open_and_count(path):
        together.wait()
        with open_store(path, create=True) as opened:
            return opened.count()

    with ThreadPoolExecutor(4) as pool:
        for number in range(50):
            assert list(pool.map(open_and_count, [tmp_path / f"{number}.db"] * 4)) == [0] * 4


def test_a_store_another_process_keeps_locked_is_said_to_be(small, store, monkeypatch):
    monkeypatch.setattr("sparseloom.sweeps.store.PATIENCE_S", 0.1)
    with sqlite3.connect(store) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ValueError, match=r"kept locked by another process for .* run the same"):
            sweep(small, store)


def test_an_empty_file_is_no_store_to_read_but_one_to_fill(small, tmp_path):
    path = tmp_path / "s.db"
    path.touch()
    with (
        pytest.raises(ValueError, match=r"is empty; `sparseloom sweep` fills it"),
        open_store(path),
    ):
        pass
    assert sweep(small, path).computed == 24


def test_report_of_a_store_prints_counts_tables_and_json(store, capsys):
    assert invoke(["report", str(store), "--count"]) == 0
    assert capsys.readouterr().out == "16\n"
    assert invoke(["report", str(store)]) == 0
    printed = capsys.readouterr().out
    assert "Best of each objective" in printed
    assert "failed, 8 points: " in printed
    assert invoke(["report", str(store), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["finished"], document["failed"]) == (16, 8)
    assert document["workloads"][0]["front"]


def test_report_writes_page_and_points(store, tmp_path, capsys):
    out = tmp_path / "out"
    assert invoke(["report", str(store), "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 2
    assert "Points that failed" in page
    frame = pd.read_csv(out / "points.csv")
    assert len(frame) == 24
    assert frame.cycles.notna().sum() == 16
    assert {"evaluation_s", "dram_bytes"} <= set(re.findall(r"<td>(\w+)</td>", page))
    text = (out / "points.csv").read_text().splitlines()
    at = text[0].split(",").index("cycles")
    assert all(line.split(",")[at].isdigit() for line in text[1:] if ",,," not in line)
    assert len(pd.read_parquet(out / "points.parquet")) == 24


def test_report_says_when_parquet_cannot_be_written(store, tmp_path, capsys, monkeypatch):
    """Without pyarrow the other files are written, and the way to get it is told."""
    found = builtins.__import__

    def missing(name, *arguments):
        if name == "pyarrow":
            raise ImportError(name)
        return found(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert invoke(["report", str(store), "--out", str(tmp_path / "out")]) == 0
    assert "points.parquet is not written, it needs pyarrow: pip install" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.html", "points.csv"}


def test_report_of_a_store_says_what_objectives_are(store, capsys):
    assert invoke(["report", str(store)]) == 0
    printed = capsys.readouterr().out
    assert "multipliers: multipliers" in printed
    assert "equally good" in printed


def test_report_options_of_a_store_need_a_store(tmp_path, capsys):
    assert invoke(["report", str(tmp_path), "--count"]) == 2
    assert "--out and --count need the store of a sweep" in capsys.readouterr().err


def test_sweep_command_prints_an_example_and_runs_it_as_json(small, tmp_path, capsys):
    assert invoke(["sweep", "--example"]) == 0
    assert "workloads:" in capsys.readouterr().out
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(small))
    arguments = ["sweep", str(path), "--store", str(tmp_path / "new.db")]
    assert invoke([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == 24
    assert invoke(arguments) == 0
    assert "0 computed, 24 found there, 8 failed" in capsys.readouterr().out
    assert invoke(["sweep"]) == 2
    assert "A sweep takes a specification and --store FILE" in capsys.readouterr().err


def test_a_store_that_is_a_folder_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="is a folder; a store is a file"):
        sweep(small, tmp_path)
    with pytest.raises(ValueError, match="is a folder; a store is a file"), open_store(tmp_path):
        pass


def test_report_shows_the_sweep_that_ran_last(small, tmp_path):
    """Two sweeps in one store: running the first again brings it to the front."""
    path, other = tmp_path / "s.db", {**small, "name": "other", "sparsities": ["dense"]}
    for spec in (small, other, small):
        sweep(spec, path)
    with open_store(path) as store:
        assert summarise(store).name == "sweep"


def test_a_sweep_that_fails_whole_exits_one(small, tmp_path, capsys):
    small["archs"][0]["parameters"]["rows"] = [0]
    spec = tmp_path / "s.yaml"
    spec.write_text(json.dumps(small))
    assert invoke(["sweep", str(spec), "--store", str(tmp_path / "s.db")]) == 1
    assert "shows why points failed" in capsys.readouterr().out
    spec.write_text(json.dumps({**small, "sparsities": ["9:8"]}))
    assert invoke(["sweep", str(spec), "--store", str(tmp_path / "t.db")]) == 2
    assert not (tmp_path / "t.db").exists()
