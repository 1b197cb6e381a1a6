"""Whether links inside a built site lead somewhere: `python ci/site_links.py docs/_build/html`. Asks no network."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote


@cache
def anchors(page: Path) -> set[str]:
    """The ids of a page."""
    return set(re.findall(r'\bid="([^"]+)"', page.read_text("utf-8")))


def broken(site: Path) -> list[str]:
    """`page: link` of every link without a target, the theme's own templates left out."""
    found = []
    for page in sorted(page for page in site.rglob("*.html") if "_static" not in page.parts):
        for link in set(re.findall(r'(?:href|src)="([^"]+)"', page.read_text("utf-8"))):
            if "://" in link or link.startswith(("data:", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path.split("?")[0])).resolve() if path else page
            if not target.exists() or (anchor and target.suffix == ".html" and unquote(anchor) not in anchors(target)):
                found.append(f"{page.relative_to(site)}: {link}")
    return found


if __name__ == "__main__":
    faults = broken(Path(sys.argv[1]).resolve())
    print(*faults, sep="\n", end="\n" if faults else "")
    sys.exit(bool(faults))
