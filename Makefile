# `make help` lists the targets. Two commands matter: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ENOUGH := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(INSTALLED) ## run the embedded study: a table of verdicts and a report, in a few minutes
	@$(BIN)/transferlab run experiment=digits

test: check ## all checks, then the fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --durations=15 -m "not slow" --ignore=tests/architecture

test-slow: $(INSTALLED_DEV) ## end-to-end runs, calibrations, the wheel
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --durations=30 -m slow

check: $(INSTALLED_DEV) ## ruff, mypy --strict, the architecture tests
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/architecture

bench: $(INSTALLED) ## ours against others, in turn: hours, on a machine that does nothing else
	@$(PIP) --editable '.[bench]'
	@cd experiments/benchmarks && for script in steps.py small_maps.py "fits.py fine_tune" \
	  "fits.py feature_extraction" "fits.py gradual_unfreezing" study.py growth.py reports.py memory.py; do \
	  echo "$$script"; ../../$(BIN)/python $$script || exit 1; done

clean: ## remove caches and builds; keeps .venv, outputs and the shared cache
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	@find src tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is older than pyproject.toml exactly when dependencies may have changed.
$(INSTALLED): pyproject.toml | $(BIN)/pip
	@echo "Installing transferlab into $(VENV): about two minutes and 6 GB the first time."
	@$(PIP) --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/pip
	@echo "Installing transferlab with its tests into $(VENV): about two minutes and 6 GB the first time."
	@$(PIP) --editable '.[dev]'
	@touch $(INSTALLED) $@

$(BIN)/pip:
	@for python in python3.11 python3 python3.12 python3.13; do \
	  if "$$python" -c '$(ENOUGH)' 2>/dev/null; then exec "$$python" -m venv $(VENV); fi; \
	done; \
	echo "transferlab needs Python 3.11 or newer with its venv module (apt: python3.11-venv); none is on the PATH." >&2; \
	exit 1
