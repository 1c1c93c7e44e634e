# Everything runs in .venv, which `make setup` makes; nothing else needs to be installed by hand.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check long kill-sweep soak fuzz format lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## .venv with the pinned packages and this checkout (7 GB, one to three minutes)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "curate needs Python 3.11, 3.12 or 3.13: install one, or name it:  make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "cannot make a virtual environment; on Debian:  apt-get install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.lock)"
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: setup  ## the whole way on real pictures, in ./demo-pool (3 minutes on 2 cores)
	$(BIN)/curate demo --pool demo-pool

test: setup  ## the test suite in two processes, with its ten slowest tests
	$(BIN)/python -m pytest -rs -n 2 --dist loadscope --no-loadscope-reorder

check: setup  ## ruff, mypy --strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

long: setup  ## the tests that take minutes: statistics over seeds, big pools
	$(BIN)/python -m pytest -rs -m 'long and not gpu'

kill-sweep: setup  ## kills 300 processes of runs, and a run at each of its system calls, and compares the digests (an hour)
	$(BIN)/python -m pytest -rs -s -m 'long or not long' tests/e2e tests/engines tests/removal -k kill

soak: setup  ## 200,000 rows through two watched workers, and a plan of ten million rows (half an hour)
	$(BIN)/python -m pytest -rs -s -m 'long or not long' tests/e2e/test_soak.py tests/e2e/test_startup.py

fuzz: setup  ## 100,000 damaged images and a million odd texts (a few minutes)
	$(BIN)/python -m pytest -rs -m 'long or not long' tests/fuzz

format: setup  ## applies ruff's format and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## renews requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --python-platform linux --upgrade \
		--no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

clean:  ## removes .venv, caches and build output; pools stay
	rm -rf $(VENV) build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find curate tests -name __pycache__ -type d -prune -exec rm -rf {} +
