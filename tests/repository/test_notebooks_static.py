"""What holds for every notebook we ship, without running it (`pytest --nbmake notebooks` runs them)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WIDTH = 120
"""Characters of a line of code or text: wider ones scroll sideways in Lab."""


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def test_there_are_notebooks():
    """The quickstart is there, and names say the order."""
    assert FOLDER / "00_quickstart.ipynb" in NOTEBOOKS
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)


def test_format(notebook: nbformat.NotebookNode):
    """Valid, of the current format, with unique cell ids and the plain Python kernel."""
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert notebook.metadata.kernelspec.name == "python3"


def test_outputs_are_stripped(notebook: nbformat.NotebookNode):
    """Committed without outputs, counts, times and widget states: differences show what somebody wrote."""
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}
    for cell in notebook.cells:
        assert cell.metadata in ({}, {"tags": ["parameters"]})
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_cells_read_well(notebook: nbformat.NotebookNode):
    """A title first, no empty cell, no code without a word before it for long, no overlong line."""
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert cell.source.strip() == cell.source != ""
        assert max(map(len, cell.source.splitlines())) <= WIDTH
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert "cccc" not in kinds


def test_code_is_portable(notebook: nbformat.NotebookNode):
    """Every code cell is Python (await allowed) and names no key, no folder of somebody's machine and no address."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            assert not re.search(r"sk-\w{8}|/home/|/Users/|/work/|https?://|!pip|%pip", cell.source)


def test_a_program_can_choose_the_model(notebook: nbformat.NotebookNode):
    """papermill puts its parameters behind the cell with this tag; without it, the cell that sets the model would come later and win."""
    for cell in notebook.cells:
        sets = cell.cell_type == "code" and re.search(r"^MODEL =", cell.source, re.MULTILINE) is not None
        assert ("parameters" in cell.metadata.get("tags", ())) == sets
