PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
# As the service gives it to its processes (core/config.py).
OPENMP := OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=1000

.DEFAULT_GOAL := help
.PHONY: help install demo up test fuzz soak chaos lint types bench-pretrain bench-memory bench-labels bench-crops bench-views bench-decode bench-ingest bench-jobs bench-search bench-runtimes bench-waiting bench-serving pictures migrate clean

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

# Four processes at a time: with a thread for each core they would mostly wait for each other.
test: $(READY) ## run the test suite
	@$(OPENMP) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

fuzz: $(READY) ## send the service what schemathesis makes up (EXAMPLES=200, SEED=1; 4 minutes)
	@$(OPENMP) $(BIN)/python -m tests.fuzz \
	  $(if $(EXAMPLES),--examples $(EXAMPLES)) $(if $(SEED),--seed $(SEED))

soak: $(READY) ## load the API with twice what it can do, and check every answer (SECONDS=600)
	@$(OPENMP) $(BIN)/python -m tests.soak \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(PROCESSES),--processes $(PROCESSES))

chaos: $(READY) ## real jobs while all they run on is killed, stopped and cut (JOBS=200, SEED=1)
	@$(OPENMP) $(BIN)/python -m tests.chaos \
	  $(if $(JOBS),--jobs $(JOBS)) $(if $(SEED),--seed $(SEED))

lint: $(READY) ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## check types
	@$(BIN)/mypy

BENCH := $(OPENMP) $(BIN)/python -m benchmarks

$(VENV)/.bench: $(READY)
	@echo "installing what the benchmarks compare with"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev,bench]' > $(VENV)/bench.log 2>&1 \
	  || { tail -n 15 $(VENV)/bench.log; echo "the installation failed; all of it: $(VENV)/bench.log"; exit 1; }
	@touch $@

bench-pretrain: $(VENV)/.bench ## measure a pre-training step beside lightly's and the limit
	@$(BENCH).pretrain_throughput

bench-memory: $(VENV)/.bench ## measure the memory of the loss and of gradient caching
	@$(BENCH).loss_memory

bench-labels: $(READY) ## measure accuracy by labels a class (FRESH=1 starts over, QUICK=1 is a taste)
	@$(BENCH).label_efficiency $(if $(FRESH),--fresh) $(if $(QUICK),--quick)

bench-crops: $(READY) ## measure the ways to crop and resize
	@$(BENCH).crop_ways

bench-ingest: $(READY) ## measure how fast images come in
	@$(BENCH).ingest

bench-jobs: $(READY) ## measure what a job costs beyond its work, and claims a second
	@$(BENCH).jobs

bench-views: $(READY) ## measure what more views and the losses are worth
	@$(BENCH).views

bench-decode: $(READY) ## measure decoders of JPEG and the pool that checks uploads
	@$(BENCH).decode

bench-search: $(READY) ## measure searches beside a matrix product alone, and their recall
	@$(BENCH).search

bench-runtimes: $(READY) ## measure a pass in each runtime, torch.compile among them
	@$(BENCH).runtimes

bench-waiting: $(READY) ## measure what it costs that OpenMP's threads sleep while they wait
	@$(BENCH).waiting

bench-serving: $(VENV)/.bench ## measure answers a second beside the bare runtime, LitServe, FastAPI
	@$(BENCH).serving $(if $(SECONDS),--seconds $(SECONDS))

pictures: $(VENV)/.bench ## draw the pictures of docs/learning.md again
	@$(BENCH).learning_pictures

migrate: $(READY) ## bring the database at FEWLABELS_DATABASE_URL up to date
	@$(BIN)/fewlabels migrate

clean: ## remove caches (not .venv, not data)
	@rm -rf .mypy_cache .pytest_cache .ruff_cache build *.egg-info
