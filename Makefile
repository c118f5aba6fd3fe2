# `make demo` and `make test` each set up a .venv when it is missing or stale, and then do their job.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.edgewright-installed

.DEFAULT_GOAL := help
.PHONY: help setup test test-all check demo bench

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "PYTHON=python3.12 picks another interpreter for a new .venv (Python 3.11 or newer)."

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; set PYTHON=python3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), needed is Python 3.11 or newer;" \
		"set PYTHON=python3.11 or newer" >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing edgewright and its toolchains into $(VENV) (minutes, about 3.3 GB, once)"
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[all,dev]"
	@touch $@

setup: $(STAMP) ## Make the .venv with everything that the other targets need

test: $(STAMP) ## Run the fast tests
	scripts/test

test-all: $(STAMP) ## Run every test, the slow ones too
	scripts/test --all

check: $(STAMP) ## Check format, lint, types, import layers and file sizes
	scripts/check

demo: $(STAMP) ## Build the shipped digits model for three runtimes, into demo-out/
	$(VENV)/bin/edgewright demo --out demo-out

bench: $(STAMP) ## List the benchmarks, each with the command that runs it
	@found=no; for script in benchmarks/*.py benchmarks/*/[!_]*.py; do \
		[ -e "$$script" ] || continue; found=yes; \
		summary=$$($(VENV)/bin/python -c 'import ast, pathlib, sys; print((ast.get_docstring(ast.parse(pathlib.Path(sys.argv[1]).read_text())) or "").partition("\n")[0])' "$$script"); \
		echo "  $(VENV)/bin/python $$script  # $$summary"; \
	done; [ $$found = yes ] || echo "no benchmarks in benchmarks/"
