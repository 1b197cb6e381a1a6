"""The battery's count, from the reports that reach the session: also where workers run the tests."""

from __future__ import annotations

#: A plugin for coverage, which needs numba to be off: no place to look for examples.
collect_ignore = ["interpreted.py"]


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
