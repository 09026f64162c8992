# Everything runs in .venv, which the first target makes; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# one thread a worker: the models of the tests are too small to share a matrix product among cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format docs benchmark clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

quickstart: .venv/.installed  ## Train a small tower and look at its retrievals (ARGS="--data stamps" and the like)
	$(BIN)/turingvit quickstart --minutes 3.5 $(ARGS)

test: .venv/.installed  ## Run the tests (ARGS="-k packing" and the like)
	$(PYTEST) $(ARGS)

lint: .venv/.installed  ## Check style, spelling, import layers and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

format: .venv/.installed  ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/.installed  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

benchmark: .venv/.installed  ## Measure operator, tower and loader on the CPU (an hour on two cores); see also turingvit benchmark
	set -e; for script in benchmarks/benchmark_*.py; do $(BIN)/python "$$script"; done

clean:  ## Remove the environment, caches and built files
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist site

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "turingvit_hf needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@
