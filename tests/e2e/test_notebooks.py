"""Notebooks are committed without outputs and run from top to bottom, here at a reduced size."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REDUCED = {
    "sat_training": "BATCH = 2\n"
    "NETWORKS = studies.NETWORKS[:1]\n"
    "ASSUMPTIONS = studies.ASSUMPTIONS[-5:]\n",
    "flightllm": "LENGTHS = range(256, 2049, 256)\n"
    "PROMPTS = (128,)\n"
    "COMPRESSIONS = studies.COMPRESSIONS[:1]\n"
    "LONGEST = 256\n",
}
"""What replaces a notebook's cell tagged `parameters`."""


def outputs(cell, kind):
    return [out["data"][kind] for out in cell.get("outputs", ()) if kind in out.get("data", ())]


@pytest.fixture(scope="module")
def executed(request):
    """Return the notebook of a name, run at its reduced size."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{request.param}.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    cell.source = REDUCED[request.param]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    return notebook


def test_every_notebook_has_a_reduced_size():
    assert {path.stem for path in NOTEBOOKS} == set(REDUCED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["sat_training"], indirect=True)
def test_sat_training_draws_every_figure_and_concludes(executed):
    figures = [image for cell in executed.cells for image in outputs(cell, "image/png")]
    calls = [cell for cell in executed.cells if "figures.by_" in cell.source]
    assert len(figures) == len(calls) + 1  # and one of energy
    last = executed.cells[-1].outputs[0]["text"]
    assert "On average over ResNet-9 bdwp 2:8 makes a training step" in last
    assert "published" in last


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["flightllm"], indirect=True)
def test_flightllm_draws_every_figure_and_concludes(executed):
    images = [image for cell in executed.cells for image in outputs(cell, "image/png")]
    calls = [cell for cell in executed.cells if "figures." in cell.source]
    assert len(images) == len(calls) == 6
    last = executed.cells[-1].outputs[0]["text"]
    assert "Published steps and prompts: -4.0% to +4.7%" in last
    assert "the board's step +3.6%" in last
