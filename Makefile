# iscale: `make demo` and `make test` are all that a newcomer needs, `make test-all` is for what lands; `make help` lists the rest.
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

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: env ## set up, run the tests, but for cases of full size
	$(PYTEST) -m "not full"

.PHONY: test-all
test-all: env ## set up, run all tests: those of full size too, and the three below
	$(PYTEST)
	$(MAKE) test-cluster test-browser test-readers

# An S3 server for tests has requirements that ours exclude: it gets an environment of its own.
.venv-moto/.ready:
	$(PYTHON) -m venv .venv-moto
	.venv-moto/bin/python -m pip install --quiet --disable-pip-version-check 'moto[server,s3]==5.2.5' boto3==1.43.117
	@touch $@

.PHONY: test-cluster
test-cluster: env .venv-moto/.ready ## set up, start a SLURM of one node (needs root) and an S3 server here, run their tests
	@command -v sbatch >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
		|| { apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet slurm-wlm munge; }
	ISCALE_CLUSTER_TESTS=1 ISCALE_MOTO_SERVER=.venv-moto/bin/moto_server $(BIN)/python -m pytest tests/services

.PHONY: test-browser
test-browser: env ## set up, get Chromium (needs root), look at the report in it
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
		|| { apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet chromium; }
	ISCALE_BROWSER_TESTS=1 $(BIN)/python -m pytest tests/browser

# Readers of other tools ask for another dask than ours.
.venv-readers/.ready:
	$(PYTHON) -m venv .venv-readers
	.venv-readers/bin/python -m pip install --quiet --disable-pip-version-check \
		spatialdata==0.7.3 ome-zarr==0.15.0 ome-zarr-models==1.7 zarr==3.1.6 anndata==0.12.19
	@touch $@

.PHONY: test-readers
test-readers: env .venv-readers/.ready ## set up, open exports with spatialdata and ome-zarr in an environment of their own
	ISCALE_SPATIALDATA_PYTHON=.venv-readers/bin/python $(BIN)/python -m pytest tests/export -k reads_it

.PHONY: lint
lint: env ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: bench-%
bench-%: env ## run a benchmark: accuracy, aggregate, alignment, basis, clusters, context, dense, features, fit, fit_memory, hipt_memory, memory, reading, rim, scale, scaling, scheduler, trust, view, workers
	$(BIN)/python -m benchmarks.$*

.PHONY: clean
clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) .venv-moto .venv-readers demo .pytest_cache .mypy_cache .ruff_cache *.egg-info
