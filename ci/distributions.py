"""Look whether the wheel and the sdist in a folder hold what they should: ``python ci/distributions.py dist``.

With ``--into FOLDER`` the sdist is unpacked to ``FOLDER/sdist`` without the package itself, so that the tests there
import what is installed.
"""

import argparse
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_BOTH = ("bayesmix/py.typed", "bayesmix/datasets/penguins.csv", "bayesmix/datasets/SOURCES.md")
IN_SDIST = ("LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "ci/oldest.py", "notebooks", "docs")
UNPACKED = "sdist"


def faults(wheel: set[str], sdist: set[str]) -> list[str]:
    """What is missing, or there without need, in words."""
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "bayesmix").rglob("*.py")}
    tests = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and "__pycache__" not in path.parts
        and ".hypothesis" not in path.parts
    }
    found = [f"the wheel lacks {name}" for name in sorted({*IN_BOTH, *modules} - wheel)]
    found += [f"the sdist lacks {name}" for name in sorted({*IN_BOTH, *modules, *tests} - sdist)]
    found += [
        f"the sdist lacks {name}" for name in IN_SDIST if not any(n == name or n.startswith(f"{name}/") for n in sdist)
    ]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel):
        found.append("the wheel lacks LICENSE")
    strange = {name for name in wheel if not name.startswith("bayesmix/") and ".dist-info/" not in name}
    found += [f"the wheel holds {name}" for name in sorted(strange)]
    return found + [f"{name} was compiled" for name in sorted(wheel | sdist) if name.endswith((".pyc", ".nbi", ".nbc"))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    (wheel_at,), (sdist_at,) = given.dist.glob("*.whl"), given.dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel_at) as wheel, tarfile.open(sdist_at) as sdist:
        found = faults(
            {name for name in wheel.namelist() if not name.endswith("/")},
            {member.name.split("/", 1)[1] for member in sdist.getmembers() if member.isfile()},
        )
        if given.into is not None:
            shutil.rmtree(given.into, ignore_errors=True)
            sdist.extractall(given.into, filter="data")
    if found:
        sys.exit("\n".join(found))
    print(f"{wheel_at.name} ({wheel_at.stat().st_size // 1024} kB), {sdist_at.name} "
          f"({sdist_at.stat().st_size // 1024} kB): nothing is missing")  # fmt: skip
    if given.into is not None:
        (unpacked,) = given.into.iterdir()
        shutil.rmtree(unpacked / "bayesmix")
        unpacked.rename(given.into / UNPACKED)
