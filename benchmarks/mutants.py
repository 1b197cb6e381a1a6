"""Do the tests notice when the code is wrong? Mutants of the families, EM, relabelling and imputation.

    make coverage
    python benchmarks/mutants.py [number] [seed]

Draws `number` (200) mutants, each with one change to one place in one function: a comparison, an arithmetic or
logical operator, a constant by one, a condition turned round, two arguments swapped, an index moved, a statement or a
returned value dropped. Docstrings, texts of errors and logs, annotations, defaults, assertions (they are for the type
checker) and tuning constants at the head of a module are left alone. `make coverage` has noted which tests run which
line, and how long they take. pytest imports them once; for each mutant the process is forked, the function gets the
mutant's code (no file is written), and tests that run its lines follow, in turn from every test function, until one
fails. A test that hangs has noticed too.

Each result is a line of ``build/mutants.jsonl``; a run goes on where an earlier one stopped. In the end
``docs/developer/mutants.md`` is written: what was killed in each file, and every survivor, with what is known of it
(``benchmarks/mutants.json``). ``python benchmarks/mutants.py again`` tries the tests in `ADDED` on survivors again. A
few seconds a mutant.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import random
import re
import signal
import sys
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "mutants.jsonl"
PAGE = ROOT / "docs" / "developer" / "mutants.md"

#: Parts of the package, and the share of mutants that each has; within a part every file has as many.
PARTS = {
    "families": (0.4, sorted(f"families/{path.name}" for path in (ROOT / "bayesmix/families").glob("*.py"))),
    "M-steps": (0.15, ["conjugate.py", "mstep.py"]),
    "EM": (0.21, ["inference/em.py", "inference/accelerate.py", "inference/quasi_newton.py"]),
    "relabelling": (0.12, ["relabel.py"]),
    "imputation": (0.12, ["impute.py"]),
}

#: What `make coverage` leaves: which tests ran which line, and how long they took.
COVERAGE, DURATIONS = ROOT / "build" / "coverage", sorted((ROOT / "build").glob("tests*.xml"))
#: Tests that came after it, which are tried on every mutant.
ADDED = ["tests/test_survivors.py"]
#: What is known of survivors, by file, line's text and change.
NOTES = ROOT / "benchmarks" / "mutants.json"

#: Seconds that the tests of a mutant may take by themselves; seconds after which no further one begins, and how much
#: later a mutant hangs.
_ALONE, _BUDGET, _HANGS = 30.0, 60.0, 60.0
_BROKEN = 70  # exit code of a process in which this script fails

_SWAPS: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}


# ------------------------------------------------------------------- mutants


def mutants_of(source: str) -> list[dict[str, Any]]:
    """Every mutant of a module: line, kind, what was there and what takes its place, and the new source."""
    lines = source.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    encoded = b"".join(lines)
    found = []
    for node, kind, new in _changes(ast.parse(source).body):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = encoded[begin:end].decode()
        bracketed = f"({new})" if isinstance(node, ast.expr) and not isinstance(node, ast.Constant) else new
        mutated = (encoded[:begin] + bracketed.encode() + encoded[end:]).decode()
        try:
            ast.parse(mutated)
        except SyntaxError:
            continue
        short = " ".join(before.split()), " ".join(new.split())
        text = lines[node.lineno - 1].decode().strip()
        known = {"line": node.lineno, "kind": kind, "before": short[0], "after": short[1], "text": text}
        found.append({**known, "lines": list(range(node.lineno, node.end_lineno + 1)), "source": mutated})
    return found


def _changes(body: list[ast.stmt], inside: bool = False) -> Iterator[tuple[Any, str, str]]:
    for statement in body:
        if not inside or isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            if hasattr(statement, "body"):
                yield from _changes(statement.body, inside or isinstance(statement, ast.FunctionDef))
            continue
        if isinstance(statement, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)) or _is_text(statement):
            continue
        dropped = isinstance(statement, (ast.Expr, ast.AugAssign, ast.Break, ast.Continue)) or (
            isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], (ast.Name, ast.Tuple))
        )
        if dropped:  # what yields nothing is still a generator
            yields = isinstance(getattr(statement, "value", None), (ast.Yield, ast.YieldFrom))
            yield statement, "dropped", "yield from ()" if yields else "pass"
        if isinstance(statement, ast.Return) and statement.value is not None:
            yield statement, "returned", "return None"
        yield from _of_expressions(statement)
        for name in ("body", "orelse", "finalbody"):
            yield from _changes(getattr(statement, name, []), inside)
        for handler in getattr(statement, "handlers", []):
            yield from _changes(handler.body, inside)


def _is_text(statement: ast.stmt) -> bool:
    """Docstrings, and calls that only tell something."""
    if not isinstance(statement, ast.Expr):
        return False
    call = statement.value
    told = re.compile(r"(.*\.)?(warn|warning|info|debug)")
    return isinstance(call, ast.Constant) or (
        isinstance(call, ast.Call) and told.fullmatch(ast.unparse(call.func)) is not None
    )


def _of_expressions(statement: ast.stmt) -> Iterator[tuple[Any, str, str]]:
    """Changes inside a statement's own expressions, not in statements below it, annotations or decorators."""
    left_out = ("body", "orelse", "finalbody", "handlers", "annotation", "returns", "decorator_list", "bases")
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        for name, value in ast.iter_fields(node):
            if (name in left_out and isinstance(node, (ast.stmt, ast.arg))) or _is_negative(node):
                continue
            todo += [each for each in (value if isinstance(value, list) else [value]) if _is_code(each)]
        yield from _of_expression(node)
    if isinstance(statement, (ast.If, ast.While)):
        yield statement.test, "turned round", f"not ({ast.unparse(statement.test)})"


def _is_code(node: Any) -> bool:
    return isinstance(node, ast.AST) and not isinstance(node, (ast.JoinedStr, ast.stmt))


def _of_expression(node: ast.AST) -> Iterator[tuple[Any, str, str]]:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, "constant", str(not node.value)
        elif isinstance(node.value, (int, float)):
            yield node, "constant", repr(node.value + 1)
            yield node, "constant", f"({node.value - 1!r})"
    elif isinstance(node, (ast.BinOp, ast.BoolOp)):
        if isinstance(node, ast.BinOp) and any(_is_string(side) for side in (node.left, node.right)):
            return
        for other in _SWAPS.get(type(node.op), []):
            yield node, "operator", _with(node, op=other())
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in _SWAPS[type(node.ops[0])]:
            yield node, "comparison", _with(node, ops=[other()])
    elif isinstance(node, ast.UnaryOp) and _is_negative(node):
        yield node, "constant", ast.unparse(ast.BinOp(node, ast.Add(), ast.Constant(1)))
    elif isinstance(node, ast.UnaryOp):
        yield node, "operator", ast.unparse(node.operand)
    elif isinstance(node, ast.IfExp):
        yield node, "turned round", _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        first, second, *rest = node.args
        if not any(isinstance(each, ast.Starred) for each in (first, second)):
            yield node, "swapped", _with(node, args=[second, first, *rest])
    elif isinstance(node, ast.Subscript) and _is_number(node.slice) and isinstance(node.ctx, ast.Load):
        yield node, "index", _with(node, slice=ast.BinOp(node.slice, ast.Sub(), ast.Constant(1)))


def _is_negative(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_number(node: ast.AST) -> bool:
    # of the names' texts one cannot be taken off: that would be noticed at once
    return isinstance(node, ast.Name) and node.id not in ("name", "key", "path", "field")


def _with(node: Any, **changed: Any) -> str:
    fields = {name: value for name, value in ast.iter_fields(node)} | changed
    return ast.unparse(ast.fix_missing_locations(type(node)(**fields)))


def draw(number: int, seed: int) -> list[dict[str, Any]]:
    """`number` mutants, the same ones for the same seed and the same package."""
    rng = random.Random(seed)
    drawn = []
    for part, (share, files) in PARTS.items():
        pools = {}
        for file in files:
            pools[file] = mutants_of((ROOT / "bayesmix" / file).read_text())
            rng.shuffle(pools[file])
        left, wanted = [file for file in files if pools[file]], round(share * number)
        while wanted and left:
            for file in list(left)[:wanted]:
                drawn.append({"part": part, "file": file, **pools[file].pop()})
                wanted -= 1
                if not pools[file]:
                    left.remove(file)
    rng.shuffle(drawn)  # of a run that is stopped the results are a sample too
    return drawn


# ------------------------------------------------------------------- tests


class Tests:
    """Which tests run which lines, and how long they take."""

    def __init__(self) -> None:
        if not COVERAGE.exists() or not DURATIONS:
            sys.exit("What the tests run is not known yet: `make coverage` finds it out.")
        self.seconds: dict[str, float] = {}
        for path in DURATIONS:
            for case in ElementTree.parse(path).iter("testcase"):
                if case.find("failure") is None and case.find("error") is None and case.find("skipped") is None:
                    test = f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}"
                    self.seconds[test] = float(case.get("time"))
        self.data = coverage.CoverageData(str(COVERAGE))
        self.data.read()
        self.known: dict[str, dict[int, list[str]]] = {}
        self.files = {path.partition("/bayesmix/")[2]: path for path in self.data.measured_files()}

    def of(self, mutant: dict[str, Any]) -> list[str]:
        """Tests that run a mutant's lines: the quickest of each function, then the next ones, and so on."""
        if mutant["file"] not in self.known:
            self.known[mutant["file"]] = self.data.contexts_by_lineno(self.files[mutant["file"]])
        contexts = self.known[mutant["file"]]
        ran = {name.partition("|")[0] for line in mutant["lines"] for name in contexts.get(line, ())}
        functions: dict[str, list[str]] = {}
        stem = Path(mutant["file"]).stem.replace("_", "")

        def key(test: str) -> tuple[bool, float]:
            return not re.search(f"(?<![a-z]){stem}(?![a-z])", test.lower()), self.seconds[test]

        for test in sorted(ran & self.seconds.keys(), key=key):
            functions.setdefault(test.partition("[")[0], []).append(test)
        turns = [sorted(filter(None, turn), key=key) for turn in zip_longest(*functions.values())]
        return [test for turn in turns for test in turn]


def apply(mutant: dict[str, Any]) -> None:
    """Give the functions of this process the mutant's code."""
    path = str(ROOT / "bayesmix" / mutant["file"])
    old, new = _codes(compile(Path(path).read_text(), path, "exec")), _codes(compile(mutant["source"], path, "exec"))
    for function in [each for each in gc.get_objects() if isinstance(each, FunctionType)]:
        name = function.__code__.co_qualname
        if function.__code__.co_filename == path and name in new and old[name] != new[name]:
            function.__code__ = new[name]


def _codes(code: CodeType) -> dict[str, CodeType]:
    found = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= {constant.co_qualname: constant, **_codes(constant)}
    return found


class Mutants:
    """A pytest plugin that runs the tests of every mutant, instead of all tests."""

    def __init__(self, mutants: list[dict[str, Any]], tests: Tests, again: bool):
        self.mutants, self.tests, self.again = mutants, tests, again
        self.failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        added = [test for test in items if test.partition("::")[0] in ADDED]
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        for mutant in self.mutants:
            began, chosen, alone = time.monotonic(), [], 0.0
            for test in [] if self.again else self.tests.of(mutant):
                alone += self.tests.seconds[test]
                if alone < _ALONE and test in items and test not in added:
                    chosen.append(items[test])
            by = self._forked(mutant, [*chosen, *(items[test] for test in added)])
            result = {**mutant, "status": "killed" if by else "survived", "by": by, "tests": len(chosen)}
            result["seconds"] = round(time.monotonic() - began, 1)
            del result["source"], result["lines"]
            with RESULTS.open("a") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
            terminal.write_line(f"{result['status']:8} {result['seconds']:5.1f} s {_place(result)} [{by}]", flush=True)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def _forked(self, mutant: dict[str, Any], items: list[pytest.Item]) -> str:
        """What the mutant fails on, empty where it does not."""
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            code = _BROKEN
            try:
                os.setsid()
                apply(mutant)
                self._run(items)
                os.write(writable, self.failed.encode())
                code = 0
            except BaseException:
                os.write(writable, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writable)
        deadline = time.monotonic() + _BUDGET + _HANGS
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                os.close(readable)
                return "a test that hung"
            time.sleep(0.01)
        with os.fdopen(readable) as pipe:
            said, code = pipe.read(), os.waitstatus_to_exitcode(ended[1])
        if code == _BROKEN:
            raise RuntimeError(f"{_place(mutant)}: {said}")
        return said if code == 0 else f"the interpreter, which ended with {code}"

    def _run(self, items: list[pytest.Item]) -> None:
        began = time.monotonic()
        if items:
            items[0].config.pluginmanager.unregister(name="terminalreporter")
        for item, following in zip(items, [*items[1:], None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed or time.monotonic() - began > _BUDGET:
                return


def serve(mutants: list[dict[str, Any]], again: bool) -> None:
    """Test each mutant, and add its result to the file; `again` by the tests that were added alone."""
    tests = Tests()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    added = [file for file in ADDED if Path(file).exists()]
    others = [] if again else [test.partition("::")[0] for test in tests.seconds if test.startswith("tests/")]
    files = dict.fromkeys([*added, *others])
    pytest.main(["-q", "-m", "not slow", "-p", "no:cacheprovider", *files], plugins=[Mutants(mutants, tests, again)])


# ------------------------------------------------------------------- results


def _key(mutant: dict[str, Any]) -> tuple:
    return mutant["file"], mutant["line"], mutant["before"], mutant["after"]


def _place(result: dict[str, Any]) -> str:
    return f"{result['file']}:{result['line']} {result['before'][:60]} -> {result['after'][:60]}"


def results() -> dict[tuple, dict[str, Any]]:
    """The last result of each mutant."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {_key(result): result for result in map(json.loads, lines)}


def write_page(drawn: list[dict[str, Any]], known: dict[tuple, dict[str, Any]]) -> None:
    """Write what was found as a page of the docs."""
    notes = json.loads(NOTES.read_text()) if NOTES.exists() else []
    remarks = {(note["file"], note["text"], note["before"], note["after"]): note["remark"] for note in notes}
    done = [known[_key(mutant)] for mutant in drawn if _key(mutant) in known]
    survivors = [result for result in done if result["status"] == "survived"]
    remark = {_key(one): remarks.get((one["file"], one["text"], one["before"], one["after"]), "") for one in survivors}
    equivalent = sum(text.startswith("equivalent") for text in remark.values())
    killed, counted = len(done) - len(survivors), len(done) - equivalent
    rows = []
    for file in [file for _, files in PARTS.values() for file in files]:
        own = [result for result in done if result["file"] == file]
        left = [result for result in own if result["status"] == "survived"]
        same = sum(remark[_key(one)].startswith("equivalent") for one in left)
        if own:
            rows.append(f"| `{file}` | {len(own)} | {len(own) - len(left)} | {same} | {len(left) - same} |")
    lines = [
        f"- `{one['file']}:{one['line']}`, `{_short(one['text'])}`: `{_short(one['before'])}` → "
        f"`{_short(one['after'])}`. {remark[_key(one)].capitalize() or 'No test notices.'}"
        for one in sorted(survivors, key=_key)
    ]
    PAGE.write_text(
        f"""# Mutants

Would the tests notice if the code were wrong? `make mutants` changes one place of one function at a time, at random,
and runs the tests that execute it (`benchmarks/mutants.py` says which changes, and where). Of {len(done)} mutants
{killed} were killed; {equivalent} of the others cannot be told from the original by anything that a user could see; of
those that can, {killed / counted:.1%} were killed.

| file of `bayesmix/` | mutants | killed | equivalent | survivors |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

## Survivors

{chr(10).join(lines) or "None."}
"""
    )
    print(f"{killed} of {len(done)} killed, {equivalent} equivalent: {killed / counted:.1%}")


def _short(code: str) -> str:
    return code if len(code) <= 90 else f"{code[:88]} …"


def main() -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    again = sys.argv[1:2] == ["again"]
    given = [int(value) for value in sys.argv[2 if again else 1 :]]
    number, seed = [*given, *(200, 1)[len(given) :]]
    drawn, known = draw(number, seed), results()
    if again:
        todo = [mutant for mutant in drawn if known.get(_key(mutant), {}).get("status") == "survived"]
    else:
        todo = [mutant for mutant in drawn if _key(mutant) not in known]
    if todo:
        serve(todo, again)
    write_page(drawn, results())


if __name__ == "__main__":
    main()
