"""Lines and steps on the pages "coming from" are those that their table says."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "coming_from"
TASKS = ("Fit", "Choose K", "Impute", "Predict", "Check")
OURS = re.compile(r"\bbm\.|\bfit\.|\bimputed\.")
#: What stands in the index -> page. Stan has a program beside PyMC's for the fit only.
LIBRARIES = {
    "DMLearn": "dmlearn",
    "scikit-learn": "scikit_learn",
    "mclust": "mclust",
    "flexmix": "flexmix",
    "PyMC": "pymc_stan",
}


def count(block):
    """Lines of code, and numbered comments."""
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    steps = [line for line in lines if re.match(r"# \d+\. ", line)]
    assert [int(re.match(r"# (\d+)", step).group(1)) for step in steps] == list(range(1, len(steps) + 1))
    return sum(not line.startswith("#") for line in lines), len(steps)


def cells(page):
    """For every task ((lines, steps) of theirs or None, (lines, steps) of ours)."""
    text = (PAGES / f"{page}.md").read_text("utf-8")
    for task in TASKS:
        section = re.search(rf"^## {task}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)
        blocks = re.findall(r"^```(?:python|r)\b[^\n]*\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        ours = [block for block in blocks if OURS.search(block)]
        theirs = [block for block in blocks if not OURS.search(block)]
        assert len(ours) == 1, f"{page}, {task}"
        assert len(theirs) <= 1, f"{page}, {task}"
        yield count(theirs[0]) if theirs else None, count(ours[0])


def shown(pair):
    return "–" if pair is None else f"{pair[0]} ({pair[1]})"


def table():
    lines = (PAGES / "index.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| [")]
    return {re.match(r"\[([\w-]+)\]", row[0]).group(1): row[1:] for row in rows}


def test_every_library_is_in_the_table():
    assert set(table()) == set(LIBRARIES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_counts_are_those_of_the_page(library):
    counted = [f"{shown(theirs)} → {shown(ours)}" for theirs, ours in cells(LIBRARIES[library])]
    assert [cell.replace("*", "") for cell in table()[library]] == counted
