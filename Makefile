# The daily verbs. Everything lives in .venv and in folders node_modules: no root, nothing installed elsewhere.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
ARGS ?=

.PHONY: help venv demo test bench lint format clean

help:  ## show these lines
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

venv: .venv/dev.stamp  ## create .venv with everything that tests, lint and benchmarks need

demo: .venv/runtime.stamp  ## start the whole system on this machine; Ctrl-C ends it
	@exec $(PYTHON) scripts/in_foreground.py $(PYTHON) -m pushserver demo $(ARGS)

test: .venv/dev.stamp tests/js/node_modules/stamp bench/peers/node/node_modules/stamp  ## run every test, system tests last and alone; with ARGS='-k name -x' one pytest
ifeq ($(strip $(ARGS)),)
	$(PYTHON) -m pytest -n 2 --dist loadfile --ignore=tests/system
	$(PYTHON) -m pytest tests/system
else
	$(PYTHON) -m pytest $(ARGS)
endif

bench: .venv/dev.stamp bench/peers/node/node_modules/stamp  ## run the benchmarks and print one table
	$(PYTHON) -m bench $(ARGS)

lint: .venv/dev.stamp  ## style, formatting, types, import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/dev.stamp  ## let ruff format and sort what it can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:  ## remove what these verbs made
	rm -rf .venv .demo tests/js/node_modules bench/peers/node/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find pushserver tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on the PATH is not yet an interpreter (version managers put stand-ins there), so each one is really asked.
.venv/bin/python:
	@for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating .venv with $$("$$name" --version)"; \
	    "$$name" -m venv .venv; exit 0; \
	  fi; \
	done; \
	echo 'No Python 3.11 or newer with its venv module was found (on Debian: apt install python3-venv).' >&2; exit 1

.venv/runtime.stamp: requirements.txt | .venv/bin/python
	@echo 'installing the runtime pins'
	@$(PYTHON) scripts/install_pins.py requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/runtime.stamp
	@echo 'installing the development pins'
	@$(PYTHON) scripts/install_pins.py requirements-dev.txt
	@touch $@

# Without npm the tests and benchmarks that need JavaScript say so themselves.
%/node_modules/stamp: %/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo 'installing the JavaScript packages of $*'; \
	  (cd $* && npm ci --no-audit --no-fund --loglevel=error) && touch $@; \
	else echo 'npm is not here: going on without the JavaScript packages of $*'; fi
