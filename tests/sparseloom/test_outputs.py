"""Output folders: whole or not at all."""

import json

import pytest

from sparseloom.outputs import dumps, write_files, write_run


def test_write_files_makes_the_folder_and_leaves_nothing_beside_it(tmp_path):
    paths = write_files({"a.txt": "one", "b.txt": "two"}, tmp_path / "new" / "out")
    assert [p.read_text() for p in paths] == ["one", "two"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]


def test_write_files_keeps_other_files_and_replaces_its_own(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "a.txt").write_text("old")
    write_files({"a.txt": "new"}, tmp_path)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_write_files_failure_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    write_files({"a.txt": "old"}, out)
    with pytest.raises(TypeError):
        write_files({"a.txt": "new", "b.txt": None}, out)
    assert (out / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_write_files_first_failure_leaves_no_folder(tmp_path):
    with pytest.raises(TypeError):
        write_files({"a.txt": None}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_write_files_into_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be: .*file' is a file"):
        write_files({"a.txt": ""}, tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_named_as_asked_for(tmp_path, monkeypatch):
    """The folder written beside the one asked for is nobody's business."""

    def refuse(**settings):
        raise PermissionError(13, "Permission denied", f"{settings['dir']}/.out.x1y2")

    monkeypatch.setattr("sparseloom.outputs.tempfile.mkdtemp", refuse)
    with pytest.raises(ValueError, match=r"out' cannot be written: Permission denied$"):
        write_files({"a.txt": ""}, tmp_path / "out")


def test_write_run_writes_the_document_and_a_report(sparse_run, tmp_path):
    result, report = write_run(sparse_run.to_json(), tmp_path / "out")
    assert json.loads(result.read_text()) == sparse_run.to_json()
    assert report.read_text().startswith("<!DOCTYPE html>")


def test_dumps_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="Out of range float"):
        dumps({"x": float("nan")})
