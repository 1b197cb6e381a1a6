"""Every ```python block of README.md and docs/**/*.md runs, page by page, in one namespace a page.

A block that opens with ```python no-run is shown and not run. Nothing is asked of the network: addresses outside are
compared with a list.
"""

import re
import sys
import types
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(
        page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts and "generated" not in page.parts
    ),
]
#: Addresses that pages may lead to, looked at by hand when they are added here.
OUTSIDE = {
    "https://cran.r-project.org/package=flexmix",
    "https://github.com/llnl/dmx-learn",
    "https://github.com/pymc-devs/pymc-extras",
    "https://mclust-org.github.io/mclust/",
}
BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def name(page):
    return str(page.relative_to(ROOT).with_suffix(""))


def blocks(text):
    """(line of the block's first statement, code) of every block that is to run."""
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text("utf-8"))], ids=name)
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


def targets(text):
    """What links and pictures lead to, in prose: not in code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose))


def headings(page):
    """Anchors that GitHub and Sphinx make of a page's headings."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for target in targets(page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        leads_to = page.parent / path if path else page
        if not leads_to.exists() or (anchor and leads_to.suffix == ".md" and anchor not in headings(leads_to)):
            broken.append(target)
    assert not broken, f"{name(page)} links to what is not there: {broken}"


def test_addresses_outside_are_listed():
    found = {target for page in PAGES for target in targets(page.read_text("utf-8")) if "://" in target}
    assert found == OUTSIDE
