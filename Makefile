# The door to the project. Needs python3 (3.11 or newer) and make; everything else is installed into .venv.

.DEFAULT_GOAL := help
.PHONY: help environments demo test test-tcp test-all test-uvloop test-lowest test-pythons lint types format bench bench-gateway scoreboard sdk-matrix headlines fleet nodes soak fuzz constraints clean
.DELETE_ON_ERROR:

SHELL := /bin/bash
BIN := .venv/bin
# Both are younger than what decides about the contents of .venv: what the demo needs, and what all the rest does.
RUNS := .venv/.runs
READY := .venv/.installed
CHECKED := $(wildcard src tests bench examples fuzz tools)
SCOREBOARD := .venv-scoreboard/.installed .venv-scoreboard-litellm/.installed
GATEWAYS := .venv-gateway-litellm/.installed .venv-gateway-portkey/.installed
SDKS := $(patsubst %,.venv-sdks-%/.installed,newest older litellm)
TCP := $(wildcard tests/sources tests/test_*_tcp.py)
SECONDS ?= 60
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check
# Many tests wait for sockets: three processes keep two cores busy.
PYTEST := python -m pytest -q -n 3 --dist worksteal

# Conformance vectors and recorded streams are no part of the repository; where they lie beside it, the tests use them.
export HOLDFAST_VECTORS ?= $(abspath $(wildcard ../shared/vectors/sse.json))
export HOLDFAST_RECORDINGS ?= $(abspath $(wildcard ../shared/recordings))

# Tests start many interpreters; where nothing may be kept, each would compile anew what it imports.
export PYTHONDONTWRITEBYTECODE :=

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNS) ## watch a naive client lose text under faults, and Holdfast deliver it
	@$(BIN)/holdfast demo

# What is about TCP runs on uvloop, too. The last thing printed is pytest's own summary of the whole suite.
test: lint ## ruff, mypy --strict, the tests: under five minutes
	$(MAKE) --no-print-directory -j2 --output-sync=target types test-tcp
	$(BIN)/$(PYTEST)

# Beside mypy, which keeps one core busy.
test-tcp: $(READY)
	HOLDFAST_TEST_LOOP=uvloop $(BIN)/$(PYTEST) $(TCP)

# Some examples and some rows of a table belong to clients that are heavy, or at odds with others: tests run them there.
environments: $(READY) $(SDKS) .venv-node/.installed

test-all: test test-uvloop test-lowest test-pythons ## the tests on every Python here, under uvloop, with the lowest versions

test-uvloop: $(READY) ## the tests on uvloop's event loop
	HOLDFAST_TEST_LOOP=uvloop $(BIN)/$(PYTEST)

test-lowest: .venv-lowest/.installed ## the tests with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/$(PYTEST)

test-pythons: ## the tests on every Python from 3.11 on that this machine has
	@failed=; for version in $$(tools/venv list | cut -d' ' -f1); do \
		echo "== Python $$version"; \
		$(MAKE) --no-print-directory .venv-$$version/.installed && .venv-$$version/bin/$(PYTEST) || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "failed on:$$failed"; exit 1; }

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	$(BIN)/mypy $(CHECKED)

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## microseconds of CPU per event, against floors measured in the same run
	$(BIN)/python -m bench

bench-gateway: $(READY) $(GATEWAYS) ## the gateway beside nginx, a naive relay, Portkey and LiteLLM: writes docs/gateway-cost.md
	$(BIN)/python -m bench.gateway --write

scoreboard: $(SCOREBOARD) ## other clients and Holdfast against the same faults: writes docs/scoreboard.md and .svg
	.venv-scoreboard/bin/python -m bench.scoreboard

sdk-matrix: $(READY) $(SDKS) ## real SDKs against the same faults, with Holdfast and without: writes docs/sdk-matrix.md
	$(BIN)/python -m bench.sdks

headlines: $(SCOREBOARD) ## asynchronous or threads, pooled or not, gzip or not, size of a buffer: writes docs/headlines.md
	.venv-scoreboard/bin/python -m bench.headlines

fleet: $(READY) ## 1,000 clients and upstreams with limits and bad days, on fake time: writes docs/fleet.md and .svg
	$(BIN)/python -m bench fleet

nodes: $(READY) ## kill, freeze and restart gateways over one Redis: writes docs/gateway-nodes.md
	$(BIN)/python -m bench.nodes

soak: $(READY) ## 10,000 streams over TCP with faults: nothing silent, hung or left behind
	$(BIN)/python -m bench.soak

fuzz: $(READY) ## throw mutated streams at each fuzz target for SECONDS (60)
	$(BIN)/python -m fuzz --seconds $(SECONDS)

constraints: ## choose newest versions anew: writes constraints.txt and constraints-lowest.txt
	tools/venv make .venv-new 3.11
	.venv-new/bin/$(PIP_INSTALL) -e '.[dev]'
	.venv-new/bin/python -m pip freeze --exclude-editable > constraints.txt
	.venv-new/bin/python tools/lowest.py > .venv-new/lowest.txt
	.venv-new/bin/$(PIP_INSTALL) -c .venv-new/lowest.txt -e '.[dev]'
	.venv-new/bin/python -m pip freeze --exclude-editable > constraints-lowest.txt
	rm -rf .venv-new

clean: ## remove environments, caches and what fuzzing and building left
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist fuzz/crashes
	find src tests bench examples fuzz -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# -- environments ------------------------------------------------------------------------------

# In two steps: who only wants to see the demo does not wait for type checkers and fuzzers.
$(RUNS): pyproject.toml constraints.txt tools/venv
	@set -e; tools/venv make .venv; $(call install,.venv,constraints.txt,cli); touch $@

$(READY): $(RUNS)
	@set -e; $(call install,.venv,constraints.txt,dev); touch $@

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt tools/venv
	@set -e; tools/venv make .venv-lowest 3.11; $(call install,.venv-lowest,constraints-lowest.txt,dev); touch $@

# Those whom we are compared with are no dependency of ours. litellm pins an openai of its own, so it lives alone.
.venv-scoreboard/.installed: pyproject.toml constraints.txt tools/venv bench/scoreboard/requirements.txt
	@set -e; tools/venv make .venv-scoreboard; $(call install,.venv-scoreboard,constraints.txt,dev)
	.venv-scoreboard/bin/$(PIP_INSTALL) -c constraints.txt -r bench/scoreboard/requirements.txt
	touch $@

.venv-scoreboard-litellm/.installed: bench/scoreboard/requirements-litellm.txt tools/venv
	tools/venv make .venv-scoreboard-litellm
	.venv-scoreboard-litellm/bin/$(PIP_INSTALL) -r bench/scoreboard/requirements-litellm.txt
	touch $@

.venv-gateway-litellm/.installed: bench/gateway/requirements-litellm.txt tools/venv
	tools/venv make .venv-gateway-litellm
	.venv-gateway-litellm/bin/$(PIP_INSTALL) --no-compile -r bench/gateway/requirements-litellm.txt
	touch $@

# Without node there is no Portkey: the page says so.
.venv-gateway-portkey/.installed: bench/gateway/package.json
	mkdir -p .venv-gateway-portkey && cp $< .venv-gateway-portkey/
	cd .venv-gateway-portkey && (npm install --no-audit --no-fund --silent || echo "npm cannot install Portkey's gateway")
	touch $@

# What is installed there is what the page was written with; who wants newer versions freezes them anew. Not compiled:
# that takes as long as to install, and most of it is never imported.
.venv-sdks-%/.installed: pyproject.toml bench/sdks/requirements-%.txt bench/sdks/constraints-%.txt tools/venv
	tools/venv make .venv-sdks-$*
	.venv-sdks-$*/bin/$(PIP_INSTALL) --no-compile \
		-c bench/sdks/constraints-$*.txt -r bench/sdks/requirements-$*.txt -e .
	touch $@

# The gateway's clients are not only Python's. No lock file: exact versions do.
.venv-node/.installed: tests/gateway/node/package.json
	mkdir -p .venv-node
	cp $< .venv-node/package.json
	cd .venv-node && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $@

.venv-%/.installed: pyproject.toml constraints.txt tools/venv
	@set -e; tools/venv make .venv-$* $*; $(call install,.venv-$*,constraints.txt,dev); touch $@

# folder, constraints, extra
define install
echo "$(1): installing, with the versions of $(2)"; $(1)/bin/$(PIP_INSTALL) -c $(2) -e '.[$(3)]'
endef
