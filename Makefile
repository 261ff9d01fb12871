# Every target sets itself up: Python 3.11 or newer is all that has to be there. Once set up, nothing is fetched again.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv-peers/.ready

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

bench: $(READY) $(PEERS)  ## the benchmarks, one after the other, beside the peers (in an environment of their own)
	@for file in $(filter-out %_gpu.py %_scale.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

pocket: $(READY)  ## rebuild the embedded base model from nothing (about an hour on two cores)
	$(BIN)/python tools/build_pocket.py

format: $(READY)  ## put format and imports right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Debian keeps `ensurepip` in python3-venv; without it a pip outside can still fill the environment.
# $(1): the environment's folder; $(2): what pip installs into it.
define set-up
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tunesmith needs Python 3.11 or newer; say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(1) (once; the download of PyTorch takes a while) ..."
	@[ -x $(1)/bin/python ] || $(PYTHON) -m venv $(1) || { rm -rf $(1); $(PYTHON) -m venv --without-pip $(1); }
	@if $(1)/bin/python -m pip --version >/dev/null 2>&1; then pip="$(1)/bin/python -m pip"; \
	  else pip="$(PYTHON) -m pip --python $(1)/bin/python"; fi; \
	  $$pip --version >/dev/null 2>&1 || { echo "There is no pip: apt-get install python3.11-venv" >&2; exit 2; }; \
	  $$pip install --quiet $(2)
	@touch $@
endef

$(READY): pyproject.toml constraints.txt
	$(call set-up,.venv,--constraint constraints.txt --editable '.[dev]')

$(PEERS): benchmarks/peers/requirements.txt
	$(call set-up,.venv-peers,--requirement $<)
