# Two words to begin with: `make run` and `make test`.  `make help` names the others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
WORKERS ?= 2
ARGS ?=

.PHONY: help setup run test check format compose-test bench-dns bench-gateway bench-path bench-memory bench-departure bench-scale bench-herd chaos clean

help:             ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(VENV)/.dev   ## everything for developing, in .venv

run: $(VENV)/.run     ## the whole system with a demo, on an embedded store
	@exec $(BIN)/callboard up --demo $(ARGS)

test: $(VENV)/.dev    ## all tests; they start and stop the servers they need
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

check: $(VENV)/.dev   ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## rewrite the formatting
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

compose-test:         ## build the image and try docker-compose.yml (needs a Docker engine)
	$(PYTHON) deploy/compose_test.py $(ARGS)

bench-dns: $(VENV)/.dev        ## dnsd beside Knot, NSD and BIND (those that are installed)
	$(BIN)/python -m benchmarks.dns $(ARGS)

bench-gateway: $(VENV)/.dev    ## the gateway beside nginx, HAProxy, Envoy, Traefik (those installed)
	$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-path: $(VENV)/.dev       ## from POST /register to the first answer
	$(BIN)/python -m benchmarks.path $(ARGS)

bench-memory: $(VENV)/.dev     ## memory of each part of the demo, idle
	$(BIN)/python -m benchmarks.memory $(ARGS)

bench-departure: $(VENV)/.dev  ## how long until a dead instance leaves DNS
	$(BIN)/python -m benchmarks.departure $(ARGS)

bench-scale: $(VENV)/.dev      ## a hundred thousand instances, held by two registrars
	$(BIN)/python -m benchmarks.scale $(ARGS)

bench-herd: $(VENV)/.dev       ## ten thousand sidecars that come back at once
	$(BIN)/python -m benchmarks.herd $(ARGS)

chaos: $(VENV)/.dev            ## faults on real processes: what was promised, what was measured
	$(BIN)/python -m benchmarks.chaos $(ARGS)

clean:                ## remove what the targets above made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'error: Callboard needs Python 3.11 or newer; name one with make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo 'error: no virtual environment; on Debian: apt install python3-venv' >&2; exit 1; }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV) ...' >&2
	@$(PIP) --editable '.[up]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV), with the tools for tests ...' >&2
	@$(PIP) --editable '.[up,dev]'
	@touch $@ $(VENV)/.run
