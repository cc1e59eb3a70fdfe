"""Runs shared by tests of the facade: small enough to be made once a session."""

import sys
from pathlib import Path

import pytest

from sparseloom.cli import invoke
from sparseloom.runs import run

# Writers of small ONNX models, shared with the tests of the front end.
sys.path.append(str(Path(__file__).parent.parent / "workloads"))

TOPOLOGY = """Layer name, M, N, K,
first, 64, 48, 40,
second, 64, 96, 48,
third, 8, 16, 96,
"""


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Return a function that runs a command line in an empty folder: (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = invoke([str(argument) for argument in arguments])
        text = capsys.readouterr()
        return code, text.out, text.err

    return call


@pytest.fixture(scope="session")
def topology(tmp_path_factory):
    """Return a small SCALE-Sim GEMM topology file."""
    path = tmp_path_factory.mktemp("topology") / "three.csv"
    path.write_text(TOPOLOGY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def sparse_run(topology):
    """Return a 2:8 run with its dense baseline."""
    return run(topology, arch="nm-tiny", sparsity="2:8", baseline="dense")


@pytest.fixture(scope="session")
def vision_run():
    """Return a run of a network with vector operators, 2:8 and dense."""
    return run("resnet9", arch="sat-vcu1525", sparsity="2:8", baseline="dense")
