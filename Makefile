# make tables = environment, mini experiment, table. CONFIG=FILE lays another experiment over params.yaml.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.made
CONFIG ?=
# PyTorch's own index, asked for torch's CPU build alone and only if pip's configured index has none
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export PATH := $(BIN):$(PATH)

.PHONY: tables run env test unit check cluster-test docs

tables: run
	@cat results/tables/main.md

# a killed run leaves Snakemake's lock; it goes when no other run holds .snakemake/alive (workflow/rules/common.smk)
run: env
	$(if $(CONFIG),@python -m igpo.status --params params.yaml --params "$(CONFIG)" >/dev/null)
	@! ls .snakemake/locks/* >/dev/null 2>&1 || flock --nonblock --conflict-exit-code 75 .snakemake/alive snakemake --unlock \
	    || { test $$? = 75 && echo "error: another run is going on in this folder" >&2; exit 2; }
	snakemake $(if $(CONFIG),--configfile "$(CONFIG)")

env: $(STAMP)

$(STAMP): requirements/cpu.txt requirements/torch-cpu.txt requirements/install.sh pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	    || { echo "error: Python 3.11 is needed; give its path: make $(or $(MAKECMDGOALS),env) PYTHON=..." >&2; exit 2; }
	@requirements/install.sh "$(PYTHON)" "$(TORCH_INDEX)"
	@touch $@

# without tests that start an engine, several processes, a database or a whole experiment
unit: env
	pytest -m "not slow"

test: env
	pytest

# on a Slurm of two nodes, made for it in a temporary folder; Debian and root are needed
cluster-test: env
	@command -v slurmctld >/dev/null && command -v munged >/dev/null \
	    || { apt-get update -q && apt-get install -y -q --no-install-recommends slurm-wlm munge; }
	pytest tests/cluster

check: env
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check --line-length 110 Snakefile workflow

# a site of docs/ in site/, made without a connection
docs: env
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet
	@echo "site/index.html; with its search: python -m http.server --bind 127.0.0.1 --directory site"
