# Everything a person types here; `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin

# Where a ROS is sourced, its rclpy serves; elsewhere the one from PyPI does.
comma := ,
EXTRAS := train,sim,dev,bench$(if $(ROS_DISTRO),,$(comma)ros)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fuzz gpu clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

demo: .venv/.installed ## logs, dataset, BC and IQL, bundle, simulator and node; ends with one table
	$(BIN)/iql-ros demo --out runs/demo

test: .venv/.installed ## run the tests
	$(BIN)/python -m pytest

check: .venv/.installed ## format, lint, types and tests: what a change has to pass
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: .venv/.installed ## run every benchmark, quick; one line of JSON each
	@for name in $(basename $(notdir $(wildcard benchmarks/[!_]*.py))); do \
		$(BIN)/python -m benchmarks.$$name --quick || exit 1; \
	done

fuzz: .venv/.installed ## 50,000 damaged logs through the readers; two minutes
	IQL_ROS_FUZZ=50000 $(BIN)/python -m pytest tests/property/test_logs_fuzz.py

gpu: ## the tests that need a GPU, with nothing but wheels: make gpu WHEELS=folder
	bash tests/gpu/run.sh $(WHEELS)

clean: ## remove builds and caches; keeps .venv and runs
	rm -rf build dist install log *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The stamp is as new as the files that say what to install.
.venv/.installed: setup.py setup.cfg pyproject.toml constraints.txt
	@echo 'Installing into .venv: 2 GB, a minute or two.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' --constraint constraints.txt
	@touch $@
