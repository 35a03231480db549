.DEFAULT_GOAL := help
PYTHON ?= python3
LOWEST_PYTHON ?= python3.11
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
LOWEST := tests/test_supply.py tests/commands/test_repeating.py tests/commands/test_trackers.py tests/commands/test_cache_verb.py \
	tests/networks/test_preparing.py tests/facets/test_photographs.py tests/facets/test_embedding.py tests/visualizer/test_fitting.py \
	tests/visualizer/test_filters.py tests/visualizer/test_checkpoints.py tests/results tests/reports/test_figures.py tests/sweeps

# A process a core, a file of tests at a time, since tests of a file share what they made.
PARALLEL ?= -n auto --dist loadfile

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: .venv/installed  ## install (some minutes), draw the facets of the generated demo (about a minute)
	$(BIN)/mindseye

test: .venv/tested lint  ## install the test extra, run the whole test suite
	$(BIN)/python -m pytest $(PARALLEL)

test-long: .venv/tested  ## what takes minutes: more bad files, more wrong settings, more faults
	$(BIN)/python -m pytest -m long $(PARALLEL)

test-lowest: .venv-lowest/installed  ## the lowest versions that pyproject.toml allows (Python 3.11): a smoke run and a handful of tests
	.venv-lowest/bin/python -m pytest $(LOWEST)

audit: .venv/audited  ## ask a public service for known vulnerabilities of what is installed
	$(BIN)/pip-audit --skip-editable

test-cluster: .venv/clustered  ## sweeps on a real Slurm and Ray inside this machine (Linux, root; slurm-wlm munge iproute2)
	$(BIN)/python -m pytest -m cluster tests/cluster

test-browser: .venv/browsed  ## the gallery and the site in a real browser (Chromium from the system; CHROMIUM= names another)
	$(BIN)/python -m pytest -m browser tests/browser --reruns 1  # a key or a frame may come late; -ra names what was run again

example: .venv/browsed  ## draw docs/example anew, the gallery of a small sweep over the demo, and the pictures of it in docs
	rm -rf docs/example build/padlocks
	$(BIN)/mindseye -m depth=middle,late k=5,20 C=3 objective=calibrated,published facets=calibrated snapshots=100 cache=off hydra.sweep.dir=build/padlocks
	$(BIN)/mindseye gallery build/padlocks --copy docs/example
	$(BIN)/python scripts/gallery_screenshots.py

docs: .venv/documented  ## build the documentation site into site/: open site/index.html (a few minutes with the notebooks)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/benched  ## measure what mindseye costs beside the bare network and other tools (half an hour)
	$(BIN)/python scripts/benchmark.py

truth: .venv/truthful  ## hold the method to what other networks see, beside other people's ways (hours; docs/truth.md)
	$(BIN)/python scripts/truth.py

lint: style types  ## check style, imports and types

style: .venv/tested
	$(BIN)/python -m ruff check .

types: .venv/tested
	$(BIN)/python -m mypy

clean:  ## remove the environment and what runs left behind
	rm -rf .venv .venv-lowest outputs multirun site build dist .pytest_cache .ruff_cache .mypy_cache

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/tested: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ .venv/installed

# A release of torch before 2.6 knows no Python 3.13, and none of these has wheels for more than a few Pythons.
.venv-lowest/installed: pyproject.toml tests/lowest.txt
	$(LOWEST_PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/lowest.txt --editable '.[test]'
	@touch $@

.venv/audited: pyproject.toml .venv/tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

.venv/clustered: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cluster]'
	@touch $@ .venv/tested .venv/installed

.venv/truthful: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[truth]'
	@touch $@ .venv/tested .venv/installed

.venv/browsed: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	@touch $@ .venv/tested .venv/installed

.venv/documented: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ .venv/installed

# lucent asks for a kornia of 2020 and torch-dreams for a display and 200 MB of MKL; both run without.
.venv/benched: pyproject.toml .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torch-lucent torch-dreams
	@touch $@ .venv/installed

.PHONY: help demo test test-long test-lowest audit test-cluster test-browser docs example bench truth lint style types clean
