"""The marks of tests that take seconds, and the battery's count, also where workers run the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

#: A plugin for coverage, which needs numba to be off: no place to look for examples.
collect_ignore = ["interpreted.py"]


def of_seconds() -> set[str]:
    """Names of the tests in ``seconds.txt``, without their cases."""
    lines = Path(__file__).with_name("seconds.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def pytest_collection_modifyitems(items):
    listed = of_seconds()
    for item in items:
        if item.nodeid.split("[")[0] in listed:
            item.add_marker(pytest.mark.seconds)


def pytest_terminal_summary(terminalreporter):
    reports = [
        report
        for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
        for report in terminalreporter.stats.get(outcome, [])
        if getattr(report, "nodeid", "").startswith("tests/battery/")
    ]
    if reports:
        all_of_them = {report.nodeid for report in reports}
        wrong = {report.nodeid for report in reports if not (report.outcome == "passed" and report.when == "call")}
        terminalreporter.write_line(f"battery: {len(all_of_them - wrong)} of {len(all_of_them)} cases as specified")
