# make demo   fit the Palmer penguins, start to end; plots go to ./demo-output
# make test   every test
# make fast   the tests that are not marked slow
# make bench  bayesmix beside its peers, each in an environment of its own; about an hour
# make fuzz   10,000 random specs and tables (an hour); BAYESMIX_FUZZ=n for another number, BAYESMIX_FUZZ_FIRST=n for others
# make check  what CI runs: ruff, types, every test, and the code of every docs page
# make calibrate   simulation-based calibration of every family and structure (an hour or more); see docs/calibration
# The environment is made in .venv by the first target that needs it. PYTHON=... chooses the interpreter.

SHELL := /bin/sh
BIN := .venv/bin
CANDIDATES := $(PYTHON) python3 python3.14 python3.13 python3.12
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-warn-script-location

.PHONY: demo test fast fuzz check bench calibrate help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: .venv/.test
	@$(BIN)/python -m bayesmix.demo

test: .venv/.test
	@$(BIN)/python -m pytest -n 2 -q

fast: .venv/.test
	@$(BIN)/python -m pytest -n 2 -q -m "not slow"

fuzz: .venv/.test
	@BAYESMIX_FUZZ=$${BAYESMIX_FUZZ:-10000} $(BIN)/python -m pytest -n 2 -q tests/fuzz

bench: .venv/.dev
	@$(BIN)/python benchmarks/run.py

check: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
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
