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
    "SWEPT = (128, 256)\n"
    "LONGEST = 256\n",
    "design_space": "ROWS = COLS = (16, 32, 48)\n"
    "BANDWIDTHS = (76_800_000_000,)\nTIME_LIMIT_S = 5\n",
    "pe_grid": "PRODUCT = (64, 256, 64)\nDENSITIES = (0.1, 0.5, 1.0)\nFRAMES = 16\n",
}
"""What replaces a notebook's cell tagged `parameters`."""


def outputs(cell, kind):
    return [out["data"][kind] for out in cell.get("outputs", ()) if kind in out.get("data", ())]


def executed(name):
    """Return a notebook run at its reduced size."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    cell.source = REDUCED[name]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    return notebook


def test_every_notebook_has_a_reduced_size():
    assert {path.stem for path in NOTEBOOKS} == set(REDUCED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_sat_training_draws_every_figure_and_concludes():
    notebook = executed("sat_training")
    figures = [image for cell in notebook.cells for image in outputs(cell, "image/png")]
    calls = [cell for cell in notebook.cells if "figures.by_" in cell.source]
    assert len(figures) == len(calls) + 1  # and one of energy
    last = notebook.cells[-1].outputs[0]["text"]
    assert "On average over ResNet-9 bdwp 2:8 makes a training step" in last
    assert "published" in last


@pytest.mark.slow
def test_pe_grid_draws_every_figure_and_concludes():
    notebook = executed("pe_grid")
    figures = [image for cell in notebook.cells for image in outputs(cell, "image/png")]
    assert len(figures) == sum("figures.by_" in cell.source for cell in notebook.cells) == 7
    last = notebook.cells[-1].outputs[0]["text"]
    assert "At density 0.5 of both operands the grid reaches" in last
    assert "On the recorded model skipping weights is worth 1." in last


def test_flightllm_draws_every_figure_and_concludes():
    notebook = executed("flightllm")
    images = [image for cell in notebook.cells for image in outputs(cell, "image/png")]
    calls = [cell for cell in notebook.cells if "figures." in cell.source]
    assert len(images) == len(calls) == 6
    last = notebook.cells[-1].outputs[0]["text"]
    assert "Published steps and prompts: -3.6% to +5.0%" in last
    assert "the board's +1.4% to +4.3%" in last


def test_design_space_draws_every_figure_and_concludes():
    notebook = executed("design_space")
    images = [image for cell in notebook.cells for image in outputs(cell, "image/png")]
    calls = [cell for cell in notebook.cells if "draw_" in cell.source.splitlines()[-1]]
    assert len(images) == len(calls) == 4
    last = notebook.cells[-1].outputs[0]["text"]
    assert "x as fast as the 32 x 32 reference, optimal with gap 0.0% over 9 candidates" in last
    assert "19 units placed" in last
