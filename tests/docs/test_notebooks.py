"""Every notebook under notebooks/ holds its outputs, and still runs from its first cell to its last.

`make notebooks` writes the outputs. That they are the very ones of today is not asked: pictures differ between
machines, and chains that were compiled elsewhere take other courses.
"""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _command():
    spec = importlib.util.spec_from_file_location("notebooks_command", ROOT / "ci" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


command = _command()


def test_there_are_notebooks():
    assert NOTEBOOKS


@every
def test_the_file_holds_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # run in order, in one go
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not command.faults(notebook)
    assert path.stat().st_size < command.LARGEST
    assert notebook.metadata.kernelspec.name == "python3"


def test_what_a_reader_should_not_see_is_a_fault():
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="careful"),
        nbformat.v4.new_output("error", ename="KeyError", evalue="x", traceback=[]),
        nbformat.v4.new_output("stream", name="stdout", text="see /home/someone/file"),
    ]
    found = command.faults(nbformat.v4.new_notebook(cells=[cell]))
    assert found == [
        "cell 0: careful",
        "cell 0: KeyError: x",
        "cell 0: a path: /home/someone/file",
        "no picture",
    ]


@every
def test_links_lead_somewhere(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the machinery; the kernel is another process
@every
def test_notebook_runs(path):
    assert not command.faults(command.executed(path))
