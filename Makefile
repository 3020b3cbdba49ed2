# Every target makes what it needs: `make quickstart` and `make test` work on a fresh clone and twice in a row.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a process: the runs are small, and sums taken in one order are the same sums every time.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PYTEST := $(BIN)/python -m pytest -rs --durations=15

.PHONY: help setup peer quickstart demo test test-fast test-all lint format type bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## .venv with the tested versions of constraints.txt

$(STAMP): constraints.txt pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,quant,report,eval,demo,dev,e2e]'
	touch $@

peer: setup  ## the second environment with upstream llava-torch, which the parity tests compare with
	$(BIN)/python -m tests.upstream.environment

quickstart: setup  ## first page of the study: a tiny LLM that can refuse, ReGap off and on, in minutes
	$(BIN)/regap quickstart --output_path playground/runs/quickstart

demo: setup  ## the quickstart's two checkpoints side by side in a browser; makes them first, if they are missing
	test -e playground/runs/quickstart/llava-finetune-on/config.json || $(MAKE) --no-print-directory quickstart
	$(BIN)/regap demo

test-fast: setup  ## lint, types, rules of the house, unit and contract tests
	$(MAKE) --no-print-directory lint type
	$(PYTEST) tests/policy tests/unit tests/contract -m 'not full'

test: setup peer  ## what CI runs: test-fast and the core of the integration tests
	$(MAKE) --no-print-directory lint type
	$(PYTEST) tests -m 'not full and not e2e'

test-all: setup peer  ## every acceptance test; REQUIRE_ALL=1 turns a skip for a missing Debian package into a failure
	$(MAKE) --no-print-directory lint type
	$(PYTEST) tests

lint: setup  ## ruff and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: setup  ## mypy, strict on the core
	$(BIN)/mypy

bench: setup peer  ## timings, as ratios taken in one run
	$(BIN)/python scripts/bench/splice.py
	$(BIN)/python scripts/bench/step_vs_upstream.py
	$(BIN)/python scripts/bench/overhead.py
	$(BIN)/python scripts/bench/batched_generation.py
	$(BIN)/python scripts/bench/frechet.py
	$(BIN)/python scripts/bench/measure_memory.py

clean:  ## forget the environment and the runs
	rm -rf $(VENV) playground/runs
