"""The gallery shows every family, and its pictures are those that the script draws."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import bayesmix as bm
from bayesmix.families._contract import Leaf

FOLDER = Path(__file__).parents[2] / "docs" / "families"
FAMILIES = [name for name in bm.__all__ if isinstance(getattr(bm, name), type) and issubclass(getattr(bm, name), Leaf)]


@pytest.fixture(scope="module")
def gallery():
    source = importlib.util.spec_from_file_location("gallery", FOLDER / "draw.py")
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


def test_every_family_is_drawn(gallery):
    page = (FOLDER / "index.md").read_text("utf-8")
    shown = set(re.findall(r"^!\[.*?\]\((\w+)\.svg\)$", page, re.MULTILINE))
    assert set(FAMILIES) <= shown == {*gallery.SPECS, *gallery.OTHERS}


@pytest.mark.parametrize("name", ["Normal", "LogNormal", "Exponential", "Poisson", "Bernoulli", "Categorical"])
def test_densities_sum_to_nearly_one(gallery, name):
    """What the axis cuts off is little: no curve of another scale is drawn."""
    values = gallery.SPECS[name][1]
    for label, density in gallery.curves(name):
        smooth = values.dtype.kind == "f"
        assert 0.85 < (np.trapezoid(density, values) if smooth else density.sum()) < 1.01, label


def test_pictures_are_what_the_script_draws(gallery, tmp_path):
    """The curves; not the fonts' widths and the axes' margins, which differ between versions of matplotlib."""
    gallery.main(tmp_path)
    for picture in sorted(tmp_path.glob("*.svg")):
        stored, drawn = (words(path) for path in (FOLDER / picture.name, picture))
        assert stored == drawn, f"{picture.name}: run docs/families/draw.py"


def words(path):
    """Labels, and the number of points of all paths."""
    text = path.read_text("utf-8")
    return re.findall(r"<text[^>]*>([^<]*)</text>", text), len(re.findall(r"[ML] [-\d.]+ [-\d.]+", text))
