"""Every notebook under notebooks/ runs from its first cell to its last, and leaves no output behind in git."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS


@every
def test_the_file_has_no_outputs(path):
    """Outputs change with every run, and would hide what changed in the text."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


@every
def test_links_lead_somewhere(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the machinery; the kernel is another process
@every
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    outputs = [(n, out) for n, cell in enumerate(notebook.cells) for out in cell.get("outputs", [])]
    # a reader should see no warning that the text does not speak of
    warned = [f"cell {n}: {out.text}" for n, out in outputs if out.output_type == "stream" and out.name == "stderr"]
    assert not warned, "\n".join(warned)
    assert any("image/png" in out.get("data", {}) for _, out in outputs)
