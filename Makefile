# iscale: `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export ISCALE_DATA ?= $(abspath ../shared/data)
export ISCALE_GOLDEN ?= $(abspath ../shared/golden)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: env
env: $(VENV)/.ready ## make .venv with the package and all that the tests need

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: env ## set up, run the pipeline on the built-in demo, say what was found
	$(BIN)/iscale demo demo

.PHONY: test
test: env ## set up, run the tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: lint
lint: env ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: bench-%
bench-%: env ## run a benchmark: accuracy, alignment, context, features, fit, hipt_memory, memory, reading
	$(BIN)/python -m benchmarks.$*

.PHONY: clean
clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache *.egg-info
