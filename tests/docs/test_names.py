"""Every public name says what it does, shows it, and is in the reference.

`--doctest-modules` runs the examples; here is asked that there are any.
"""

import inspect
import re
from pathlib import Path

import pytest

import bayesmix
import bayesmix.dask
import bayesmix.datasets
import bayesmix.plots
import bayesmix.sklearn

REFERENCE = Path(__file__).parents[2] / "docs" / "api" / "index.md"


def public(module):
    """Names that a module offers: `__all__`, or functions that are its own or its parts'."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    found = inspect.getmembers(module, inspect.isfunction)
    return [n for n, value in found if not n.startswith("_") and value.__module__.startswith(module.__name__)]


NAMES = [
    (module, name)
    for module in (bayesmix, bayesmix.plots, bayesmix.sklearn, bayesmix.dask, bayesmix.datasets)
    for name in public(module)
]


def listed():
    """Full names in the reference's autosummary tables."""
    found, module = set(), None
    for line in REFERENCE.read_text("utf-8").splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            found.add(f"{module}.{line.strip()}")
    return found


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{m.__name__}.{n}" for m, n in NAMES])
def test_every_public_name_has_an_example(module, name):
    text = inspect.getdoc(getattr(module, name)) or ""
    assert ">>> " in text, f"{module.__name__}.{name} has no example in its docstring"


def test_the_reference_lists_every_public_name_and_no_other():
    assert listed() == {f"{module.__name__}.{name}" for module, name in NAMES}


@pytest.mark.parametrize("name", [n for n in bayesmix.__all__ if inspect.isclass(getattr(bayesmix, n))])
def test_what_classes_offer_is_described(name):
    """Methods of nodes that the library alone calls are described in `bayesmix.spec` and `families/_contract.py`."""
    kind = getattr(bayesmix, name)
    bare = [
        m for m, value in vars(kind).items() if not m.startswith("_") and callable(value) and not inspect.getdoc(value)
    ]
    assert not bare or issubclass(kind, bayesmix.spec.Node), f"{name}: {', '.join(bare)} without a docstring"
