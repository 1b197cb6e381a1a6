"""Constraints for pip that pin everything that pyproject.toml names to the oldest version that it allows.

``python ci/oldest.py > constraints.txt``. What it does not name but they need is in ``ci/oldest.txt``.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("sklearn", "parquet", "dask", "plots", "test")


def oldest(requirement: str) -> str | None:
    """``name==version`` for a requirement with a lower bound; None for one of this project's own extras."""
    name, bounds = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", requirement).groups()
    lowest = re.search(r">=([\d.]+)", bounds)
    if name == "bayesmix":
        return None
    if lowest is None:
        raise SystemExit(f"{requirement}: no lower bound, so nothing says which version is the oldest.")
    return f"{name}=={lowest[1]}"


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    for requirement in sorted({found for each in listed for found in map(oldest, each) if found}):
        print(requirement)
    print((ROOT / "ci" / "oldest.txt").read_text(), end="")
