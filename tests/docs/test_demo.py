"""The main job runs from start to end and writes what it names."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_demo_writes_what_it_names(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bayesmix.demo"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "R-hat at most 1.0" in done.stdout
    assert "Not converged" not in done.stdout
    named = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("demo-output/")]
    assert len(named) == 7
    assert all((tmp_path / name).stat().st_size > 0 for name in named)
