"""Every kind of plot looks as it did when somebody last looked at it. See `pictures.py` for how to draw them anew."""

import warnings

import pytest
from matplotlib.testing.compare import compare_images

from tests.docs import pictures

#: Root mean square of the differences of the pixels (of 255) that other builds of one Matplotlib may have: edges of
#: lines and letters. A line or a bar that is elsewhere, or has another colour, makes more (see the last test).
TOLERANCE = 1.0


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of rcParams that are on their way out
        yield


@pytest.mark.images
@pytest.mark.parametrize("name", pictures.cases())
def test_picture_is_as_it_was(name, tmp_path):
    path = tmp_path / f"{name}.png"
    pictures.draw(name, path)
    baseline = tmp_path / f"{name}-expected.png"
    baseline.write_bytes((pictures.BASELINE / f"{name}.png").read_bytes())
    difference = compare_images(str(baseline), str(path), TOLERANCE)
    assert difference is None, difference


def test_baselines_are_small_and_all_in_use():
    found = {path.stem: path.stat().st_size for path in pictures.BASELINE.glob("*.png")}
    assert set(found) == set(pictures.cases())
    assert max(found.values()) <= 30_000


@pytest.mark.images
def test_the_tolerance_finds_what_matters(tmp_path, monkeypatch):
    """One component's share that changes from 0.33 to 0.25 makes another picture."""
    monkeypatch.setitem(pictures.PARAMS, "weights", [0.48, 0.27, 0.25])
    for name in ("fields", "responsibilities", "profiles"):
        pictures.draw(name, tmp_path / f"{name}.png")
        (tmp_path / "expected.png").write_bytes((pictures.BASELINE / f"{name}.png").read_bytes())
        assert compare_images(str(tmp_path / "expected.png"), str(tmp_path / f"{name}.png"), TOLERANCE) is not None
