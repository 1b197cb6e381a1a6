"""Every ```python block of README.md and docs/**/*.md runs, page by page, in one namespace a page.

A block that opens with ```python no-run is shown and not run.
"""

import re
import sys
import types
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """(line of the block's first statement, code) of every block that is to run."""
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text("utf-8"))], ids=lambda p: p.stem)
def test_page_runs(page, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    # dataclasses look their module up by name
    module = types.ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, code in blocks(page.read_text("utf-8")):
        # blank lines in front, so that tracebacks show the page's own line numbers
        compiled = compile("\n" * (line - 1) + code, str(page), "exec")
        try:
            exec(compiled, vars(module))
        except Exception as error:
            at = line_of(error, str(page)) or line
            pytest.fail(f"{page.relative_to(ROOT)}:{at}: {type(error).__name__}: {error}")


def line_of(error, name):
    """Last line of the page on the error's traceback."""
    found, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == name:
            found = step.tb_lineno
        step = step.tb_next
    return found


def links(text):
    return [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    broken = [link for link in links(page.read_text("utf-8")) if link and not (page.parent / link).exists()]
    assert not broken, f"{page.relative_to(ROOT)} links to what is not there: {broken}"
