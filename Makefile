# Each target sets up all that it needs on a fresh machine with Python 3.11+, gcc and make.
#   make run      set up, then run the pipeline on the default configuration
#   make test     set up, then run all checks and tests
#   make setup    set up alone: .venv with the pinned requirements
# Options for snakemake: make run ARGS="--configfile my.yaml"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
TEST_PROCESSES ?= 3
# What other workflows that import this one over the network need beside its rules.
SOURCES := find scripts config/datasets.yaml -type f -not -path '*/__pycache__/*' -not -path '*/.*' | LC_ALL=C sort
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test setup lint docs clean

run: setup
	snakemake --cores $(CORES) $(ARGS)

setup: $(VENV)/.run

$(VENV)/.run: envs/requirements.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -r envs/requirements.txt
	touch $@

$(VENV)/.test: $(VENV)/.run envs/requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r envs/requirements-dev.txt
	touch $@

test: $(VENV)/.test lint
	tests/install_browser.sh
	pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.test
	ruff check .
	ruff format --check .
	mypy
	PYTHONPATH=scripts lint-imports
	snakefmt --check Snakefile rules workflow/Snakefile
	$(SOURCES) | diff rules/sources.txt - # if they differ: make docs
	snakemake --lint
	python docs/dag.py
	python docs/configuration.py

docs: setup
	$(SOURCES) > rules/sources.txt
	python docs/dag.py --write
	python docs/configuration.py --write

clean:
	rm -rf results .snakemake
