# Everything a newcomer needs: `make up` runs it, `make test` proves it.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# It brings uv, which installs the rest in a tenth of the time, and does so itself where uv does not reach the index.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
DATA_DIR ?= .data
PORT ?= 8000
# Many tests wait for a clock or a process, so there is room for one more than there are cores.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
EFFORT ?= 1

# Compiled modules are kept: a suite starts hundreds of processes, and none of them should compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up test contract setup lint format fuzz chaos simulate bench lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(STAMP)  ## start everything with an embedded database and run a first generation
	@$(BIN)/babysea-server up --data-dir $(DATA_DIR) --port $(PORT)

test: $(STAMP)  ## run the whole suite; EFFORT=5 is the thorough run
	@EFFORT=$(EFFORT) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

contract: $(STAMP)  ## hold a server against the contract: BASE=http://... KEY=bye_...
	@CONTRACT_BASE='$(BASE)' CONTRACT_KEY='$(KEY)' CONTRACT_HOST='$(HOST)' \
	  $(BIN)/python -m pytest tests/contract/conformance $(ARGS)

setup: $(STAMP)  ## create .venv with the pinned dependencies

lint: $(STAMP)  ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(STAMP)  ## send N mutated raw HTTP streams (100,000) to a server of its own
	@$(BIN)/python -m tests.fuzz -n $(or $(N),100000) $(ARGS)

chaos: $(STAMP)  ## a whole system under load, with everything failing in turns: ARGS='--seconds 120 --rounds 1'
	@$(BIN)/python -m tests.chaos $(ARGS)

simulate: $(STAMP)  ## N seeds (10,000) of the simulation: crashes, lost answers and lies on a clock of its own
	@$(BIN)/python -m tests.simulation -n $(or $(N),10000) --jobs $(shell getconf _NPROCESSORS_ONLN) $(ARGS)

bench: $(STAMP)  ## measure and print the table of docs/performance.md
	@$(BIN)/python -m bench $(ARGS)

lock: $(STAMP)  ## renew requirements.lock from the pyproject files
	$(BIN)/uv pip compile server/pyproject.toml sdk/pyproject.toml --all-extras --group pyproject.toml:dev \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --quiet $(ARGS) -o requirements.lock

clean:  ## remove the environment and caches, never data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMP): requirements.lock server/pyproject.toml sdk/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make setup needs Python 3.11 or newer ($(PYTHON) not found)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make setup needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ { kept = /^uv==/ } kept' requirements.lock > $(VENV)/uv.lock
	$(PIP) install --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock \
	  || $(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e server -e sdk
	@touch $(STAMP)
