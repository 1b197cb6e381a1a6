# make demo   fit the Palmer penguins, start to end; plots go to ./demo-output
# make test   every test
# make fast   the tests that take no seconds: most of them, in less than five minutes
# make bench  bayesmix beside its peers, each in an environment of its own; about an hour
# make fuzz   10,000 random specs and tables (an hour); BAYESMIX_FUZZ=n for another number, BAYESMIX_FUZZ_FIRST=n for others
# make coverage  line and branch coverage by every test, and by those of the kernels without compiler (half an hour)
# make mutants   which of 200 faults, made at random, those tests notice (half an hour); after make coverage
# make check  what CI runs: ruff, types, the site with its links, every test, every notebook, the code of every docs page
# make test-oldest   the tests that are not slow, on the oldest versions that pyproject.toml allows, in build/oldest
# make dist        wheel and sdist, in dist; looks whether anything is missing in them
# make test-wheel  the tests of the sdist that are not slow, outside the checkout, on the wheel installed in an environment of its own
# make calibrate   simulation-based calibration of every family and structure (half an hour); see docs/calibration
# make docs        the pages of docs/ as a site in docs/_build/html (half a minute); warnings and broken links are errors
# make notebooks   runs every notebook and keeps the outputs in its file (about five minutes)
# The environment is made in .venv by the first target that needs it. PYTHON=... chooses the interpreter.

SHELL := /bin/sh
BIN := .venv/bin
CANDIDATES := $(PYTHON) python3 python3.14 python3.13 python3.12
INSTALL := -m pip install -qq --disable-pip-version-check --no-warn-script-location
PIP := $(BIN)/python $(INSTALL)
FAST := -m "not slow"

.PHONY: demo test fast fuzz coverage mutants check bench calibrate test-oldest dist test-wheel docs notebooks help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: .venv/.test
	@$(BIN)/python -m bayesmix.demo

test: .venv/.test
	@$(BIN)/python -m pytest -n 2 -q

fast: .venv/.test
	@$(BIN)/python -m pytest -n 2 -q -m "not slow and not seconds"

fuzz: .venv/.test
	@BAYESMIX_FUZZ=$${BAYESMIX_FUZZ:-10000} $(BIN)/python -m pytest -n 2 -q tests/fuzz

# without the tests that compile or that take minutes without a compiler
INTERPRETED := tests/test_plan.py tests/test_tape.py tests/test_kernels.py \
  -k "not statistics_found and not log_posteriors and not threads and not shape0 and not shape1"

coverage: .venv/.test
	@mkdir -p build && rm -f build/coverage build/coverage.* build/tests.xml
	@$(BIN)/python -m pytest -n 2 -q --cov --cov-context=test --cov-report= --junitxml=build/tests.xml
	@$(BIN)/python -m coverage run -m pytest -q --collect-only >/dev/null  # workers import before they measure
	@$(BIN)/python -m coverage combine -q --append
	@NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q $(FAST) -p tests.interpreted -W ignore::RuntimeWarning \
	  --cov --cov-append --cov-report= $(INTERPRETED)
	@$(BIN)/python -m coverage report --precision=2

mutants: .venv/.test
	@$(BIN)/python -W ignore::DeprecationWarning benchmarks/mutants.py

bench: .venv/.dev
	@$(BIN)/python benchmarks/run.py

test-oldest: build/oldest/.ready
	@NUMBA_CACHE_DIR=$(CURDIR)/build/oldest/cache build/oldest/bin/python -m pytest -n 2 -q -m "not slow and not images"

dist: build/tools/.ready
	@rm -rf dist bayesmix.egg-info
	@build/tools/bin/python -m build --outdir dist . >build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	@build/tools/bin/python ci/distributions.py dist --into build/unpacked

test-wheel: dist
	@rm -rf build/wheel && build/tools/bin/python -m venv build/wheel
	@build/wheel/bin/python $(INSTALL) "$$(ls dist/*.whl)[test]"
	@build/wheel/bin/python -m pip check
	@outside=$$(mktemp -d) && trap 'rm -rf "$$outside"' EXIT && cp -r build/unpacked/sdist/. "$$outside" && cd "$$outside" \
	  && python=$(CURDIR)/build/wheel/bin/python \
	  && $$python -c 'import bayesmix, sys; sys.exit("site-packages" not in bayesmix.__file__)' \
	  && NUMBA_CACHE_DIR="$$outside/cache" $$python -m pytest -n 2 -q $(FAST) -k "not links_lead_somewhere" tests

docs: .venv/.docs
	@rm -rf docs/api/generated
	@$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@$(BIN)/python ci/site_links.py docs/_build/html && echo "Open docs/_build/html/index.html"

notebooks: .venv/.test
	@$(BIN)/python ci/notebooks.py

check: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory docs
	@$(MAKE) --no-print-directory test

.venv/.python:
	@found=; \
	for candidate in $(CANDIDATES); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "bayesmix needs Python 3.12 or newer: install one, for instance with 'uv python install 3.13', or pass PYTHON=/path/to/python3." >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then echo "Making .venv with $$($$found --version)"; $$found -m venv .venv || exit 1; fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@touch $@

.venv/.test: .venv/.python pyproject.toml
	@echo "Installing bayesmix and its dependencies into .venv (once)"
	@$(PIP) -e ".[test]"
	@echo "Compiling the kernels (once)"
	@$(BIN)/python -W ignore -m bayesmix.kernels
	@touch $@

.venv/.dev: .venv/.test pyproject.toml
	@$(PIP) -e ".[dev]"
	@touch $@

.venv/.docs: .venv/.test pyproject.toml
	@$(PIP) -e ".[docs]"
	@touch $@

# On the oldest Python there is, since the oldest versions know no newer one.
build/oldest/.ready: .venv/.python pyproject.toml ci/oldest.py ci/oldest.txt
	@rm -rf build/oldest && mkdir -p build
	@oldest=$(BIN)/python; \
	for candidate in $(PYTHON) python3.12 python3.13; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then oldest=$$candidate; break; fi; \
	done; \
	echo "Making build/oldest with $$($$oldest --version)"; $$oldest -m venv build/oldest
	@build/oldest/bin/python ci/oldest.py >build/oldest/constraints.txt
	@build/oldest/bin/python $(INSTALL) --prefer-binary -c build/oldest/constraints.txt -e ".[test]"
	@touch $@

build/tools/.ready: .venv/.python
	@$(BIN)/python -m venv build/tools
	@build/tools/bin/python $(INSTALL) build
	@touch $@
