PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo up test lint types bench-digits migrate clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make .venv and install the project into it

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); set PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]' > $(VENV)/install.log 2>&1 \
	  || { tail -n 15 $(VENV)/install.log; echo "the installation failed; all of it: $(VENV)/install.log"; exit 1; }
	@touch $@

demo: $(READY) ## run the three stages on real images and print the result
	@$(BIN)/fewlabels demo

up: $(READY) ## run the service with embedded servers, data in ./fewlabels-data
	@$(BIN)/fewlabels up

test: $(READY) ## run the test suite
	@$(BIN)/python -m pytest -q

lint: $(READY) ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## check types
	@$(BIN)/mypy

bench-digits: $(READY) ## measure what each stage is worth with five labels a class
	@OMP_WAIT_POLICY=passive $(BIN)/python benchmarks/digits_label_efficiency.py

migrate: $(READY) ## bring the database at FEWLABELS_DATABASE_URL up to date
	@$(BIN)/fewlabels migrate

clean: ## remove caches (not .venv, not data)
	@rm -rf .mypy_cache .pytest_cache .ruff_cache build *.egg-info
