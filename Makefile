# Every target sets itself up: Python 3.11 or newer is all that has to be there. Once set up, nothing is fetched again.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup quickstart test test-all check format bench pocket

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## the virtual environment, with what is tested

quickstart: $(READY)  ## the whole road with the embedded model, offline
	$(BIN)/tunesmith run quickstart

check: $(READY)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check  ## check, and the tests that belong to every change
	$(BIN)/pytest

test-all: check  ## check, and all tests, the slow ones too
	$(BIN)/pytest -m ''

bench: $(READY)  ## the benchmarks, one after the other
	@for file in benchmarks/*.py; do [ -e "$$file" ] || continue; echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

pocket: $(READY)  ## rebuild the embedded base model from nothing (about an hour on two cores)
	$(BIN)/python tools/build_pocket.py

format: $(READY)  ## put format and imports right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Debian keeps `ensurepip` in python3-venv; without it a pip outside can still fill the environment.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tunesmith needs Python 3.11 or newer; say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up .venv (once; the download of PyTorch takes a while) ..."
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { rm -rf .venv; $(PYTHON) -m venv --without-pip .venv; }
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	  else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
	  $$pip --version >/dev/null 2>&1 || { echo "There is no pip: apt-get install python3.11-venv" >&2; exit 2; }; \
	  $$pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
