"""Run notebooks from their first cell to their last, and keep the outputs in their files: `make notebooks`.

What changes with every run and says nothing is left out: times, and the addresses of objects. A notebook that fails,
warns or grows above a megabyte is an error, and its file stays as it was.

    python ci/notebooks.py                        all of them
    python ci/notebooks.py notebooks/04_*.ipynb   some
"""

import os
import re
import sys
import time
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
#: Bytes that a file has at most.
LARGEST = 1_000_000


def executed(path, timeout=600):
    """The notebook after a run from its first cell to its last, against this checkout."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        allow_errors=True,  # `faults` lists them
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
    )
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/plain" in data:
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def faults(notebook):
    """What a reader should not see: warnings and errors, code without any output, paths of one machine."""
    found, n_pictures = [], 0
    for n, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {n}: {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {n}: {output.text}")
            texts = [output.get("text", ""), *map(str, output.get("data", {}).values())]
            found += [
                f"cell {n}: a path: {hit}" for text in texts for hit in re.findall(r"/(?:home|tmp|root)/\S+", text)
            ]
            n_pictures += "image/png" in output.get("data", {})
    if not n_pictures:
        found.append("no picture")
    return found


def main(paths):
    """Run and write; returns the number of notebooks that failed."""
    failed = 0
    for path in paths or sorted(FOLDER.glob("*.ipynb")):
        began = time.perf_counter()
        notebook = executed(Path(path))
        text = nbformat.writes(notebook) + "\n"
        found = faults(notebook) + ([f"{len(text)} bytes"] if len(text) > LARGEST else [])
        print(f"{Path(path).name}: {time.perf_counter() - began:.0f} s, {len(text) / 1000:.0f} kB", *found, sep="\n  ")
        if found:
            failed += 1
        else:
            Path(path).write_text(text, "utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main([Path(each).resolve() for each in sys.argv[1:]]))
