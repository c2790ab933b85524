# medmtl. Needs Python 3.11 or newer, pip and make; `make help` lists what it does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install develop demo test bench docs tutorials schema package lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/medmtl: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.develop: $(BIN)/medmtl
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(BIN)/medmtl
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

install: $(BIN)/medmtl ## install medmtl into .venv
	@echo "medmtl is installed in $(VENV). To use it: source $(BIN)/activate"

develop: $(VENV)/.develop ## install medmtl with what tests and linters need

demo: install ## train one model on five phantom tasks, test it, and say where the report is
	$(BIN)/medmtl fit --config multitask.yaml
	$(BIN)/medmtl test --config multitask.yaml

test: develop ## run the tests (real data too, where MEDMTL_DATA names it), on two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

bench: develop ## measure speed, memory, how they grow, and the coverage of intervals, into bench.json
	$(BIN)/python tests/benchmarks/calibration.py
	$(BIN)/python tests/benchmarks/training.py
	$(BIN)/python tests/benchmarks/detection.py
	$(BIN)/python tests/benchmarks/prediction.py
	$(BIN)/python tests/benchmarks/exported.py
	$(BIN)/python tests/benchmarks/outputs.py
	$(BIN)/python tests/benchmarks/serving.py --requests 50
	$(BIN)/python tests/benchmarks/coverage.py
	$(BIN)/python tests/benchmarks/reuse.py
	$(BIN)/python tests/benchmarks/growth.py

docs: $(VENV)/.docs ## build the documentation into build/docs/index.html, offline, any warning being an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

tutorials: develop ## execute the notebooks and write their pages into docs/tutorials
	$(BIN)/python docs/hooks/tutorials.py

schema: develop ## write the JSON Schema of the configurations into configs, for editors
	$(BIN)/python docs/hooks/schema.py

package: develop ## build wheel and sdist into dist, and run a demo with each in a fresh environment
	$(BIN)/python tests/package_demo.py --constraint $(CURDIR)/constraints.txt

lint: develop ## check style, types, the direction of imports, and what git tracks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/tracked_files.py

format: develop ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and everything that tools left
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
