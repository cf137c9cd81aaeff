# One command for each thing a developer does; `make` alone lists them.
#
# Everything happens in .venv, which is set up once from requirements-dev.lock and left alone until that file changes:
# after the first time nothing here needs the network. `make PYTHON=/path/to/python3.12` chooses another interpreter,
# `make test ARGS="-k digest -x"` hands options to the tool. pip reads its own configuration (mirror, proxy) as always.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

# A stamp is named after what it was made from (a copied folder counts as another place), so that times do not matter.
key = $(firstword $(shell { cat $(1) 2> /dev/null; printf '%s' '$(CURDIR)'; } | sha256sum))
TOOLS := $(VENV)/.tools-$(call key,requirements-dev.lock)
READY := $(VENV)/.ready-$(call key,requirements-dev.lock pyproject.toml)
PEERS := $(VENV)/.peers-$(call key,requirements-bench.lock requirements-dev.lock)
RESOLVE := uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-annotate \
  --no-emit-index-url --no-emit-find-links
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet --quiet

.PHONY: help demo test check format bench docs lock clean

help: ## this list
	@echo 'Interlock: one door between whoever wants to change production and production.'
	sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: $(READY) ## the main job on real commands and files, told as a story; leaves a project to play with
	@$(BIN)/interlock demo $(ARGS)

# One worker a processor; a file stays with one worker, because its tests share fixtures.
test: $(READY) ## all tests, cheapest first
	@workers=$$(nproc 2> /dev/null || echo 2)
	$(BIN)/python -m pytest --numprocesses $$(( workers > 8 ? 8 : workers )) --dist loadfile $(ARGS)

check: $(READY) ## style, types and import direction
	@failed=
	echo 'ruff:    style';     $(BIN)/ruff check --quiet . || failed=1
	echo 'ruff:    layout';    $(BIN)/ruff format --quiet --check . || { echo 'make format mends it'; failed=1; }
	echo 'mypy:    types';     $(BIN)/mypy --no-error-summary || failed=1
	echo 'imports: direction'; $(BIN)/lint-imports > $(VENV)/imports.txt || { cat $(VENV)/imports.txt; failed=1; }
	[ -z "$$failed" ]

format: $(READY) ## lay out the source
	@$(BIN)/ruff check --quiet --fix-only .; $(BIN)/ruff format --quiet .

bench: $(READY) $(PEERS) ## the performance claims, measured beside others on this machine
	@$(BIN)/python -m bench $(ARGS)

docs: $(READY) ## write docs/reference anew from the code
	@$(BIN)/python -m interlock.interfaces.reference $(ARGS)

lock: ## resolve the lock files anew (needs uv)
	@command -v uv > /dev/null || { echo 'make lock needs uv: pipx install uv'; exit 1; }
	export UV_CUSTOM_COMPILE_COMMAND='make lock'
	$(RESOLVE) pyproject.toml --group dev --extra telemetry --extra proxy --output-file requirements-dev.lock
	$(RESOLVE) pyproject.toml --constraint requirements-dev.lock --output-file requirements.lock
	$(RESOLVE) pyproject.toml --extra bench --constraint requirements-dev.lock --output-file requirements-bench.lock

clean: ## remove what was made here (not the data of any installation)
	@rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOOLS): requirements-dev.lock
	@python=
	for candidate in '$(PYTHON)' python3.13 python3.12 python3.11; do
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then python=$$candidate; break; fi
	done
	if [ -z "$$python" ]; then
	  echo 'Interlock needs Python 3.11 or newer, and $(PYTHON) is'\
	    "$$('$(PYTHON)' --version 2> /dev/null || echo 'not there')." >&2
	  echo 'Install one (apt install python3.11 python3.11-venv; dnf install python3.12), or: make PYTHON=/path/to/python3' >&2
	  exit 1
	fi
	if ! "$$python" -c 'import venv, ensurepip' 2> /dev/null; then
	  echo "$$python cannot make virtual environments: its venv or ensurepip module is missing." >&2
	  echo 'Install it: apt install python3-venv (Debian, Ubuntu), apk add py3-pip (Alpine), dnf install python3-pip (Fedora).' >&2
	  exit 1
	fi
	echo 'setting up $(VENV) from requirements-dev.lock (once; a minute or two) ...'
	if [ ! -x $(BIN)/python ] || ! grep -qxF '$(CURDIR)' $(VENV)/.place 2> /dev/null; then
	  "$$python" -m venv --clear $(VENV)
	  echo '$(CURDIR)' > $(VENV)/.place
	fi
	$(PIP) install --require-hashes -r requirements-dev.lock
	rm -f $(VENV)/.tools-*
	touch $@

$(READY): $(TOOLS)
	@echo 'installing this checkout into $(VENV) ...'
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	rm -f $(VENV)/.ready-*
	touch $@

$(PEERS): $(TOOLS)
	@echo 'adding the systems we measure ourselves against ...'
	$(PIP) install --require-hashes -r requirements-bench.lock
	rm -f $(VENV)/.peers-*
	touch $@
