# vocabgraft: `make demo` and `make test` work on a fresh machine with Python 3.11, make, gcc and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help install demo test fast check docs clean-venv

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*## /  /'

install: $(STAMP) ## make .venv with everything the demo and the tests need

# torch alone first: on Linux its CPU wheel is the one without gigabytes of CUDA.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet -e ".[train,serve,demo,korean,fast,web,dev]"
	touch $(STAMP)

demo: install    ## a real Gemma 3 learns Korean: 22 steps, about 15 minutes on 2 cores
	$(BIN)/vocabgraft run korean-gemma-270m

test: install    ## all tests, the slow ones too
	$(BIN)/pytest

fast: install    ## the tests that take seconds
	$(BIN)/pytest -m "not slow"

# Benchmarks are no package: what is asked of them is that the names and parameters they use are there.
SCRIPTS_MAY = no-any-return type-arg misc arg-type union-attr operator assignment func-returns-value import-not-found

check: install   ## format, lint, types, shipped recipes
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	MYPYPATH=src:benchmarks $(BIN)/mypy benchmarks/*.py $(addprefix --disable-error-code=,$(SCRIPTS_MAY))
	$(BIN)/vocabgraft check korean-gemma-270m
	$(BIN)/vocabgraft check tiny-cpu

docs: install    ## the recipe reference in docs/recipe.md, from the schema
	$(BIN)/python docs/make_recipe_reference.py
