"""Progress: silent unless asked for, plain lines in logs, a bar in a terminal, one line of HTML in a notebook."""

import os
import pty
import subprocess
import sys
import warnings

import numpy as np
import pytest

import bayesmix as bm
from bayesmix import progress
from bayesmix.progress import Progress

X = np.r_[np.random.default_rng(0).normal(-4, 1, 40), np.random.default_rng(1).normal(4, 1, 40)]
SPEC = bm.Mixture(bm.Normal(), 2)

#: Call -> what its lines begin with.
CALLS = {
    "em": (
        lambda **k: bm.fit_em(SPEC, X, n_starts=3, random_seed=1, **k),
        ["EM starts: 3 of 3, 0:00, log posterior", "EM: "],
    ),
    "advi": (
        lambda **k: bm.fit_advi(SPEC, X, n_starts=2, draws=50, random_seed=1, **k),
        ["EM starts: 2", "EM: ", "ADVI: "],
    ),
    "batches": (
        lambda **k: bm.fit_advi(SPEC, X, n_starts=2, draws=50, minibatch=20, max_iter=3, random_seed=1, **k),
        ["EM starts: 2", "EM: ", "ADVI: "],
    ),
    "nuts": (
        lambda **k: bm.fit_nuts(SPEC, X, n_starts=2, draws=20, tune=20, chains=2, cores=1, random_seed=1, **k),
        ["EM starts: 2", "EM: ", "NUTS: "],
    ),
    "select": (lambda **k: bm.select(SPEC, X, [1, 2], n_starts=2, random_seed=1, **k), ["components: 2 of 2"]),
    "compare": (
        lambda **k: bm.compare({"one": bm.Normal(), "two": SPEC}, X, criterion="bic", random_seed=1, **k),
        ["specs: 2 of 2, 0:00, two"],
    ),
    "calibrate": (
        lambda **k: bm.calibrate(SPEC, X[::8], method="laplace", replications=2, random_seed=1, **k),
        ["calibration: 2 of 2"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_in_a_log_there_are_plain_lines(name, capsys):
    call, begins = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of runs this short
        call(progressbar=True)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == len(begins)
    for line, begin in zip(lines, begins):
        assert line.startswith(begin)
        assert line.isprintable()  # no control characters


@pytest.mark.parametrize("name", ["em", "advi", "select", "compare"])
def test_nothing_is_written_unless_asked_for(name, capsys):
    CALLS[name][0]()
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_every_so_often(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("EM starts", 100, True) as bar:
        for _ in range(100):
            now[0] += 0.75
            bar.step("log posterior -3.1")
    lines = capsys.readouterr().err.splitlines()
    assert 7 <= len(lines) <= 9  # 75 seconds, one in ten, and the last
    assert lines[-1] == "EM starts: 100 of 100, 1:15, log posterior -3.1"


def test_a_notebook_gets_one_line_that_renews_itself(monkeypatch):
    shown = []

    class Handle:
        def update(self, each):
            shown.append(each.data)

    def display(each, display_id):
        assert display_id
        shown.append(each.data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "_notebook", lambda: True)
    with Progress("NUTS", 8, True) as bar:
        bar.to(5, "<odd>")
    assert shown[0].startswith('<progress max="8" value="0"></progress> NUTS: 0 of 8, 0:00')
    assert shown[-1] == '<progress max="8" value="5"></progress> NUTS: 5 of 8, 0:00, &lt;odd&gt;'


def test_a_terminal_gets_a_bar():
    """Two at once, as of fits in two threads, are no error."""
    code = (
        "from bayesmix.progress import Progress\n"
        "with Progress('EM starts', 3, True) as bar, Progress('other', None, True) as other:\n"
        "    for i in range(3): bar.step(f'note {i}'); other.step()\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", code], check=True, stderr=theirs, env=environment)
    os.close(theirs)
    seen = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "━" in seen
    assert "3/3" in seen
    assert "note 2" in seen


def test_a_notebook_is_not_written_to_at_every_step(monkeypatch):
    shown, now = [], [0.0]

    class Handle:
        def update(self, each):
            shown.append(each.data)

    monkeypatch.setattr("IPython.display.display", lambda each, display_id: Handle())
    monkeypatch.setattr(progress, "_notebook", lambda: True)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("NUTS", 1000, True) as bar:
        for _ in range(1000):
            now[0] += 1 / 64
            bar.step()
    assert 10 <= len(shown) <= 80  # 15 seconds, five updates in each at most
    assert "NUTS: 1000 of 1000, 0:15" in shown[-1]
