# Everything runs from a bare machine with Python 3.11 or later, pip, make and git: each target sets up what it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first interpreter of 3.11 or later that can make virtual environments; give PYTHON=... for another one.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
RUN := $(VENV)/bin/python
# What is never imported need not be compiled: a third of the installation's time. Imports compile the rest, and keep it.
PIP := $(RUN) -m pip install -qq --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=
# Versions that are known to work together: JAX has other newest releases for 3.11 than for 3.12 and later.
CONSTRAINTS = constraints-$(shell $(RUN) -c 'import sys; print("3.11" if sys.version_info < (3, 12) else "3.12")').txt
BENCH := $(RUN) -m experiments.benchmarks
SOURCES := metarep_jax experiments tests
ARGS ?=

.PHONY: help quickstart test lint format types bench tables install install-test install-peers clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: install  ## the three stages on letters drawn from fonts: a table and figures in a few minutes
	$(RUN) -m experiments.quickstart $(ARGS)

test: install-test  ## the tests (ARGS="-k simclr" for some of them)
	$(RUN) -m pytest $(ARGS)

lint: install-test  ## style, format and types
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m pyright --pythonpath $(RUN)

format: install-test  ## put the code into its format
	$(RUN) -m ruff check --fix-only --quiet $(SOURCES)
	$(RUN) -m ruff format $(SOURCES)

bench: install-peers  ## training steps beside PyTorch on this machine; measures for 12 minutes, compiles beside; writes runs/*.json
	$(BENCH).meta_step --seconds 60 $(ARGS)
	$(BENCH).contrastive_step --seconds 60 $(ARGS)
	$(BENCH).self_supervised_steps --seconds 160 $(ARGS)
	$(BENCH).resnet_step --seconds 100 $(ARGS)
	$(BENCH).convolution --seconds 180 $(ARGS)
	$(BENCH).scaling --seconds 130 $(ARGS)
	$(BENCH).reading --seconds 40 $(ARGS)

tables: install  ## draw the tables and numbers of the pages anew from experiments/results
	$(RUN) -m experiments.readme

install: $(VENV)/.installed  ## the virtual environment and what running needs
install-test: $(VENV)/.installed-test  ## ... and what testing needs
install-peers: $(VENV)/.installed-peers  ## ... and PyTorch, to compare with

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or later with venv; give one with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints-3.11.txt constraints-3.12.txt
	@echo "installing into $(VENV) (once)"
	@$(PIP) -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing what the tests need (once)"
	@$(PIP) -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed
	@echo "installing PyTorch for comparison (once)"
	@$(PIP) -c $(CONSTRAINTS) -e '.[peers]'
	@touch $@

clean:  ## remove the virtual environment and caches (runs and results stay)
	rm -rf $(VENV) cache .pytest_cache .ruff_cache build dist *.egg-info
