"""The notebooks run from top to bottom, their code cells one after another in one process, as a kernel runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_a_notebook_runs(path, tmp_path):
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    subprocess.run([sys.executable, "-c", "\n".join(cells)], cwd=tmp_path, check=True, timeout=300)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_what_it_printed(path):
    stored = json.loads(path.read_text())
    assert (stored["nbformat"], [cell.get("outputs", []) for cell in stored["cells"]]) == (4, [[]] * len(stored["cells"]))
