SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

PYTHON ?= python3
PORT ?= 6432
DIR ?= .demo
AWS ?=
# Tests wait as much as they work.
WORKERS ?= $(shell expr 2 '*' "$$(nproc)" + 2)
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PACKAGING := setup.cfg setup.py pyproject.toml $(wildcard pgproxy/compiled/*)

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

.PHONY: run
run: $(VENV)/demo$(if $(AWS),-aws).stamp ## PostgreSQL and pgproxy in front of it on 127.0.0.1:PORT (6432), until Ctrl-C; data in DIR (.demo); AWS=1 with a stand-in for AWS and a rotation
	@exec $(BIN)/python -m pgproxy.demo --port "$(PORT)" --dir "$(DIR)" $(if $(AWS),--aws)

.PHONY: test
test: $(VENV)/check.stamp ## all tests, or what ARGS says: make test ARGS="tests/unit -x"; PGPROXY_PG_PREFER=wheel|system, PGPROXY_PURE=1 without the compiled twin, PGPROXY_TEST_WORKERS=3 with so many workers
	@$(BIN)/python -m pytest -n "$(WORKERS)" --dist worksteal $(ARGS)

.PHONY: check
check: $(VENV)/check.stamp ## style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/check.stamp ## pgbench directly and through poolers, as a table: make bench ARGS=--help
	@$(BIN)/python -m bench $(ARGS)

.PHONY: compat
compat: $(VENV)/check.stamp ## other projects' tests directly and through pgproxy: make compat ARGS="regress asyncpg"
	@$(BIN)/python -m tests.compat $(ARGS)

.PHONY: pictures
pictures: $(VENV)/check.stamp ## the pictures of the status page in docs/, made anew: it takes two minutes, and chromium
	@$(BIN)/python -m tests.pictures docs

.PHONY: clean
clean: ## remove what was built, the demonstration's files and the virtual environment
	rm -rf $(VENV) .demo .compat build dist ./*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache twisted/plugins/dropin.cache pgproxy/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment, with what running the demonstration needs, and with what checking needs: that holds the
# former. A change of the packaging files brings them up to date; otherwise pip isn't started.
$(VENV)/demo.stamp: $(PACKAGING) | $(BIN)/python
	@echo "Installing pgproxy and what the demonstration needs into $(VENV) (once, about half a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/demo-aws.stamp: $(PACKAGING) | $(BIN)/python
	@echo "Installing pgproxy and what the demonstration with AWS needs into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo-aws]'
	@touch $@ $(VENV)/demo.stamp

$(VENV)/check.stamp: $(PACKAGING) | $(BIN)/python
	@echo "Installing pgproxy and what its tests need into $(VENV) (once, about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[check]'
	@touch $@ $(VENV)/demo.stamp $(VENV)/demo-aws.stamp

# Where an earlier try has failed half-way there is a python without pip: --clear begins again.
$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "pgproxy needs Python 3.11 or newer, and there is no $(PYTHON). Debian, Ubuntu: apt-get install python3 python3-venv"; \
	  exit 1; } >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pgproxy needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another: make PYTHON=python3.12 ..."; \
	  exit 1; } >&2
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt-get install python3-venv"; \
	  exit 1; } >&2
	@echo "Making a virtual environment in $(VENV) ..."
	@"$(PYTHON)" -m venv --clear $(VENV)
